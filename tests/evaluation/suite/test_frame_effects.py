"""Where in time a model looked, `frame_effects`.

Properties:
- a model whose answer depends on one frame gets an effect there, and none at the others, with the number that its
  scores give by hand; a frame that speaks against the answer has a negative one;
- in the copies of a clip, one frame each shows what the one before it shows, the first what the second shows;
- images, clips of one frame or too many, and answers that are no candidate have no effects;
- a run keeps the effects of the clips of its report, with a strip of the frames that the model saw;
- a suite keeps those of the mistakes that its report shows, once, also after a restart; a strip has the frames of one
  model, and no bars of a model that saw others;
- the report has a bar and its number below each frame.
"""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from report_page import check_page, page_of

from lavis_emovit.clips.clip import Clip
from lavis_emovit.clips.reading import bundle_of
from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.evaluation.adapters.base import Item
from lavis_emovit.evaluation.adapters.lavis_model import LavisModel
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings
from lavis_emovit.evaluation.predictions import read_predictions, write_predictions
from lavis_emovit.evaluation.report.images import small_copy
from lavis_emovit.evaluation.report.page import write_report
from lavis_emovit.evaluation.report.table import MINUS
from lavis_emovit.evaluation.suite import suite as suite_module
from lavis_emovit.evaluation.suite.benchmark_data import OpenBenchmark
from lavis_emovit.evaluation.suite.frame_effects import MAX_FRAMES, frame_effects
from lavis_emovit.evaluation.suite.requests import Prepared
from lavis_emovit.evaluation.suite.suite import run_suite
from lavis_emovit.evaluation.truths import Truth
from lavis_emovit.images import jpeg_of
from lavis_emovit.processors.emovit_image_eval import EmovitImageEvalProcessor
from lavis_emovit.records import EmotionRecord
from lavis_emovit.runners.evaluator import Evaluator
from lavis_emovit.runners.run_folder import RunFolder
from lavis_emovit.runners.splits import RunBenchmark
from lavis_emovit.shards.reader import ShardSample
from lavis_emovit.shards.writer import write_shards

LABELS = get_label_set("labels: calm, tense")
EMOTION = BenchmarkSettings(dataset="c", kind="emotion", subject="picture", label_set="labels: calm, tense")


class _Watches(LavisModel):
    """Scores "tense" by the brightness of one frame, and "calm" 0."""

    def __init__(self, frame: int, weight: float = 1.0):
        self.frame, self.weight, self.most_at_once = frame, weight, 0

    def score(self, images, image_index, questions, method):
        assert method == "likelihood" and questions[0].candidates == ("calm", "tense")
        self.most_at_once = max(self.most_at_once, len(images))
        return [[0.0, self.weight * images[place][:, self.frame].mean().item()] for place in image_index]


def clip_of(shades, frames_s=None) -> Prepared:
    record = EmotionRecord(id="c/1", image="c.mp4", split="test", source="c", clip=Clip())
    pixels = torch.tensor(shades, dtype=torch.float32)[None, :, None, None].expand(3, -1, 2, 2)
    return Prepared(Item(record, b"", Truth(label="tense")), pixels, frames_s or tuple(map(float, range(len(shades)))))


def log_share(score: float, other: float = 0.0) -> float:
    return score - math.log(math.exp(score) + math.exp(other))


@pytest.mark.parametrize("frame", [0, 1, 5, 11])
def test_the_frame_that_the_answer_depends_on_wins(frame):
    shades = [float(place % 2) * 2 for place in range(12)]
    model = _Watches(frame)
    effects = frame_effects(model, clip_of(shades), EMOTION, "generation", LABELS, "tense", batch_size=8)
    other = shades[frame - 1] if frame else shades[1]
    expected = log_share(shades[frame]) - log_share(other)
    assert effects == tuple(pytest.approx(expected if place == frame else 0.0, abs=1e-6) for place in range(12))
    assert (expected > 0) == (shades[frame] > other) and abs(expected) > 0.5
    assert model.most_at_once == 8
    against = frame_effects(model, clip_of(shades), EMOTION, "likelihood", LABELS, "calm", batch_size=5)
    assert against[frame] == pytest.approx(log_share(-shades[frame]) - log_share(-other), abs=1e-6)
    assert against[frame] * expected < 0


