"""Clips on the page of `emovit demo`.

Properties:
- a video gets labels, and a bar below each frame that the model saw, with the numbers of `frame_effects`;
- an example may be a clip; labels of clips are not corrected here;
- damaged videos, and videos for a model of images, are named as files that cannot be used.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lavis_emovit.clips.clip import Clip
from lavis_emovit.clips.reading import bundle_of
from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.adapters.lavis_model import LavisModel
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings
from lavis_emovit.images import jpeg_of
from lavis_emovit.pages import parts
from lavis_emovit.pages.answers import PageModel
from lavis_emovit.pages.demo_events import DemoEvents, DemoParts
from lavis_emovit.pages.examples import Example
from lavis_emovit.pages.uploads import shown_upload
from lavis_emovit.processors.emovit_image_eval import EmovitImageEvalProcessor
from lavis_emovit.tuned.predictions import Asking, PredictionSettings

av: Any = pytest.importorskip("av", reason="the extra `clips` is not installed")
LABELS = get_label_set("labels: calm, tense")
EMOTION = BenchmarkSettings(dataset="c", kind="emotion", subject="picture", label_set="labels: calm, tense")


class Watches(LavisModel):
    """Scores "tense" by the brightness of the third of four frames, and "calm" 0; writes nothing."""

    def __init__(self, frames: dict[str, int] | None):
        self._image_processor = EmovitImageEvalProcessor.from_config({"image_size": 16, "frames": frames})

    def score(self, images: Any, image_index: Any, questions: Any, method: Any) -> list[list[float]]:
        return [[0.0, images[place][:, 2].mean().item()] for place in image_index]


@pytest.fixture
def model() -> PageModel:
    files = SimpleNamespace(model={}, datasets={})
    tuned: Any = SimpleNamespace(adapter=Watches({"num_frames": 4}), files=files, label_set=LABELS, box=None)
    asked = PredictionSettings((Asking("emotion", EMOTION, "likelihood", LABELS),))
    return PageModel("m", tuned, asked, None, None, frozenset())


def events_of(model: PageModel, *examples: Example) -> DemoEvents:
    events = DemoEvents([model], examples, Path("corrections"))
    one = {name: [name] for name in ("numbers", "reasons", "looks", "replies")}
    events.connect(DemoParts("upload", "chosen", "shown", "status", **one, correcting=["label", "saved"]))
    return events


def write_video(path: Path) -> bytes:
    """Two seconds, dark and then bright."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(20):
            pixels = np.full((64, 96, 3), 20 if number < 10 else 230, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    return path.read_bytes()


def last_of(changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for change in changes:
        found |= change
    return found


def test_a_video_gets_answers_and_a_bar_below_each_frame(model: PageModel, tmp_path: Path) -> None:
    data = write_video(tmp_path / "a.mp4")
    events = events_of(model)
    found = last_of(events.about_image(data))
    assert found["status"] == "The answer is complete."
    assert 'alt="Frames of the video that you chose"' in found["shown"] and "<strong>tense</strong>" in found["numbers"]
    effects = model.frame_effects(data, Clip(), "tense")
    assert effects is not None and [time_s for time_s, _ in effects] == [0.2, 0.7, 1.2, 1.7]
    # Only the third frame differs from the one before it.
    assert [round(effect, 6) != 0 for _, effect in effects] == [False, False, True, False] and effects[2][1] > 0.3
    assert re.findall(r"height:([0-9.]+)%", found["looks"]) == ["0.0", "0.0", "100.0", "0.0"]
    assert f"</span>{parts.signed(effects[2][1])} <small>1.20 s</small>" in found["looks"]
    assert "“tense”" in found["looks"]
    assert "emovit review" in events.corrected(found["chosen"], "calm", "Ada")


def test_an_example_may_be_a_clip(model: PageModel) -> None:
    shades = (10, 10, 200, 200)
    frames = [(n / 3, "jpg", jpeg_of(Image.new("RGB", (60, 40), (shade,) * 3))) for n, shade in enumerate(shades)]
    found = last_of(events_of(model, Example(bundle_of(frames), "", "tense", Clip())).about_example(0))
    assert found["status"] == "The answer is complete. People labelled this example tense."
    assert found["looks"].count("<li") == 4


def test_other_files_are_named(model: PageModel, tmp_path: Path) -> None:
    data = write_video(tmp_path / "a.mp4")
    for bad, takes_videos in ((data[:900], True), (b"<html>", True), (bundle_of([]), True), (data, False)):
        with pytest.raises(DataError, match=r"^This file cannot be used: .*Choose another image\.$"):
            shown_upload(bad, takes_videos=takes_videos)
    assert shown_upload(data, takes_videos=True)[1] == Clip()
    model.tuned.adapter._image_processor = EmovitImageEvalProcessor()
    assert not model.reads_videos
    assert "This file cannot be used" in last_of(events_of(model).about_image(data))["shown"]


def test_without_effects_the_page_says_why() -> None:
    assert "Not shown: the model names no label" in parts.moments(None, [], "")
