"""Builders of the registered datasets, and how they prepare their shards.

- On first use shards are built; a second use, another process or a lost source changes nothing.
- An interrupted preparation is repeated; one with other settings or from other files is refused with the differences.
- Shards that the user built are used as they are; so are those prepared by earlier versions.
- Missing data, unknown keys and faults in the data are reported with the remedy, keys all at once.
- Every dataset config is in LAVIS's layout, states its purpose, needs, launch command, override and memory, has no
  absolute path, and LAVIS's own config code reads it.
- People of `london_faces` are in one split only, and the splits differ with the seed.
- The drawn sample set has all splits with all eight emotions.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from lavis.common.registry import registry
from lavis.datasets.builders import load_dataset
from omegaconf import OmegaConf
from PIL import Image

from lavis_emovit.datasets import preparation
from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.paths import config_root
from lavis_emovit.shards.index import ShardIndex
from lavis_emovit.shards.verify import verify_shards
from lavis_emovit.shards.writer import write_shards
from lavis_emovit.sources.table_settings import TableSettings

NAMES = ("emoset_sketch", "emoset", "london_faces")
SHARED = Path(os.environ.get("EMOVIT_SHARED", "../shared")).resolve() / "data" / "london_faces"


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch):
    """A separate data folder for every test."""
    monkeypatch.setenv("EMOVIT_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def _emoset(root, **prepare):
    return registry.get_builder_class("emoset")({"build_info": {"prepare": {"root": str(root), **prepare}}})


def test_shards_are_built_on_first_use_and_kept(published, data_folder, monkeypatch):
    datasets = _emoset(published).build_datasets()
    assert {split: len(dataset) for split, dataset in datasets.items()} == {"train": 24, "val": 8, "test": 8}
    assert datasets["train"][0]["image"].shape == (3, 224, 224)
    assert datasets["train"].read(0).record.attributes.brightness == 0.5
    assert datasets["test"][0]["pairs"][0][1].startswith("Predict emotion: ")
    for split in datasets:
        assert verify_shards(data_folder / "emoset" / split).ok
    before = {path: path.stat().st_mtime_ns for path in (data_folder / "emoset").rglob("*") if path.is_file()}
    assert {path.name for path in before} >= {"records.jsonl", "prepared.json", "index.json"}
    assert "unfinished" not in {path.name for path in before}
    shutil.rmtree(published)
    monkeypatch.setattr(preparation, "_prepare", lambda *args: pytest.fail("prepared again"))
    again = _emoset(published).build_datasets()
    assert again["train"].order_hash == datasets["train"].order_hash
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_an_interrupted_preparation_is_repeated(published, data_folder, monkeypatch):
    real, calls = preparation.write_shards, []

    def dies_at_second(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(preparation, "write_shards", dies_at_second)
    with pytest.raises(KeyboardInterrupt):
        _emoset(published).build_datasets()
    monkeypatch.undo()
    monkeypatch.setenv("EMOVIT_DATA", str(data_folder))
    assert (data_folder / "emoset" / "train" / "index.json").exists()
    # Other settings are allowed here: nothing was finished.
    datasets = _emoset(published, shards={"seed": 3}).build_datasets()
    assert len(datasets["train"]) == 24
    assert datasets["train"].index.build["seed"] == 3


def test_a_lost_split_is_built_again_from_the_same_input(published, data_folder):
    first = _emoset(published).build_datasets()["val"].index_hash
    shutil.rmtree(data_folder / "emoset" / "val")
    assert _emoset(published).build_datasets()["val"].index_hash == first


def test_other_settings_or_files_are_refused_with_the_difference(published):
    _emoset(published).build_datasets()
    with pytest.raises(DataError) as caught:
        _emoset(published, shards={"seed": 3}, skip_bad=True).build_datasets()
    text = str(caught.value)
    assert "prepare.shards.seed: was 0, now 3" in text
    assert "prepare.skip_bad: was false, now true" in text
    assert "datasets.emoset.build_info.images.storage" in text
    entries = json.loads((published / "train.json").read_text())
    (published / "train.json").write_text(json.dumps(entries[1:]))
    with pytest.raises(DataError, match="have changed since"):
        _emoset(published).build_datasets()


def test_a_preparation_of_an_earlier_version_is_kept(published, data_folder):
    """Earlier versions stored the settings of every layout in the alternatives."""
    options = {"alternatives": [{"source": "folder", "folder": {"label_set": "mikels8"}}]}
    first = _emoset(published, **options).build_datasets()["train"]
    path = data_folder / "emoset" / "prepared.json"
    state = json.loads(path.read_text())
    (alternative,) = state["settings"]["alternatives"]
    assert alternative.keys() == {"source", "folder", "alternatives"}
    alternative |= {"table": TableSettings().model_dump(mode="json"), "conversations": {"file": "train.json"}}
    path.write_text(json.dumps(state))
    assert _emoset(published, **options).build_datasets()["train"].index_hash == first.index_hash
    alternative["folder"]["label_set"] = "ekman6"
    path.write_text(json.dumps(state))
    with pytest.raises(DataError, match=r"prepare.alternatives: was .*ekman6.*, now .*mikels8"):
        _emoset(published, **options).build_datasets()


def _build_in_process(root):
    logging.disable(logging.CRITICAL)
    datasets = _emoset(root).build_datasets()
    return datasets["train"].order_hash, os.getpid()


def test_processes_that_start_together_build_shards_once(published, data_folder):
    with multiprocessing.get_context("fork").Pool(3) as pool:
        results = pool.map(_build_in_process, [published] * 3, chunksize=1)
    assert len({order_hash for order_hash, _ in results}) == 1
    index = ShardIndex.load(data_folder / "emoset" / "train")
    assert verify_shards(index.folder).ok


def test_shards_of_the_user_are_used_as_they_are(tmp_path, data_folder, make_records):
    for split, count in (("train", 6), ("val", 4), ("test", 5)):
        write_shards(make_records(tmp_path / split, count), tmp_path / split, data_folder / "emoset" / split)
    datasets = registry.get_builder_class("emoset")().build_datasets()
    assert [len(datasets[split]) for split in ("train", "val", "test")] == [6, 4, 5]
    without = registry.get_builder_class("emoset")({"build_info": {"prepare": None}}).build_datasets()
    assert without["val"].index_hash == datasets["val"].index_hash


def test_missing_data_is_reported_with_the_remedy(tmp_path, data_folder):
    with pytest.raises(DataError) as caught:
        _emoset(tmp_path / "gone").build_datasets()
    text = str(caught.value)
    assert str(tmp_path / "gone") in text
    assert "https://github.com/JingyuanYY/EmoSet" in text
    assert "--options datasets.emoset.build_info.prepare.root=FOLDER" in text
    with pytest.raises(DataError, match=r"10.6084/m9.figshare.5047666"):
        registry.get_builder_class("london_faces")(
            {"build_info": {"prepare": {"root": str(tmp_path / "gone")}}}
        ).build_datasets()
    with pytest.raises(
        DataError, match=r"emovit shards build records.jsonl --images FOLDER --split train --out .*train"
    ):
        registry.get_builder_class("emoset")({"build_info": {"prepare": None}}).build_datasets()


def test_faults_of_the_data_are_reported(published, data_folder):
    (published / "image" / "awe" / "awe_00011.jpg").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"datasets.emoset, split 'train': .*\n  - emoset/awe_00011: .*the file is empty"
    ):
        _emoset(published).build_datasets()
    assert len(_emoset(published, skip_bad=True).build_datasets()["train"]) == 23
    (published / "val.json").write_text('[["awe", "a.jpg"]]')
    shutil.rmtree(data_folder / "emoset")
    with pytest.raises(DataError, match=r"val.json, entry 0: expected"):
        _emoset(published).build_datasets()


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ({"kindz": ["reasoning"]}, "datasets.emoset.kindz: unknown key .did you mean 'kinds'"),
        ({"kinds": ["poem"]}, "datasets.emoset.kinds.0: Input should be 'categorical'"),
        ({"label_set": "mikels"}, "datasets.emoset.label_set: unknown label set 'mikels' .did you mean 'mikels8'"),
        ({"build_info": {"prepare": {"rot": "x"}}}, "build_info.prepare.rot: unknown key .did you mean 'root'"),
        ({"build_info": {"prepare": {"split_seed": 1}}}, "`fractions` must give their sizes"),
        ({"build_info": {"prepare": {"draw": {"seed": 1}}}}, "`draw` belongs to source 'sketch'"),
        ({"build_info": {"prepare": {"root": None}}}, "source 'emoset' needs `root`"),
        ({"build_info": {"prepare": {"fractions": {"train": 0.5}}}}, "must sum to 1, they sum to 0.5"),
        ({"build_info": {"prepare": {"instructions": {"categorical": {"wordings": [9]}}}}}, "numbered 1 to"),
        (
            {"vis_processor": {"train": {"image_size": 4}}},
            "emoset.vis_processor.train.image_size: Input should be greater",
        ),
        ({"vis_processor": {"eval": {"image_siz": 4}}}, "vis_processor.eval.image_siz: unknown key .*'image_size'"),
        (
            {"vis_processor": {"eval": {"min_scale": 1}}},
            "vis_processor.eval.min_scale: unknown key .valid: box, draft, frames, image",
        ),
        ({"vis_processor": {"eval": {"name": "emovit_image_evil"}}}, "datasets.emoset.vis_processor.eval"),
    ],
)
def test_wrong_settings_are_refused(node, expected):
    with pytest.raises(ConfigError, match=expected):
        registry.get_builder_class("emoset")(node)


def test_all_wrong_settings_are_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        registry.get_builder_class("emoset")({"kindz": 1, "max_pairs": 0, "data_type": "videos"})
    for node, expected in (
        ({"build_info": [1]}, r"datasets\.emoset\.build_info: expected a mapping \(got \[1\]\)"),
        ({"vis_processor": [1]}, r"datasets\.emoset\.vis_processor: expected a mapping"),
    ):
        with pytest.raises(ConfigError, match=expected):
            registry.get_builder_class("emoset")(node)
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("name", NAMES)
def test_configs_are_in_lavis_layout(name):
    path = config_root() / "datasets" / name / "defaults.yaml"
    text = path.read_text()
    head = text[: text.index("datasets:")]
    for word in (
        "# Needs:",
        "# Launch:   python -m lavis.train --cfg-path projects/emovit/",
        "# Override:",
        "# Memory:",
    ):
        assert word in head
    assert "/work" not in text and ": /" not in text
    builder_class = registry.get_builder_class(name)
    assert builder_class.default_config_path() == str(path)
    node = OmegaConf.load(path).datasets[name]
    assert set(node.build_info.annotations) == {"train", "val", "test"}
    for split in ("train", "val", "test"):
        storage = node.build_info.annotations[split].storage
        assert storage == f"{node.build_info.images.storage}/{split}/index.json"
        assert not Path(storage).is_absolute()
    for cfg in (None, str(path), path, node, OmegaConf.to_container(node, resolve=True)):
        assert builder_class(cfg).settings == builder_class().settings


@pytest.mark.skipif(not SHARED.is_dir(), reason="the photographs are not available")
def test_people_are_in_one_split_only():
    builder_class = registry.get_builder_class("london_faces")
    tests = []
    for seed in (0, 1, None):
        node = {"build_info": {"prepare": {"split_seed": seed, "root": str(SHARED)}}}
        datasets = builder_class(node).build_datasets()
        assert sum(len(dataset) for dataset in datasets.values()) == 204
        people = {
            split: {dataset.read(number).record.group for number in range(len(dataset))}
            for split, dataset in datasets.items()
        }
        assert sum(len(group) for group in people.values()) == len(set().union(*people.values())) == 102
        assert all(len(datasets[split]) == 2 * len(people[split]) for split in people)
        assert datasets["test"].label_set.labels == ("happy", "neutral")
        tests.append(people["test"])
    assert tests[0] != tests[1] and len(tests[2]) == 27


@pytest.mark.parametrize(
    ("name", "images_per_class", "labels", "shape"),
    [
        ("emoset_sketch", 10, set(get_label_set("mikels8").labels), (3, 96, 96)),
        ("emoclip_sketch", 20, {"amusement", "awe", "contentment", "fear"}, (3, 4, 96, 96)),
    ],
)
def test_the_drawn_sets_need_nothing(data_folder, monkeypatch, tmp_path, name, images_per_class, labels, shape):
    """With LAVIS's own function, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    config = OmegaConf.load(config_root() / "datasets" / name / "defaults.yaml")
    config.datasets[name].build_info.prepare.draw.images_per_class = images_per_class
    config.datasets[name].build_info.prepare.draw.size_px = 48
    OmegaConf.save(config, tmp_path / "small.yaml")
    datasets = load_dataset(name, cfg_path=str(tmp_path / "small.yaml"))
    assert sum(len(dataset) for dataset in datasets.values()) == images_per_class * len(labels)
    for dataset in datasets.values():
        assert set(dataset.index.label_histogram) == labels
        assert min(dataset.index.label_histogram.values()) >= 1
    assert datasets["train"][0]["image"].shape == shape
    assert datasets["train"].read(0).record.id.startswith(f"{name}/")


