"""Clips on their way to the model, and the times of their frames to the predictions.

Properties:
- a training item of a clip has its frames, cropped and flipped alike, the same for the same (seed, epoch, number);
- a batch of clips has the shape that models take, with images among them too; batches of mixed shapes are refused;
- without settings of frames, clips stop training with an advice;
- rows of predictions have the times of the frames; a model that reads only images gives an error row;
- in suites, models of this plugin get the frames that their entry or their run names; baselines that read images,
  among them the linear probe that a suite adds, are left out with the reason;
- benchmarks of a run ask with the frames of their dataset's evaluation, else with those of the first that has some;
- a video file and records of clips can be predicted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

pytest.importorskip("av", reason="the extra `clips` is not installed")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "clips"))
from video_files import write_video

from lavis_emovit.clips.clip import Clip, FrameSettings
from lavis_emovit.clips.reading import bundle_of
from lavis_emovit.datasets.settings import DatasetSettings
from lavis_emovit.datasets.shard_dataset import EmotionShardDataset
from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.adapters import lavis_model
from lavis_emovit.evaluation.adapters.base import Item, LanguageModel, ModelPlace
from lavis_emovit.evaluation.adapters.lavis_model import LavisModelSettings, open_lavis_model
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings
from lavis_emovit.evaluation.suite.recipe import load_suite
from lavis_emovit.evaluation.suite.requests import BatchRequests, prepare
from lavis_emovit.evaluation.suite.suite import run_suite
from lavis_emovit.evaluation.truths import Truth
from lavis_emovit.processors.emovit_image_eval import EmovitImageEvalProcessor
from lavis_emovit.processors.emovit_image_train import EmovitImageTrainProcessor
from lavis_emovit.processors.emovit_text import EmovitTextProcessor
from lavis_emovit.processors.image import stack_images
from lavis_emovit.records import EmotionRecord, Instruction, write_records
from lavis_emovit.runners import splits
from lavis_emovit.runners.evaluator import Evaluator
from lavis_emovit.runners.splits import RunBenchmark
from lavis_emovit.shards.reader import ShardReader
from lavis_emovit.shards.writer import write_shards
from lavis_emovit.tuned.inputs import input_images

FRAMES = {"image_size": 32, "frames": {"num_frames": 3}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    write_video(root / "a.mp4", [number / 10 for number in range(30)], size=(96, 64))
    return root


@pytest.fixture(scope="module")
def index(folder):
    question = Instruction(kind="categorical", question="Which?", answer="fear", provenance="human")
    labels = {"split": "train", "source": "c", "emotion": "fear", "label_set": "mikels8", "instructions": [question]}
    records = [
        EmotionRecord(id="one", image="a.mp4", clip=Clip(), **labels),
        EmotionRecord(id="two", image="a.mp4", clip=Clip(start_s=1), **labels),
    ]
    write_records(folder / "records.jsonl", records)
    return write_shards(records, folder, folder / "shards")


def _dataset(index, processor):
    return EmotionShardDataset(index, processor, EmovitTextProcessor(), seed=5)


def test_an_item_has_the_frames_of_its_clip(index):
    dataset = _dataset(index, EmovitImageTrainProcessor.from_config(FRAMES))
    item = dataset[(2, 1)]
    assert item["image"].shape == (3, 3, 32, 32)
    assert torch.equal(item["image"], dataset[(2, 1)]["image"])
    assert not torch.equal(item["image"], dataset[(3, 1)]["image"])
    batch = dataset.collater([dataset[0], dataset[1]])
    assert batch["image"].shape == (2, 3, 3, 32, 32)
    # The red corner is on the same side in every frame, or outside of all.
    red = item["image"][0] - item["image"][2] > 1.5
    assert all(torch.equal(red[0], frame) for frame in red)


def test_an_image_among_clips_is_shown_in_every_frame(folder):
    from PIL import Image

    Image.new("RGB", (40, 30), "navy").save(folder / "b.png")
    image, times_s = EmovitImageEvalProcessor.from_config(FRAMES).read((folder / "b.png").read_bytes())
    assert image.shape == (3, 3, 32, 32) and times_s == (0.0, 0.0, 0.0)
    assert torch.equal(image[:, 0], image[:, 2])
    processor = EmovitImageEvalProcessor.from_config(FRAMES)
    with pytest.raises(DataError, match="40 x 30 pixels, more than 1199"):
        processor.read((folder / "b.png").read_bytes(), max_pixels=1199)
    with pytest.raises(DataError, match="cannot be decoded"):  # an archive of frames belongs to a clip
        processor.read(bundle_of([(0.0, "png", (folder / "b.png").read_bytes())]))
    with pytest.raises(DataError, match=r"\[3, 3, 32, 32\], \[3, 32, 32\]; give all datasets the same"):
        stack_images([image, image[:, 0]])


def test_clips_need_settings_of_frames(index):
    processor = EmovitImageEvalProcessor.from_config({"image_size": 32})
    with pytest.raises(DataError, match="shards: the data have clips; set `frames` of the image processors"):
        _dataset(index, processor)[0]
    with pytest.raises(DataError, match="set `frames`"):
        processor.read(b"", Clip())


class _Reads(LanguageModel):
    """Answers with a label whatever it sees."""

    def __init__(self, processor=None):
        self._processor = processor

    def prepare(self, image_bytes):
        raise AssertionError("called for a clip")

    def write(self, images, image_index, questions):
        return ["fear" for _ in questions]


class _ReadsClips(_Reads):
    def prepare_clip(self, data, clip, box=None, show=None):
        return self._processor.read(data, clip)


@pytest.fixture
def rows(index):
    """Function (model) -> its rows about the two clips."""
    reader = ShardReader(index)
    samples = sorted((reader.read(number) for number in range(2)), key=lambda sample: sample.record.id)
    items = [Item(sample.record, sample.image_bytes, Truth(label="fear")) for sample in samples]
    settings = BenchmarkSettings(dataset="c", split="train", kind="emotion", subject="picture", label_set="mikels8")

    def ask(model, method="generation"):
        requests = BatchRequests([prepare(item, model) for item in items], settings, method, get_label_set("mikels8"))
        numbers = range(len(requests.questions))
        return requests.rows(dict(zip(numbers, requests.answer(model, numbers)))) if numbers else requests.rows({})

    return ask


def test_rows_have_the_times_of_the_frames(rows):
    one, two = rows(_ReadsClips(EmovitImageEvalProcessor.from_config(FRAMES)))
    # Three parts of 2.94 s, and of 1.94 s from the second on; frames are 0.1 s apart.
    assert one.frames_s == (0.4, 1.4, 2.4)
    assert two.frames_s == (1.3, 1.9, 2.6)
    assert [row.error for row in rows(_Reads())] == ["it is a clip, but this model reads only images"] * 2


def test_models_of_suites_get_the_frames_of_their_entry_or_run(rows, tmp_path):
    values = {"adapter": "lavis", "arch": "emovit_tiny", "device": "cpu"}
    place = ModelPlace("mine", tmp_path, tmp_path)
    model = open_lavis_model(LavisModelSettings(**values, frames=FRAMES["frames"]), place)
    one, two = rows(model, "likelihood")
    assert one.frames_s == (0.4, 1.4, 2.4) and two.frames_s == (1.3, 1.9, 2.6)
    assert one.error is two.error is None and len(one.scores) == 8
    assert model.identity()["clip_frames"]["num_frames"] == 3
    plain = open_lavis_model(LavisModelSettings(**values), place)
    assert "clip_frames" not in plain.identity()
    assert plain.reads_both and model.reads_both
    assert all("set `frames`" in row.error for row in rows(plain, "likelihood"))
    run = SimpleNamespace(questions={"image_processor": {"name": "emovit_image_eval", **FRAMES}})
    assert lavis_model._of_run(run, "frames", FrameSettings) == FrameSettings(num_frames=3)
    assert lavis_model._of_run(SimpleNamespace(questions={}), "frames", FrameSettings) is None


def test_baselines_that_read_images_leave_clips_out(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("EMOVIT_DATA", str(tmp_path))
    for split in ("train", "val", "test"):
        labels = {"split": split, "source": "c", "emotion": "fear", "label_set": "mikels8"}
        records = [EmotionRecord(id=f"{split}{n}", image="a.mp4", clip=Clip(start_s=n), **labels) for n in range(2)]
        write_shards(records, folder, tmp_path / "c" / split)
    suite = {
        "name": "c", "output_dir": str(tmp_path / "out"), "methods": ["likelihood"], "report": False,
        "models": {
            "tiny": {"adapter": "lavis", "arch": "emovit_tiny", "device": "cpu", "frames": FRAMES["frames"]},
            "prior": {"adapter": "prior"}, "colours": {"adapter": "colours"},
        },
        "benchmarks": {"c": {"dataset": "emoset", "config": {"build_info": {"images": {"storage": "c"}}}}},
    }  # fmt: skip
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump({"suite": suite}))
    found = run_suite(load_suite(tmp_path / "suite.yaml", ()))
    assert sorted(result["model"] for result in found["benchmarks"]["c"]["results"]) == ["prior", "tiny"]
    reason = {"direct": "it reads images, and the benchmark has clips"}
    assert found["left_out"] == {"c": {"colours": reason, "probe": reason}}


def test_benchmarks_of_a_run_get_the_frames_of_its_datasets(folder):
    def dataset(num_frames):
        frames = None if num_frames is None else {"num_frames": num_frames}
        return DatasetSettings.model_validate({
            "build_info": {"annotations": {}, "images": {"storage": "x"}},
            "vis_processor": {"eval": {"name": "emovit_image_eval", "image_size": 32, "frames": frames}},
        })  # fmt: skip

    config = SimpleNamespace(datasets={"images": dataset(None), "short": dataset(2), "long": dataset(5)})
    chosen = {name: splits._dataset_with_frames(config, name) for name in ("long", "images", "elsewhere")}
    assert chosen == {"long": "long", "images": "short", "elsewhere": "short"}
    assert splits._dataset_with_frames(SimpleNamespace(datasets={"images": dataset(None)}), "images") is None
    processors = EmovitImageEvalProcessor.from_config({"image_size": 32}), EmovitTextProcessor()
    model, engine = (
        SimpleNamespace(processors=lambda: processors, eval=lambda: None),
        SimpleNamespace(run=None, device="cpu"),
    )
    evaluator = Evaluator(engine, model, None, SimpleNamespace(num_beams=1, min_len=1), None)
    frames = splits._eval_frames(config.datasets["long"])
    adapter = evaluator._adapter(RunBenchmark(None, "likelihood", frames=frames))
    image, times_s = adapter.prepare_clip((folder / "a.mp4").read_bytes(), Clip())
    assert image.shape == (3, 5, 32, 32) and len(times_s) == 5
    with pytest.raises(DataError, match="set `frames`"):
        evaluator._adapter(RunBenchmark(None, "likelihood")).prepare_clip(b"", Clip())


def test_videos_and_records_can_be_predicted(folder, index):
    (video,) = input_images([str(folder / "a.mp4")])
    assert video.clip == Clip() and video.read() == (folder / "a.mp4").read_bytes()
    records = input_images([str(folder / "records.jsonl")])
    assert [image.record.clip for image in records] == [Clip(), Clip(start_s=1)]
    assert records[1].read() == video.read()
