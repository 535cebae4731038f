"""Shards hold clips as they hold images.

Properties:
- a video keeps its bytes, image files theirs; frames chosen at build time are stored with their times;
- the same input gives the same index; an interrupted build resumes, and a replaced frame builds its shard again;
- unusable clips refuse the build by name, or are skipped and counted;
- verify decodes clips and finds a changed one; the card names their columns;
- the command takes the settings of the sampler, and says what is wrong with them.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

pytest.importorskip("av", reason="the extra `clips` is not installed")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "clips"))
from PIL import Image
from typer.testing import CliRunner
from video_files import write_sound, write_video

from lavis_emovit.cli.main import app
from lavis_emovit.clips.clip import Clip, FrameSettings
from lavis_emovit.clips.reading import open_clip
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord, write_records
from lavis_emovit.shards.card import write_card
from lavis_emovit.shards.index import ShardIndex
from lavis_emovit.shards.reader import ShardReader
from lavis_emovit.shards.verify import verify_shards
from lavis_emovit.shards.writer import write_shards

FRAMES = FrameSettings(num_frames=3)


def _record(name: str, image: str, clip: Clip) -> EmotionRecord:
    labels = {"emotion": "fear", "label_set": "mikels8", "group": "film 1"}
    return EmotionRecord(id=name, image=image, split="train", source="clips", clip=clip, **labels)


def _frame(path: Path, tone: int) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (40, 30), (tone, 0, 0)).save(path)


@pytest.fixture
def clips(tmp_path):
    """(records, root): a whole video, two parts of it, and image files."""
    root = tmp_path / "root"
    root.mkdir()
    write_video(root / "a.mp4", [number / 10 for number in range(40)], g="10")
    paths = [f"b/{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        _frame(root / path, 50 * number)
    records = [
        _record("whole", "a.mp4", Clip()),
        _record("start", "a.mp4", Clip(end_s=1.5)),
        _record("end", "a.mp4", Clip(start_s=2, end_s=3.5, key_s=3)),
        _record("files", paths[2], Clip(frames=paths, rate_fps=5)),
    ]
    return records, root


def _samples(index: ShardIndex) -> dict[str, tuple[bytes, Clip]]:
    reader = ShardReader(index)
    samples = [reader.read(number) for number in range(len(reader))]
    return {sample.record.id: (sample.image_bytes, sample.record.clip) for sample in samples}


def test_clips_keep_their_bytes(clips, tmp_path):
    records, root = clips
    index = write_shards(records, root, tmp_path / "out")
    found = _samples(index)
    assert {found[name][0] for name in ("whole", "start", "end")} == {(root / "a.mp4").read_bytes()}
    assert {name: clip for name, (_, clip) in found.items()} == {record.id: record.clip for record in records}
    with open_clip(*found["files"]) as opened:
        assert [opened.read(name) for name in opened.names] == [(root / path).read_bytes() for path in records[3].paths]
        assert list(opened.times_s) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert verify_shards(tmp_path / "out").ok
    assert write_shards(records[::-1], root, tmp_path / "again").hash == index.hash
    card = write_card(tmp_path / "out").read_text()
    assert "name: mp4" in card and "dtype: video" in card and "dtype: binary" in card


def test_a_whole_video_is_not_stored_for_a_clip_after_its_end(clips, tmp_path):
    records, root = clips
    late = [records[0], _record("late", "a.mp4", Clip(start_s=5)), _record("long", "a.mp4", Clip(end_s=9))]
    with pytest.raises(DataError, match=r"a\.mp4: the clip is from 5 to 3\.94 s, but the video ends at 3\.94 s"):
        write_shards(late, root, tmp_path / "out")
    index = write_shards(late, root, tmp_path / "out", skip_bad=True)
    assert set(_samples(index)) == {"whole"} and len(index.build["skipped"]) == 2


def test_chosen_frames_are_stored_with_their_times(clips, tmp_path):
    records, root = clips
    index = write_shards(records, root, tmp_path / "out", frames=FRAMES, resize_px=24)
    expected = {
        "start": [0.2, 0.7, 1.2],
        "end": [2.2, 2.7, 3.2],
        "files": [0, 0.4, 0.8],  # of five parts of 0.2 s, those at 1/6, 3/6 and 5/6 of the second
    }
    found = _samples(index)
    for name, times_s in expected.items():
        with open_clip(*found[name]) as opened:
            assert list(opened.times_s) == pytest.approx(times_s)
            sizes = [Image.open(io.BytesIO(opened.read(one))).size for one in opened.names]
            assert sizes == [(32, 24)] * 3
    assert index.build["frames"]["num_frames"] == 3
    assert verify_shards(tmp_path / "out").ok


def test_a_replaced_frame_builds_its_shard_again(clips, tmp_path):
    records, root = clips
    bad = [*records, _record("gone", "c.mp4", Clip())]
    with pytest.raises(DataError, match=r"gone: cannot be read \(No such file"):
        write_shards(bad, root, tmp_path / "out", samples_per_shard=1)
    shards = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tar")}
    _frame(root / "b/4.png", 77)
    index = write_shards(bad, root, tmp_path / "out", samples_per_shard=1, skip_bad=True)
    changed = [path for path in shards if path.stat().st_mtime_ns != shards[path]]
    assert len(changed) == 1
    assert index.build["skipped"] == [{"id": "gone", "reason": "cannot be read (No such file or directory): c.mp4"}]


def test_unusable_clips_are_named(clips, tmp_path):
    records, root = clips
    (root / "cut.mp4").write_bytes((root / "a.mp4").read_bytes()[:900])
    write_sound(root / "sound.m4a")
    (root / "b/1.png").write_bytes(b"damaged")
    wrong = [
        *records,
        _record("cut", "cut.mp4", Clip()),
        _record("sound", "sound.m4a", Clip()),
        _record("late", "a.mp4", Clip(start_s=50)),
        _record("image", "b/0.png", Clip()),
    ]
    with pytest.raises(DataError, match="4 of 8 images cannot be used") as caught:
        write_shards(wrong, root, tmp_path / "out", frames=FRAMES)
    text = str(caught.value)
    for line in (
        "cut: cut.mp4: not a video file of a known format",
        "sound: sound.m4a: the file has no video stream, only audio",
        "late: a.mp4: the clip is from 50 to",
        "image: b/0.png: not a video file of a known format",
    ):
        assert line in text
    with pytest.raises(DataError, match=r"files: b/2\.png: frame b/1\.png: not a picture"):
        write_shards(records, root, tmp_path / "files")


def test_verify_finds_a_damaged_clip(clips, tmp_path):
    records, root = clips
    index = write_shards(records, root, tmp_path / "out")
    path = tmp_path / "out" / index.shards[0].name
    data = bytearray(path.read_bytes())
    data[int(index.columns["image_offset"][0]) + 60] ^= 255
    path.write_bytes(bytes(data))
    assert not verify_shards(tmp_path / "out").ok


def test_the_command_takes_a_sampler(clips, tmp_path):
    records, root = clips
    write_records(root / "records.jsonl", records)
    command = ["shards", "build", str(root / "records.jsonl"), "--out", str(tmp_path / "out"), "--frames"]
    done = CliRunner().invoke(app, [*command, "sampler: dense, num_frames: 2, rate_fps: 4"])
    assert done.exit_code == 0, done.output
    again = CliRunner().invoke(app, [*command, "sampler: dense, num_frames: 2, rate_fps: 4"])
    assert "already contains finished shards" in again.output + str(again.exception)
    shown = CliRunner().invoke(app, ["shards", "stats", str(tmp_path / "out")])
    assert "at most 2 frames each, sampler dense" in shown.output
    wrong = CliRunner().invoke(app, [*command, "sampler: unifrom"])
    assert "frames.sampler" in wrong.output + str(wrong.exception)