def test_changed_annotations_of_single_images_are_refused(tmp_path, data_folder):
    root = tmp_path / "AffectNet"
    for folder in ("train_set", "val_set"):
        (root / folder / "images").mkdir(parents=True)
        (root / folder / "annotations").mkdir()
        for number in range(20):
            Image.new("RGB", (20, 20), (number * 9, len(folder), 99)).save(root / folder / "images" / f"{number}.jpg")
            for key, value in (("exp", str(number % 2)), ("val", "0.25"), ("aro", "0.5"), ("lnd", "1;2")):
                np.save(root / folder / "annotations" / f"{number}_{key}.npy", np.array(value))
    build = lambda: registry.get_builder_class("affectnet")({"build_info": {"prepare": {"root": str(root)}}}).prepare()  # noqa: E731
    build()
    state = data_folder / "affectnet" / "prepared.json"
    assert len(json.loads(state.read_text())["annotations"]) == 64
    build()
    # The landmarks are not read.
    np.save(root / "train_set" / "annotations" / "3_lnd.npy", np.array("3;4"))
    build()
    # The file keeps its size.
    np.save(root / "train_set" / "annotations" / "3_exp.npy", np.array("6"))
    with pytest.raises(DataError, match=r"the annotations in .*AffectNet have changed since"):
        build()
    # Earlier versions stored no fingerprint of them.
    content = json.loads(state.read_text())
    del content["annotations"]
    state.write_text(json.dumps(content))
    build()


def test_a_folder_of_classes_that_changed_is_refused(tmp_path, data_folder):
    root = tmp_path / "set"
    for label in ("awe", "fear"):
        (root / label).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (20, 20), (number * 9, 0, 99)).save(root / label / f"{number}.png")
    build = lambda: registry.get_builder_class("fi")({"build_info": {"prepare": {"root": str(root)}}}).build_datasets()  # noqa: E731
    before = {split: dataset.order_hash for split, dataset in build().items()}
    assert {split: dataset.order_hash for split, dataset in build().items()} == before
    (root / "awe" / "0.png").rename(root / "fear" / "moved.png")
    with pytest.raises(DataError, match=r"the files in .*set have changed since"):
        build()
    # Earlier versions stored no fingerprint for such a layout.
    state = data_folder / "fi" / "prepared.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "fingerprint": None}))
    assert {split: dataset.order_hash for split, dataset in build().items()} == before