def test_one_frame_of_each_copy_stands_still():
    clip = clip_of([1, 2, 3]).image
    copies = _Watches(0).still_at_each_frame(clip, clip.shape[1])
    assert [copy[0, :, 0, 0].tolist() for copy in copies] == [[2, 2, 3], [1, 1, 3], [1, 2, 2]]
    assert clip[0, :, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("prepared", "answer"),
    [
        (Prepared(clip_of([1]).item, torch.zeros(3, 2, 2)), "tense"),
        (Prepared(clip_of([1]).item, problem="damaged"), "tense"),
        (clip_of([1]), "tense"),
        (clip_of([1] * (MAX_FRAMES + 1)), "tense"),
        (clip_of([1, 2]), "joy"),
        (clip_of([1, 2]), None),
    ],
)
def test_without_several_frames_or_a_label_there_are_none(prepared, answer):
    assert frame_effects(_Watches(0), prepared, EMOTION, "likelihood", LABELS, answer, batch_size=8) is None
    numbers = BenchmarkSettings(dataset="c", kind="valence_arousal", subject="picture")
    assert frame_effects(_Watches(0), clip_of([1, 2]), numbers, "likelihood", None, answer, batch_size=8) is None


def test_a_strip_has_the_frames_of_a_row():
    frames = [(number / 3, "jpg", jpeg_of(Image.new("RGB", (60, 40), (20 * number,) * 3))) for number in range(9)]
    rounded = [round(number / 3, 3) for number in (0, 1, 2, 8, 8)]
    strip = small_copy(bundle_of(frames), Clip(), 80, rounded)
    assert strip.size == (5 * 60, 40)
    shades = [strip.getpixel((30 + 60 * column, 20))[0] for column in range(5)]
    assert shades == [pytest.approx(20 * number, abs=4) for number in (0, 1, 2, 8, 8)]


class _Samples:
    def __init__(self, records, data):
        self._records, self._data = records, data

    def __len__(self):
        return len(self._records)

    def read(self, sample):
        return ShardSample(self._records[sample], self._data)


class _WatchesFiles(_Watches):
    """The same for encoded clips; writes nothing."""

    def __init__(self, frame: int, num_frames: int = 4):
        super().__init__(frame)
        frames = {"num_frames": num_frames}
        self._image_processor = EmovitImageEvalProcessor.from_config({"image_size": 16, "frames": frames})

    def identity(self):
        return {"frame": self.frame}

    def write(self, images, image_index, questions):
        return ["no idea" for _ in questions]


def test_a_run_keeps_the_effects_of_its_first_clips(tmp_path, monkeypatch):
    shades = (10, 10, 200, 200)
    frames = [
        (place / 3, "jpg", jpeg_of(Image.new("RGB", (60, 40), (shade,) * 3))) for place, shade in enumerate(shades)
    ]
    labels = {"split": "test", "source": "c", "emotion": "tense", "label_set": EMOTION.label_set}
    records = [EmotionRecord(id=f"c/{number}", image="c.mp4", clip=Clip(), **labels) for number in range(3)]
    data = OpenBenchmark("test", EMOTION, _Samples(records, bundle_of(frames)), LABELS)
    settings = SimpleNamespace(num_report_answers=2, batch_size_eval=2, num_workers=0, log_every_steps=1)
    model = _WatchesFiles(2)
    monkeypatch.setattr(Evaluator, "_adapter", lambda self, benchmark: model)
    task = SimpleNamespace(metrics=lambda measured: {}, log_line=lambda kind, metrics: "")
    engine = SimpleNamespace(in_step=False)
    Evaluator(engine, None, task, settings, RunFolder(tmp_path)).evaluate(
        RunBenchmark(data, "likelihood"), "after", "now"
    )
    rows = read_predictions(tmp_path / "predictions" / "test-after.jsonl")
    one, two, three = (row.frame_effects for row in rows)
    assert one == two and three is None and rows[2].image is None
    assert model.most_at_once == settings.batch_size_eval
    assert rows[0].frames_s == (0.0, 0.333, 0.667, 1.0)
    assert one[2] > 0.3 and one[0] == one[1] == one[3] == 0.0
    with Image.open(tmp_path / rows[0].image) as strip:
        assert strip.size == (4 * 144, 96)
        shown = [strip.getpixel((72 + 144 * column, 48))[0] for column in range(4)]
    assert shown == [pytest.approx(shade, abs=4) for shade in shades]


