"""Records with boxes on their way to the model.

Properties:
- two records of one image with different boxes give different inputs in training, in evaluation by likelihood and by
  generation, to baselines, and in predictions, if crops are shown; the same input, with a warning, if not;
- the crop of a record is the same in training and evaluation;
- frames of a clip are cropped to its box;
- shards keep the image whole; shrinking an image scales the box, and shrunk shards whose boxes were not scaled are
  refused; a box without area in its image is refused;
- a box without area in its image becomes an error row, or stops training, with record and box named;
- a run keeps what it showed with its questions, and refuses to evaluate on other parts than it trains on.
"""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from lavis_emovit.boxes import BoxSettings
from lavis_emovit.clips.clip import Clip, FrameSettings
from lavis_emovit.clips.reading import bundle_of
from lavis_emovit.datasets.settings import DatasetSettings
from lavis_emovit.datasets.shard_dataset import EmotionShardDataset
from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.evaluation.adapters.base import LanguageModel, ModelPlace
from lavis_emovit.evaluation.adapters.colours import ColoursBaseline, ColoursSettings
from lavis_emovit.evaluation.adapters.lavis_model import LavisModelSettings, open_lavis_model
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings
from lavis_emovit.evaluation.suite.benchmark_data import open_benchmark
from lavis_emovit.evaluation.suite.requests import prepare, request_rows
from lavis_emovit.evaluation.trained_questions import TrainedQuestion
from lavis_emovit.images import decode_image
from lavis_emovit.processors.emovit_image_eval import EmovitImageEvalProcessor
from lavis_emovit.processors.emovit_image_train import EmovitImageTrainProcessor
from lavis_emovit.processors.emovit_text import EmovitTextProcessor
from lavis_emovit.processors.settings import CLIP_MEAN, CLIP_STD
from lavis_emovit.records import EmotionRecord, Instruction, write_records
from lavis_emovit.runners import config
from lavis_emovit.runners.config import Config
from lavis_emovit.runners.splits import RecipeSplits
from lavis_emovit.shards import writer
from lavis_emovit.shards.index import ShardIndex
from lavis_emovit.shards.reader import SampleFaultError, ShardReader
from lavis_emovit.shards.verify import verify_shards
from lavis_emovit.shards.writer import is_built, write_shards
from lavis_emovit.tuned.inputs import input_images
from lavis_emovit.tuned.predictions import Asking, PredictionSettings, predict

LEFT, RIGHT, OUTSIDE = (0.0, 0.0, 20.0, 30.0), (20.0, 0.0, 40.0, 30.0), (40.0, 0.0, 50.0, 9.0)
RED, BLUE = (
    torch.tensor([(value / 255 - mean) / std for value, mean, std in zip(colour, CLIP_MEAN, CLIP_STD)])
    for colour in ((255, 0, 0), (0, 0, 255))
)
CROP = BoxSettings(show="crop")


