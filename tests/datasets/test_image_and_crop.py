"""`box: both`: the whole image and the crop as two images of a record.

Properties:
- a training item is the whole image, then the crop, pixel for pixel; a flip concerns both;
- a record without a box has the whole image twice, with a count, so that datasets of both kinds share batches; datasets
  that show one image and two are refused in the recipe, and by name in a batch;
- the model reads both: its scores differ from those of either, and training on them lowers the loss;
- predictions of records are those of the evaluation; the demo, which has no boxes, offers whole images;
- a clip is its frames and then their crops, for training, scores, and what a frame matters;
- what takes one image is left out or refused with the setting to change.
"""

from __future__ import annotations

import io
import logging
import math
from types import SimpleNamespace

import pytest
import torch
import yaml
from lavis.models import load_model
from PIL import Image

from lavis_emovit.boxes import BoxSettings
from lavis_emovit.cli.main import main
from lavis_emovit.clips.clip import Clip
from lavis_emovit.clips.reading import bundle_of
from lavis_emovit.datasets.mixture import EmotionMixtureDataset
from lavis_emovit.datasets.shard_dataset import EmotionShardDataset
from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.evaluation.adapters.base import LanguageModel, ModelPlace
from lavis_emovit.evaluation.adapters.lavis_model import LavisModel, LavisModelSettings, open_lavis_model
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings
from lavis_emovit.evaluation.hosts.export import export_suite
from lavis_emovit.evaluation.questions import Question
from lavis_emovit.evaluation.suite.benchmark_data import open_benchmark, warn_of_boxes
from lavis_emovit.evaluation.suite.recipe import load_suite
from lavis_emovit.evaluation.suite.requests import prepare, request_rows
from lavis_emovit.evaluation.suite.suite import run_suite
from lavis_emovit.images import decode_image
from lavis_emovit.models.instructblip.settings import FramePooling
from lavis_emovit.pages.examples import examples
from lavis_emovit.processors.emovit_image_eval import EmovitImageEvalProcessor
from lavis_emovit.processors.emovit_image_train import EmovitImageTrainProcessor
from lavis_emovit.processors.emovit_text import EmovitTextProcessor
from lavis_emovit.records import EmotionRecord, Instruction, write_records
from lavis_emovit.runners.config import Config
from lavis_emovit.shards.writer import write_shards
from lavis_emovit.tuned.inputs import input_images
from lavis_emovit.tuned.predictions import Asking, PredictionSettings, predict

LEFT, RIGHT = (4.0, 2.0, 20.0, 26.0), (24.0, 6.0, 44.0, 30.0)
BOTH = BoxSettings(show="both")
SPLITS = {"train": (LEFT, RIGHT), "val": (LEFT,), "test": (LEFT, RIGHT, None)}