def test_a_suite_keeps_the_effects_of_the_mistakes_that_it_shows(tmp_path, suite, monkeypatch):
    folder = tmp_path / "clips"
    folder.mkdir()
    for place, shade in enumerate((10, 10, 200, 200)):
        (folder / f"{place}.jpg").write_bytes(jpeg_of(Image.new("RGB", (60, 40), (shade,) * 3)))
    clip = Clip(frames=tuple(f"{place}.jpg" for place in range(4)), rate_fps=3)
    labels = {"split": "test", "source": "c", "label_set": EMOTION.label_set}
    # The model says "tense" to all of them.
    records = [
        EmotionRecord(id=f"c/{number}", image="0.jpg", clip=clip, emotion="calm" if number < 5 else "tense", **labels)
        for number in range(8)
    ]
    for split in ("train", "val", "test"):
        of_split = [record.model_copy(update={"split": split}) for record in records]
        write_shards(of_split, folder, tmp_path / "data" / "clips" / split)
    monkeypatch.setenv("EMOVIT_DATA", str(tmp_path / "data"))
    models = {"one": _WatchesFiles(2), "other": _WatchesFiles(1, num_frames=3)}
    monkeypatch.setattr(suite_module, "open_model", lambda entry, place: models[place.name])
    settings = suite(
        benchmark={"config": {"build_info": {"images": {"storage": "clips"}}}, "label_set": EMOTION.label_set},
        models={name: {"adapter": "lavis", "arch": "emovit_tiny"} for name in models},
        report=True,
        num_images=2,
    )
    run_suite(settings)
    rows = {name: read_predictions(tmp_path / f"out/predictions/set/{name}.likelihood.jsonl") for name in models}
    for name, count, place in (("one", 4, 2), ("other", 3, 1)):
        shown = [row.frame_effects for row in rows[name] if row.frame_effects is not None]
        assert len(shown) == 2 and all(len(one) == count and one[place] > 0.3 for one in shown)
        assert all(row.label == "calm" for row in rows[name] if row.frame_effects is not None)
    page = page_of(write_report(tmp_path / "out"))
    check_page(page)
    cards = re.findall(r'<article class="card strip".*?</article>', page.html, re.DOTALL)
    assert len(cards) == 2 and all(card.count('<ol class="effects">') == 1 for card in cards)
    assert all("one (likelihood): effect of each frame" in card for card in cards)
    assert "stands still at that frame" in page.text
    for path in (tmp_path / "out/pictures/set").iterdir():
        with Image.open(path) as strip:
            assert strip.size == (4 * 180, 120)

    for model in models.values():
        model.most_at_once = 0
    run_suite(settings)
    assert all(model.most_at_once == 0 for model in models.values())
    # A larger report asks only about the clips that are new in it.
    run_suite(settings.model_copy(update={"num_images": 4}))
    again = read_predictions(tmp_path / "out/predictions/set/one.likelihood.jsonl")
    assert sum(row.frame_effects is not None for row in again) == 4


def test_a_report_has_a_bar_below_each_frame(make_run):
    run = make_run(num_rows=20, num_images=2)
    for stage in ("before", "after"):
        path = run / "predictions" / f"test-{stage}.jsonl"
        first, *others = read_predictions(path)
        effects = {"frames_s": (0.5, 1.5, 2.5), "frame_effects": (0.0, 0.25, -1.0)}
        write_predictions(path, [first.model_copy(update=effects if stage == "after" else {}), *others])
    page = page_of(write_report(run))
    check_page(page)
    (card,) = re.findall(r'<article class="card strip".*?</article>', page.html, re.DOTALL)
    heights = re.findall(
        r'<li( class="against")?><span class="column" aria-hidden="true"><b style="height:([0-9.]+)%', card
    )
    assert heights == [("", "0.0"), ("", "25.0"), (' class="against"', "100.0")]
    bars = re.sub("<[^>]+>", " ", card.partition('<ol class="effects">')[2].partition("</ol>")[0]).split()
    assert bars == ["+0.00", "0.50", "s", "+0.25", "1.50", "s", f"{MINUS}1.00", "2.50", "s"]
    assert "stands still at that frame" in page.text and page.html.count("card strip") == 1
    assert "stands still" not in page_of(write_report(make_run("plain", num_rows=20, num_images=2))).text
