"""Clips in records: what checks, statistics, contact sheets and exports make of them.

Properties:
- a record's clip is read back as written; times that do not fit, and paths outside the root, are errors with the key;
- broken videos and broken frames are found; clips of one video are no duplicates and no contradiction;
- statistics count clips, a contact sheet shows film strips, an export for other trainers counts them as skipped.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("av", reason="the extra `clips` is not installed")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "clips"))
from PIL import Image
from video_files import write_video

from lavis_emovit.errors import DataError
from lavis_emovit.exchange.export import export_data
from lavis_emovit.records import EmotionRecord, build_record, read_records, write_records
from lavis_emovit.sources.checks import CheckedFile, check_records
from lavis_emovit.sources.contact_sheet import pick_tiles, write_contact_sheet
from lavis_emovit.sources.statistics import count_records


def _record(name: str, emotion: str, **values: object) -> EmotionRecord:
    fixed = {"id": name, "split": "train", "source": "clips", "emotion": emotion, "label_set": "mikels8"}
    instruction = {"kind": "categorical", "question": "Which?", "answer": emotion, "provenance": "human"}
    return build_record({**fixed, "instructions": [instruction], **values}, name)


@pytest.fixture
def records(tmp_path):
    write_video(tmp_path / "a.mp4", [number / 10 for number in range(30)])
    for number in range(3):
        Image.linear_gradient("L").rotate(90 * number).convert("RGB").save(tmp_path / f"{number}.png")
    frames = ["0.png", "1.png", "2.png"]
    return [
        _record("first", "fear", image="a.mp4", clip={"end_s": 1}),
        _record("second", "awe", image="a.mp4", clip={"start_s": 1}),
        _record("files", "awe", image="1.png", clip={"frames": frames, "times_s": [0, 0.5, 2]}),
    ]


def test_clips_are_read_back(records, tmp_path):
    write_records(tmp_path / "records.jsonl", records)
    assert list(read_records(tmp_path / "records.jsonl")) == records


@pytest.mark.parametrize(
    "clip, text",
    [
        ({"start_s": 3, "end_s": 2}, "must end after it starts"),
        ({"frames": ["1.png"]}, "`frames` need either rate_fps or times_s"),
        ({"frames": ["1.png"], "rate_fps": 5, "start_s": 1}, "belong to a video file"),
        ({"frames": ["1.png"], "times_s": [0, 1]}, "has 2 times_s for 1 frames"),
        ({"frames": ["1.png", "2.png"], "times_s": [1, 1]}, "times_s must increase"),
        ({"frames": ["2.png"], "rate_fps": 5}, "image must be one of clip.frames"),
        ({"frames": ["../1.png"], "rate_fps": 5}, "must be a path below the image root"),
        ({"frames": ["1.png", "\0.png"], "rate_fps": 5}, "has a null byte"),
        ({"rate_fps": 5}, "belong to `frames`"),
        ({"rate": 5}, r"unknown key 'clip.rate' \(did you mean 'rate_fps'\?\)"),
    ],
)
def test_clips_that_do_not_fit_are_named(clip, text):
    with pytest.raises(DataError, match=text):
        _record("one", "fear", image="1.png", clip=clip)


def test_checks_open_videos_and_frames(records, tmp_path):
    report = check_records([CheckedFile("records", records, tmp_path)])
    assert report.num_findings == 0, report.findings()
    (tmp_path / "2.png").write_bytes(b"damaged")
    (tmp_path / "a.mp4").write_bytes(b"damaged" * 100)
    report = check_records([CheckedFile("records", records, tmp_path)])
    first, second = report.faults
    assert "a.mp4: not a video file of a known format" in first and "2.png: not an image" in second


@pytest.mark.parametrize("clip", [{"start_s": 3.5}, {"end_s": 9}, {"start_s": 1, "end_s": 3.9}])
def test_checks_find_clips_that_are_no_part_of_their_video(records, tmp_path, clip):
    wrong = _record("wrong", "awe", image="a.mp4", clip=clip)
    report = check_records([CheckedFile("records", [*records, wrong], tmp_path)])
    (fault,) = report.faults
    assert fault.startswith("wrong (train): ") and "but the video ends at 2.9" in fault


def test_statistics_sheets_and_exports(records, tmp_path):
    counted = count_records(records)
    assert counted.num_clips == 3
    rows = pick_tiles(records, tmp_path, 8)
    assert write_contact_sheet(rows, tmp_path / "sheet.html") == []
    assert (tmp_path / "sheet.html").read_text().count('class="strip"') == 3
    assert write_contact_sheet(rows, tmp_path / "sheet.png", tile_px=32) == []
    # A strip has six frames, as many as two of these tiles have.
    assert Image.open(tmp_path / "sheet.png").size[0] == 2 * 6 * 32
    write_records(tmp_path / "records.jsonl", [*records, _record("image", "awe", image="0.png")])
    account = export_data(str(tmp_path / "records.jsonl"), tmp_path / "out", "llava")
    assert account["skipped"] == {"clips, which these formats do not have": 3}