def _records(split):
    question = Instruction(kind="categorical", question="Which emotion?", answer="fear", provenance="human")
    labels = {"split": split, "source": "c", "emotion": "fear", "label_set": "mikels8", "instructions": [question]}
    boxes = enumerate(SPLITS[split])
    return [EmotionRecord(id=f"{split}{number}", image="scene.png", box=box, **labels) for number, box in boxes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An image that gets redder to the right and greener to the bottom, with records as a file and as shards."""
    root = tmp_path_factory.mktemp("scene")
    scene = Image.new("RGB", (48, 32))
    scene.putdata([(5 * x, 7 * y, 40) for y in range(32) for x in range(48)])
    scene.save(root / "scene.png")
    write_records(root / "records.jsonl", _records("test"))
    for split in SPLITS:
        write_shards(_records(split), root, root / "shards" / split)
    return root


def _processor(box=BOTH, kind=EmovitImageEvalProcessor, **options):
    return kind.from_config({"image_size": 96, "box": box.model_dump(), **options})


def _dataset(folder, split, processor):
    return EmotionShardDataset(folder / "shards" / split / "index.json", processor, EmovitTextProcessor(), seed=5)


def test_items_have_the_whole_image_and_then_the_crop(folder):
    dataset = _dataset(folder, "train", _processor())
    scene, plain = decode_image((folder / "scene.png").read_bytes()), EmovitImageEvalProcessor.from_config
    for number in range(2):
        item, box = dataset[number], dataset.read(number).record.box
        assert item["image"].shape == (3, 2, 96, 96)
        for place, image in enumerate((scene, scene.crop(tuple(map(int, box))))):
            assert torch.equal(item["image"][:, place], plain({"image_size": 96})(image))


def test_both_are_flipped_or_none(folder):
    dataset = _dataset(folder, "train", _processor(kind=EmovitImageTrainProcessor, min_scale=0.9))
    flips = set()
    for epoch in range(12):
        red_2W = dataset[(epoch, 0)]["image"][0].mean(dim=1)  # rises from left to right, unless flipped
        flipped = [bool(row[0] > row[-1]) for row in red_2W]
        assert flipped[0] == flipped[1]
        flips.add(flipped[0])
    assert flips == {True, False}
    assert torch.equal(dataset[(3, 0)]["image"], dataset[(3, 0)]["image"])


def test_without_a_box_the_whole_image_is_shown_twice_and_counted(folder, caplog):
    dataset = _dataset(folder, "test", _processor())
    (number,) = [number for number in range(3) if dataset.read(number).record.box is None]
    image = dataset[number]["image"]
    assert image.shape == (3, 2, 96, 96) and torch.equal(image[:, 0], image[:, 1])
    for split, problem in (("test", "records without a box: 1"), ("train", None)):
        caplog.clear()
        warn_of_boxes("people", [_dataset(folder, split, _processor()).reader], BOTH)
        warned = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        assert [text.startswith(f"people: {problem}") for text in warned] == ([True] if problem else [])


def test_batches_mix_datasets_with_and_without_boxes(folder):
    people, scenes = (_dataset(folder, split, _processor()) for split in ("train", "test"))
    mixture = EmotionMixtureDataset([people, scenes])
    batch = mixture.collater([mixture[(0, number)] for number in range(5)])
    assert batch["image"].shape == (5, 3, 2, 96, 96)
    mixture = EmotionMixtureDataset([people, _dataset(folder, "test", _processor(BoxSettings(show="whole")))])
    with pytest.raises(DataError, match=r"shapes \[3, 2, 96, 96\], \[3, 96, 96\].*`box: both` to all or none"):
        mixture.collater([mixture[(0, number)] for number in range(5)])


def test_recipes_show_two_images_in_all_datasets_or_none():
    recipe, key = "projects/emovit/quickstart.yaml", "datasets.{}.vis_processor.{}.box=both"
    both = [key.format("emoset_sketch", split) for split in ("train", "eval")]
    assert Config.load(recipe, both).identity_hash != Config.load(recipe).identity_hash
    other = [f"datasets.emoset.vis_processor.{split}.image_size=96" for split in ("train", "eval")]
    with pytest.raises(ConfigError, match=r"datasets.emoset.vis_processor: datasets.emoset_sketch shows two images"):
        Config.load(recipe, [*both, *other])
    Config.load(recipe, [*both, *other, *(key.format("emoset", split) for split in ("train", "eval"))])
    with pytest.raises(ConfigError, match=r"eval: `box: both` shows 2 images, but model.frames.max_frames is 1"):
        Config.load(recipe, [*both, "model.frames={max_frames: 1}"])
    chat = [key.format("london_faces", split) for split in ("train", "eval")]
    Config.load("projects/emovit/llava/small.yaml", chat)
    with pytest.raises(ConfigError, match=r"eval: `box: both` shows 2 images, but model.template has the place of one"):
        Config.load("projects/emovit/llava/small.yaml", [*chat, "model.template=<image>{question}"])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    place = tmp_path_factory.mktemp("model")
    entry = LavisModelSettings(adapter="lavis", arch="emovit_tiny", device="cpu")
    return open_lavis_model(entry, ModelPlace("mine", place, place))


def _opened(folder, monkeypatch, box):
    monkeypatch.setenv("EMOVIT_DATA", str(folder))
    config = {"build_info": {"images": {"storage": "shards"}}, "vis_processor": {"eval": {"box": box}}}
    settings = BenchmarkSettings(dataset="emoset", split="test", kind="emotion", label_set="mikels8", config=config)
    return open_benchmark("people", settings)


def _scores(opened, model):
    batch = [prepare(item, model) for item in opened.items()]
    rows = request_rows(model, batch, opened.settings, "likelihood", opened.label_set)
    return {row.record_id: row.scores for row in rows}


def test_predictions_are_those_of_the_evaluation(folder, monkeypatch, tiny):
    scores = {box: _scores(_opened(folder, monkeypatch, box), tiny) for box in ("both", "crop", "whole")}
    for name in ("test0", "test1"):
        assert len({tuple(found[name].values()) for found in scores.values()}) == 3
    question = _opened(folder, monkeypatch, "both").question("likelihood")
    settings = PredictionSettings((Asking.of(question),), show=BOTH)
    (rows,) = predict(tiny, input_images([str(folder / "records.jsonl")]), settings)
    for row in rows:
        logs = scores["both"][row.image]
        total = sum(math.exp(value) for value in logs.values())
        assert row.probabilities == pytest.approx({k: math.exp(v) / total for k, v in logs.items()}, rel=1e-4)


def test_training_on_two_images_lowers_the_loss():
    torch.manual_seed(0)
    model = load_model("emovit_tiny").train()
    whole, *crops = torch.randn(3, 3, 96, 96)
    images = torch.stack([torch.stack([whole, crop], dim=1) for crop in crops])
    # Only the crops differ, so whoever does not read them cannot tell the answers apart.
    batch = {"image": images, "text_input": ["Which emotion?"] * 2, "text_output": ["awe", "sadness"]}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-3)
    losses = []
    for _ in range(8):
        loss = model(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


class _OneImage(LanguageModel):
    methods = frozenset({"generation"})


def test_what_takes_one_image_is_left_out_by_name(folder, tmp_path, monkeypatch, capsys):
    opened = _opened(folder, monkeypatch, "both")
    assert all("set `box` to crop or whole" in prepare(item, _OneImage()).problem for item in opened.items())
    suite = {
        "name": "c", "output_dir": str(tmp_path / "out"), "methods": ["likelihood"], "report": False,
        "models": {
            "tiny": {"adapter": "lavis", "arch": "emovit_tiny", "device": "cpu"},
            "clips": {"adapter": "lavis", "arch": "emovit_tiny", "device": "cpu", "frames": {"num_frames": 2}},
            "prior": {"adapter": "prior"}, "colours": {"adapter": "colours"},
        },
        "benchmarks": {"c": {"dataset": "emoset", "label_set": "mikels8", "config": opened.settings.config}},
    }  # fmt: skip
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump({"suite": suite}))
    settings = load_suite(tmp_path / "suite.yaml", ())
    found = run_suite(settings)
    assert sorted(result["model"] for result in found["benchmarks"]["c"]["results"]) == ["clips", "prior", "tiny"]
    for name, method in (("colours", "direct"), ("probe", "direct")):
        reason = found["left_out"]["c"][name][method]
        assert "set `box` to crop or whole (suite.benchmarks.c.config.vis_processor.eval.box)" in reason
    for host in ("lmms-eval", "vlmevalkit"):
        with pytest.raises(
            ConfigError, match=rf"suite.benchmarks.c: {host} cannot show its records: it takes one image"
        ):
            export_suite(settings, host, tmp_path / host)
    place = [str(folder / "records.jsonl"), "--out", str(tmp_path / "llava"), "--format", "llava"]
    assert main(["export", "data", *place, "--box", "both"]) != 0
    assert "--box both: a conversation in these formats has one image; use --box crop or whole" in _words(capsys)
    assert main(["export", "data", *place, "--box", "all"]) != 0
    assert "--box" in (said := _words(capsys)) and "'crop'" in said


def _words(capsys):
    return " ".join(capsys.readouterr().err.split())


def test_examples_of_the_demo_are_whole_images(folder, monkeypatch):
    question = _opened(folder, monkeypatch, "both").question("likelihood")
    node = {"build_info": {"images": {"storage": "shards"}}, "vis_processor": {"eval": {"box": "both"}}}
    tuned = SimpleNamespace(
        questions=SimpleNamespace(questions=[question]),
        files=SimpleNamespace(datasets={"emoset": node}),
        adapter=SimpleNamespace(reads_clips=False),
    )
    scene = (folder / "scene.png").read_bytes()
    assert [example.data for example in examples(tuned)] == [scene] * 3


def _moving(shades):
    """A clip of 48 x 32 pixels whose left half has these shades of red, and the right half half of each."""
    frames = []
    for number, shade in enumerate(shades):
        frame = Image.new("RGB", (48, 32), (shade, 0, 0))
        frame.paste((shade // 2, 0, 0), (24, 0, 48, 32))
        buffer = io.BytesIO()
        frame.save(buffer, "PNG")
        frames.append((float(number), "png", buffer.getvalue()))
    return bundle_of(frames)


def test_a_clip_is_its_frames_and_then_their_crops(folder):
    """Two streams in the order of time; without a box, whole frames twice; an image is a clip that stands still."""
    timed = _processor(frames={"num_frames": 3})
    assert timed.settings.num_frames == 6 and timed.reads_both
    data, clip = _moving((200, 120, 40)), Clip(rate_fps=1, frames=("0.png", "1.png", "2.png"))
    right = (24.0, 0.0, 48.0, 32.0)
    both, times_s = timed.read(data, clip, right)
    (whole, _), (crops, _) = (timed.read(data, clip, right, show=BoxSettings(show=show)) for show in ("whole", "crop"))
    assert both.shape == (3, 6, 96, 96) and times_s == (0.0, 1.0, 2.0)
    assert torch.equal(both, torch.cat([whole, crops], dim=1)) and not torch.equal(whole, crops)
    assert torch.equal(timed.read(data, clip)[0], torch.cat([whole, whole], dim=1))
    scene = (folder / "scene.png").read_bytes()
    still, of_image = timed.read(scene, None, LEFT)[0], _processor().read(scene, None, LEFT)[0]
    assert torch.equal(still, of_image.repeat_interleave(3, dim=1))


def test_the_model_reads_both_streams_of_a_clip_and_its_frames_are_exchanged_in_both(tiny):
    timed = _processor(frames={"num_frames": 3})
    data, clip = _moving((250, 120, 10)), Clip(rate_fps=1, frames=("0.png", "1.png", "2.png"))
    adapter = LavisModel(tiny._model, timed, EmovitTextProcessor(), run=tiny.run, device=torch.device("cpu"))
    shown, frames_s = adapter.prepare_clip(data, clip, LEFT, BOTH)
    question = [Question("emotion", "Which emotion?", ("awe", "fear"))]
    of_both, of_frames = (adapter.score([one], [0], question, "likelihood")[0] for one in (shown, shown[:, :3]))
    assert len(frames_s) == 3 and of_both != of_frames
    first, second, third = adapter.still_at_each_frame(shown, 3)
    for copy, order in ((first, (1, 1, 2)), (second, (0, 0, 2)), (third, (0, 1, 1))):
        assert torch.equal(copy, shown[:, [*order, *(3 + place for place in order)]])


def test_frames_in_the_order_of_time_are_no_two_streams(folder):
    ordered = load_model("emovit_tiny")
    ordered.settings = ordered.settings.model_copy(update={"frames": FramePooling(max_frames=8)})
    timed = _processor(BoxSettings(show="crop"), frames={"num_frames": 3})
    run = {"run": lambda call: call(), "device": torch.device("cpu")}
    adapter = LavisModel(ordered, timed, EmovitTextProcessor(), **run)
    assert not adapter.reads_both and LavisModel(ordered, _processor(), EmovitTextProcessor(), **run).reads_both
    data, clip = _moving((250, 120, 10)), Clip(rate_fps=1, frames=("0.png", "1.png", "2.png"))
    assert adapter.prepare_clip(data, clip, LEFT, BoxSettings(show="crop"))[0].shape == (3, 3, 96, 96)
    with pytest.raises(DataError, match="reads frames in the order of time"):
        adapter.prepare_clip(data, clip, LEFT, BOTH)
    recipe = "projects/emovit/quickstart_clips.yaml"
    box = [f"datasets.emoclip_sketch.vis_processor.{split}.box=both" for split in ("train", "eval")]
    with pytest.raises(
        ConfigError, match=r"eval: `box: both` shows \d+ images, but model.frames reads them in the order"
    ):
        Config.load(recipe, box)
