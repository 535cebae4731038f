"""Instructions from clips through a chat endpoint.

Properties:
- the frames that the settings choose are sent as images in the order of time, those of a video and those of image
  files, and the text has their times; the answers become instructions, and a second run sends nothing;
- other frames are another request;
- a damaged clip counts as a bad image, and does not affect others;
- a step that needs more images than allowed is refused before anything is sent; paid requests do not count;
- the preview shows film strips.
"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path

import pytest
from chat_server import ChatServer
from PIL import Image

pytest.importorskip("av", reason="the extra `clips` is not installed")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "clips"))
from video_files import shows, write_video

from lavis_emovit.chat.ledger import Ledger
from lavis_emovit.errors import UserError
from lavis_emovit.generation.instructions import write_kind
from lavis_emovit.generation.job import Job, JobSettings
from lavis_emovit.generation.outputs import _card
from lavis_emovit.records import build_record


@pytest.fixture
def records(tmp_path):
    write_video(tmp_path / "a.mp4", [number / 10 for number in range(30)])
    for number in range(4):
        Image.new("RGB", (64, 48), (50 * number,) * 3).save(tmp_path / f"{number}.png")
    (tmp_path / "bad.mp4").write_bytes(b"damaged" * 50)
    clips = {
        "video": ("a.mp4", {"start_s": 1.0, "end_s": 2.0}),
        "files": ("1.png", {"frames": [f"{number}.png" for number in range(4)], "rate_fps": 2}),
        "bad": ("bad.mp4", {}),
    }
    common = {"split": "train", "source": "c", "emotion": "fear", "label_set": "mikels8"}
    return [
        build_record({"id": id_, "image": image, "clip": clip, **common}, id_) for id_, (image, clip) in clips.items()
    ]


@pytest.fixture
def make_job(tmp_path, records):
    opened = []

    def make(chat, some=None, **settings):
        while opened:
            opened.pop().close()
        opened.append(Ledger(tmp_path / "out" / "ledger.jsonl"))
        values = JobSettings.model_validate({"num_examples": 1, "vision": True, **settings})
        return Job(records if some is None else some, tmp_path, tmp_path / "out", opened[-1], values, chat)

    (tmp_path / "out").mkdir()
    yield make
    for ledger in opened:
        ledger.close()


def _sent(body):
    *images, text = body["messages"][1]["content"]
    urls = [part["image_url"]["url"].partition(",")[2] for part in images]
    return [Image.open(io.BytesIO(base64.b64decode(url))) for url in urls], text["text"]


def test_frames_are_sent_in_the_order_of_time(make_job, make_settings):
    with ChatServer() as server:
        job = make_job(make_settings(server), frames={"num_frames": 4})
        result = write_kind(job, "reasoning")
        assert (result.num_done, result.missing["bad_picture"]) == (2, 1)
        sent = {text.split("\n")[0]: images for images, text in map(_sent, server.bodies)}
        (video,) = [images for text, images in sent.items() if "at 1.1, 1.4, 1.6, 1.9 seconds" in text]
        (files,) = [images for text, images in sent.items() if "at 0.0, 0.5, 1.0, 1.5 seconds" in text]
        assert len(sent) == 2 and all("how the emotion changes, and why" in text for text in sent)
        # Frames are 0.1 s apart, and the one at a time is the last that is not later.
        assert [shows(image, number) for image, number in zip(video, (11, 13, 16, 18))] == [True] * 4
        assert [image.convert("L").getpixel((9, 9)) for image in files] == [
            pytest.approx(50 * number, abs=3) for number in range(4)
        ]
        assert [len(record.instructions) for record in job.records] == [1, 1, 0]
        paid = server.num_requests
        write_kind(make_job(make_settings(server), frames={"num_frames": 4}), "reasoning")
        assert server.num_requests == paid == 2
        write_kind(make_job(make_settings(server), frames={"num_frames": 3}), "reasoning")
        assert server.num_requests == 2 * paid


def test_images_are_limited(make_job, make_settings, records):
    with ChatServer() as server:
        good = records[:2]
        with pytest.raises(UserError, match=r"reasoning: needs 8 images, and job.max_images allows 7. None of"):
            write_kind(make_job(make_settings(server), good, frames={"num_frames": 4}, max_images=7), "reasoning")
        assert server.num_requests == 0
        job = make_job(make_settings(server), good, frames={"num_frames": 4}, max_images=8)
        assert write_kind(job, "reasoning").num_done == 2
        with pytest.raises(UserError, match=r"description: needs 8 images after 8 of earlier requests"):
            write_kind(job, "description")
        # What is paid for needs no images.
        again = make_job(make_settings(server), good, frames={"num_frames": 4}, max_images=1)
        assert write_kind(again, "reasoning").num_done == 2 and server.num_requests == 2


def test_the_preview_shows_film_strips(records, tmp_path):
    shown = _card(records[1], tmp_path)["image"]
    with Image.open(io.BytesIO(base64.b64decode(shown.partition(",")[2]))) as strip:
        assert strip.width / strip.height == pytest.approx(3 * 64 / (2 * 48), rel=0.05)
    assert _card(records[2], tmp_path)["image"] is None