def _records(split="train", boxes=(LEFT, RIGHT)):
    question = Instruction(kind="categorical", question="Which?", answer="fear", provenance="human")
    labels = {"split": split, "source": "c", "emotion": "fear", "label_set": "mikels8", "instructions": [question]}
    return [
        EmotionRecord(id=f"{split}{number}", image="pair.png", box=box, **labels) for number, box in enumerate(boxes)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An image, red on the left and blue on the right, with two records, as a file and as shards of three splits."""
    root = tmp_path_factory.mktemp("boxes")
    pair = Image.new("RGB", (40, 30), "red")
    pair.paste("blue", (20, 0, 40, 30))
    pair.save(root / "pair.png")
    write_records(root / "records.jsonl", _records())
    for split in ("train", "val", "test"):
        write_shards(_records(split), root, root / "shards" / split)
    return root


def _dataset(index, processor):
    return EmotionShardDataset(index, processor, EmovitTextProcessor(), seed=5)


def _by_record(items):
    return {item["record_id"][-1]: item["image"] for item in items}


def _assert_colours(left, right):
    """Each float32 [3, ...] has one colour."""
    for pixels, colour in ((left, RED), (right, BLUE)):
        assert torch.allclose(pixels.flatten(1), colour[:, None], atol=1e-6)


@pytest.mark.parametrize("processor", [EmovitImageTrainProcessor, EmovitImageEvalProcessor])
def test_training_items_show_the_person_in_question(folder, processor):
    dataset = _dataset(folder / "shards/train/index.json", processor.from_config({"image_size": 16, "box": "crop"}))
    images = _by_record([dataset[(1, 0)], dataset[(1, 1)]])
    _assert_colours(images["0"], images["1"])


def test_whole_images_are_the_same_for_both(folder, caplog):
    dataset = _dataset(folder / "shards/train/index.json", EmovitImageEvalProcessor.from_config({"image_size": 16}))
    images = _by_record([dataset[0], dataset[1]])
    assert torch.equal(images["0"], images["1"])
    before = EmovitImageEvalProcessor.from_config({"image_size": 16})(decode_image((folder / "pair.png").read_bytes()))
    assert torch.equal(images["0"], before)


def _opened(folder, monkeypatch, box):
    monkeypatch.setenv("EMOVIT_DATA", str(folder))
    config = {"build_info": {"images": {"storage": "shards"}}, "vis_processor": {"eval": {"box": box}}}
    settings = BenchmarkSettings(dataset="emoset", split="test", kind="emotion", label_set="mikels8", config=config)
    return open_benchmark("people", settings)


class _NamesColours(LanguageModel):
    """Fear for red, awe for anything else, by likelihood and by generation."""

    methods = frozenset({"likelihood", "generation"})

    def prepare(self, image_bytes):
        return decode_image(image_bytes).getcolors()

    def write(self, images, image_index, questions):
        return ["fear" if images[place] == [(600, (255, 0, 0))] else "awe" for place in image_index]

    def score(self, images, image_index, questions, method):
        written = self.write(images, image_index, questions)
        return [[float(label == one) for label in questions[0].candidates] for one in written]


def _asked(opened, model, method):
    batch = [prepare(item, model) for item in opened.items()]
    rows = request_rows(model, batch, opened.settings, method, opened.label_set)
    return dict(sorted((row.record_id[-1], row) for row in rows))


@pytest.mark.parametrize("method", ["likelihood", "generation"])
def test_evaluation_shows_the_person_in_question(folder, monkeypatch, caplog, method):
    for box, right in (("crop", "awe"), ("whole", "awe")):
        rows = _asked(_opened(folder, monkeypatch, box), _NamesColours(), method)
        assert {key: row.prediction for key, row in rows.items()} == {
            "0": "fear" if box == "crop" else "awe",
            "1": right,
        }
    warned = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 1 and warned[0].startswith("people: 2 records are about one of several people or faces in 1")
    assert "set `box: crop`" in warned[0]


def test_models_of_this_plugin_get_the_pixels_of_training(folder, monkeypatch, tmp_path):
    entry = LavisModelSettings(adapter="lavis", arch="emovit_tiny", device="cpu")
    model = open_lavis_model(entry, ModelPlace("mine", tmp_path, tmp_path))
    cropped, whole = _opened(folder, monkeypatch, "crop"), _opened(folder, monkeypatch, None)
    prepared = {one.item.record.id[-1]: one.image for one in (prepare(item, model) for item in cropped.items())}
    _assert_colours(prepared["0"], prepared["1"])
    rows = _asked(cropped, model, "likelihood")
    assert rows["0"].scores != rows["1"].scores
    rows = _asked(whole, model, "likelihood")
    assert rows["0"].scores == rows["1"].scores
    # Predictions of records show what the run showed.
    question = TrainedQuestion(kind="emotion", dataset="emoset", method="likelihood", label_set="mikels8")
    images = input_images([str(folder / "records.jsonl")])
    for show, differs in ((CROP, True), (None, False)):
        settings = PredictionSettings((Asking.of(question),), show=show)
        (found,) = predict(model, images, settings)
        assert (found[0].probabilities != found[1].probabilities) == differs


def test_baselines_see_the_person_in_question(folder, monkeypatch):
    baseline, opened = ColoursBaseline(ColoursSettings(adapter="colours")), _opened(folder, monkeypatch, "crop")
    seen = []
    monkeypatch.setattr(
        "lavis_emovit.evaluation.adapters.colours.colour_features",
        lambda data: seen.append(decode_image(data).getcolors()) or [0.0],
    )
    monkeypatch.setattr(baseline._head, "predict", lambda features: [{} for _ in features])
    baseline.predict(list(opened.items()))
    assert sorted(seen) == [[(600, (0, 0, 255))], [(600, (255, 0, 0))]]


def test_frames_of_a_clip_are_cropped(folder):
    bundle = bundle_of([(time_s, "png", (folder / "pair.png").read_bytes()) for time_s in (0.0, 1.0)])
    clip = Clip(frames=("pair.png", "pair.png"), rate_fps=1.0)
    processor = EmovitImageTrainProcessor.from_config({"image_size": 16, "frames": {"num_frames": 2}, "box": "crop"})
    left, right = (processor.read(bundle, clip, box, seed=3)[0] for box in (LEFT, RIGHT))
    assert left.shape == (3, 2, 16, 16)
    _assert_colours(left, right)
    whole = processor.read(bundle, clip, LEFT, show=BoxSettings(show="whole"), seed=3)[0]
    assert not torch.equal(whole, left)


def test_shards_keep_whole_images_and_scale_boxes(folder, tmp_path):
    index = write_shards(_records(), folder, tmp_path / "whole")
    assert ShardReader(index).read(0).image_bytes == (folder / "pair.png").read_bytes()
    small = ShardReader(write_shards(_records(), folder, tmp_path / "small", resize_px=15))
    samples = [small.read(number) for number in range(2)]
    assert decode_image(samples[0].image_bytes).size == (20, 15)
    assert sorted(sample.record.box for sample in samples) == [(0.0, 0.0, 10.0, 15.0), (10.0, 0.0, 20.0, 15.0)]


def test_a_finished_split_with_scaled_boxes_is_recognised(folder, tmp_path):
    """One whose box changed since is not."""
    settings = (folder, tmp_path, 0, 1000, 15)
    write_shards(_records(), folder, tmp_path, resize_px=15)
    assert is_built(_records(), *settings) and not is_built(_records(boxes=(LEFT, OUTSIDE)), *settings)


def test_a_finished_split_of_whole_images_is_recognised_without_reading_them(folder, tmp_path, monkeypatch):
    write_shards(_records(), folder, tmp_path)
    monkeypatch.setattr(writer, "read_file", lambda path: pytest.fail(f"{path} was read"))
    assert is_built(_records(), folder, tmp_path, 0, 1000, None)
    assert not is_built(_records(boxes=(LEFT, OUTSIDE)), folder, tmp_path, 0, 1000, None)


def test_shrunk_shards_with_boxes_in_pixels_of_the_full_images_are_refused(folder, tmp_path):
    """Earlier versions wrote them; those without boxes, and those that were not shrunk, stay usable."""

    def of_earlier_version(name, records, resize_px):
        new = write_shards(records, folder, tmp_path / name, resize_px=resize_px)
        (new.build["resize"] or {}).pop("scaled_boxes", None)
        names = {"labels": new.labels, "kinds": new.kinds, "label_sets": new.label_sets}
        ShardIndex(new.folder, new.shards, new.columns, **names, build=new.build).save()
        return ShardIndex.load(new.folder)

    wrong = of_earlier_version("wrong", _records(), 15)
    processor = EmovitImageEvalProcessor.from_config({"image_size": 16, "box": "crop"})
    with pytest.raises(DataError, match=r"wrong: these images were shrunk by an earlier.*Build the"):
        _dataset(wrong, processor)[0]
    with pytest.raises(DataError, match="Build the shards again"):
        ShardReader(wrong).box_counts(range(2))
    assert "may not have scaled the boxes" in verify_shards(wrong.folder).problems[0]
    no_boxes = [record.model_copy(update={"box": None}) for record in _records()]
    for usable in (of_earlier_version("no_boxes", no_boxes, 15), of_earlier_version("whole", _records(), None)):
        assert ShardReader(usable).read(0).record.id


def test_boxes_outside_of_their_image_are_refused(folder, tmp_path, monkeypatch):
    records = _records("test", (LEFT, OUTSIDE))
    with pytest.raises(DataError, match=r"test1.*the box \(40, 0, 50, 9\) has no area in the image of 40 x 30 pixels"):
        write_shards(records, folder, tmp_path / "shards")
    index = write_shards(records, folder, tmp_path / "shards", skip_bad=True)
    (skipped,) = index.build["skipped"]
    assert index.num_samples == 1 and skipped["id"] == "test1" and skipped["reason"].startswith("pair.png: the box")


def test_a_box_outside_in_other_shards_names_record_and_box(folder, tmp_path):
    """Shards of other tools, or of earlier versions, may have such boxes."""
    index = write_shards(_records(), folder, tmp_path / "shards")
    reader, processor = ShardReader(index), EmovitImageEvalProcessor.from_config({"image_size": 16, "box": "crop"})
    dataset = _dataset(index, processor)
    sample = reader.read(0)
    bad = SimpleNamespace(record=sample.record.model_copy(update={"box": OUTSIDE}), image_bytes=sample.image_bytes)
    dataset.read = lambda number: bad
    with pytest.raises(SampleFaultError, match=rf"'{sample.record.id}'.*the box \(40, 0, 50, 9\) has no area"):
        dataset[0]


def test_a_run_keeps_what_it_showed():
    def dataset(box):
        return DatasetSettings.model_validate({
            "build_info": {"annotations": {}, "images": {"storage": "x"}},
            "vis_processor": {"eval": {"name": "emovit_image_eval", "image_size": 32, "box": box}},
        })  # fmt: skip

    def kept(**datasets):
        recipe = SimpleNamespace(datasets=datasets, run=SimpleNamespace(num_beams=1, min_len=1))
        processor = RecipeSplits(None, {}, {}).questions(recipe).image_processor
        return EmovitImageEvalProcessor.from_config(processor).box if processor is not None else "the model's"

    assert kept(scenes=dataset(None)) == "the model's"
    assert kept(scenes=dataset(None), people=dataset({"show": "crop", "margin": 0.25})) == BoxSettings(margin=0.25)


def test_recipes_show_the_same_in_training_and_evaluation():
    recipe, key = "projects/emovit/quickstart.yaml", "datasets.emoset_sketch.vis_processor"
    plain = Config.load(recipe)
    assert "box" not in plain.to_yaml()
    with pytest.raises(ConfigError, match=r"emoset_sketch.vis_processor.eval.box: evaluation would show other parts"):
        Config.load(recipe, [f"{key}.train.box=crop"])
    both = Config.load(recipe, [f"{key}.train.box=crop", f"{key}.eval.box=crop"])
    assert both.identity_hash != plain.identity_hash
    wide = Config.load(recipe, [f"{key}.train.box.margin=0.5", f"{key}.eval.box.margin=0.5"])
    assert wide.datasets["emoset_sketch"].vis_processor.eval.box == BoxSettings(show="crop", margin=0.5)


def test_models_with_their_own_processor_take_only_the_box_and_the_frames():
    shown = {"box": "crop", "frames": {"num_frames": 3}}
    dataset = DatasetSettings.model_validate({
        "build_info": {"annotations": {}, "images": {"storage": "x"}},
        "vis_processor": {split: {"name": f"emovit_image_{split}", **shown} for split in ("train", "eval")},
    })  # fmt: skip
    model = SimpleNamespace(arch="a", image_processor=lambda: {"name": "emovit_image_text", "pretrained": "p"})
    problems, trees = [], {"people": {}}
    given = {"people": {"vis_processor": {"train": dict(shown), "eval": dict(shown)}}}
    found = config._with_processor(model, given, trees, {"people": dataset}, problems)
    assert problems == [] and found["people"].vis_processor.train.box == CROP
    assert found["people"].vis_processor.train.frames == FrameSettings(num_frames=3)
    assert trees["people"]["vis_processor"]["eval"]["box"] == {"show": "crop", "margin": 0.0}
    given["people"]["vis_processor"]["train"]["image_size"] = 32
    config._with_processor(model, given, trees, {"people": dataset}, problems)
    assert len(problems) == 1 and "remove all but `box` and `frames`" in problems[0]
