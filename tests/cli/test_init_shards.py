"""`emovit init` on shards.

- Finished shards with splits train and test are used where they are.
- Others, and tars of other tools, are unpacked and split; labels and splits are found as for images; the tars' folder
  stays as it is.
- What cannot be read is refused or counted, and nothing is overwritten silently.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter

import pytest
from PIL import Image

from lavis_emovit.cli.main import main
from lavis_emovit.runners.config import Config


@pytest.fixture(autouse=True)
def here(workplace):
    return workplace


def _image_bytes(number):
    buffer = io.BytesIO()
    image = Image.effect_noise((48, 48), 60 + number)
    image.convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def built(here):
    """Shards of 40 images in two splits, and their records file."""
    for number in range(40):
        path = (
            here / "photos" / ("train", "test")[number % 4 == 3] / ("calm", "wild")[number // 2 % 2] / f"{number}.png"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_image_bytes(number))
    options = ["--set", "pattern={split}/{label}/{name}", "--out", "r.jsonl"]
    assert main(["data", "import", "folder", "photos", *options]) == 0
    assert main(["shards", "build", "r.jsonl", "--out", "built"]) == 0
    return here / "built"


def _opened(name):
    """Split -> labels of the dataset as a run opens it."""
    from lavis_emovit.plugin import activate
    from lavis_emovit.plugin.registration import register

    activate()
    config = Config.load(f"{name}.yaml")
    register()
    from lavis.common.registry import registry

    datasets = registry.get_builder_class(name)(config.datasets_cfg[name]).build_datasets()
    return {
        split: Counter(dataset.read(number).record.emotion for number in range(len(dataset)))
        for split, dataset in datasets.items()
    }


def test_finished_shards_are_used_where_they_are(init, built, here):
    before = sorted(here.rglob("*"))
    code, text, errors = init("built", "--name", "ours")
    assert code == 0 and "layout: shards, used where they are" in text, errors
    new = {str(path.relative_to(here)) for path in set(here.rglob("*")) - set(before) if path.is_file()}
    assert new == {"ours.yaml", "emovit_datasets/ours/defaults.yaml"}
    assert _opened("ours") == {"train": {"calm": 20, "wild": 10}, "test": {"wild": 10}}
    assert Config.load("ours.yaml").run.valid_splits == ()
    # They have nothing to import, and do not break the list.
    assert main(["data", "import", "ours", "photos", "--out", "x.jsonl"]) == 2
    assert main(["data", "list"]) == 0


def test_shards_with_new_splits_are_unpacked(init, built, here):
    code, text, errors = init("built", "--name", "again", "--splits", "train=0.5,val=0.25,test=0.25")
    assert code == 0 and "drawn with seed 0 (train 0.5, val 0.25, test 0.25)" in text, errors
    assert len(list((here / "data/again/unpacked").rglob("*.png"))) == 40
    assert {split: sum(labels.values()) for split, labels in _opened("again").items()} == {
        "train": 20, "val": 10, "test": 10,
    }  # fmt: skip
    code, _, errors = init("built", "--name", "again")
    assert code == 2 and "already exists" in errors
    assert init("built", "--name", "again", "--splits", "train=1", "--overwrite")[0] == 0


def _tar(path, samples):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, members in samples.items():
            for suffix, content in members.items():
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def _samples(numbers, label):
    return {f"{n:04}": {"png": _image_bytes(n), "json": json.dumps({"emotion": label(n)}).encode()} for n in numbers}


def test_tars_of_other_tools(init, here):
    def label(number):
        return ("Happy", "sad", "angry", "fear", "disgust", "surprise")[number % 6]

    _tar(here / "tars" / "set-train-000.tar", _samples(range(24), label))
    _tar(here / "tars" / "set-validation-000.tar", _samples(range(24, 36), label))
    _tar(here / "tars" / "set-test-000.tar", {**_samples(range(36, 48), label), "x": {"png": b"<html>"}})
    before = sorted((here / "tars").rglob("*"))
    assert "nothing written" in init("tars", "--dry-run")[1] and not (here / "data").exists()
    code, text, errors = init("tars")
    assert code == 0, errors
    assert "labels: ekman6" in text and "splits: those of the data" in text and "1 samples cannot be used" in text
    assert sorted((here / "tars").rglob("*")) == before
    found = _opened("tars")
    assert {split: sum(labels.values()) for split, labels in found.items()} == {"train": 24, "val": 12, "test": 12}
    assert found["test"]["happiness"] == 2


def test_tars_with_class_numbers(init, here):
    samples = {f"{n:03}": {"png": _image_bytes(n), "cls": str(n % 2).encode()} for n in range(20)}
    _tar(here / "numbers" / "0.tar", samples)
    code, _, errors = init("numbers")
    assert code == 2 and "no sample" in errors and "--set 'classes=[name, name, ...]'" in errors
    code, text, errors = init("numbers", "--overwrite", "--set", "classes=[calm, wild]")
    assert code == 0 and "drawn with seed 0" in text, errors
    found = _opened("numbers")
    assert sum(found.values(), Counter()) == {"calm": 10, "wild": 10}


def _images_of(records_file):
    """Id -> bytes of the image, as the unpacked records name it."""
    records = map(json.loads, records_file.read_text().splitlines())
    return {record["id"]: (records_file.parent / record["image"]).read_bytes() for record in records}


@pytest.mark.parametrize("name", ["0.png", "a/0.png", "./a//0.png"])
def test_images_with_one_path_stay_apart_when_shards_are_unpacked(init, here, name):
    """Two records files, whose image paths start in their own folders, were built into one folder of shards."""
    images = {}
    for split in ("train", "val", "test"):
        lines = []
        for number in range(6):
            path = here / split / name.replace("0.png", f"{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            images[f"m/{split}{number}"] = _image_bytes(len(images))
            path.write_bytes(images[f"m/{split}{number}"])
            label = ("awe", "fear")[number % 2]
            fields = {"id": f"m/{split}{number}", "split": split, "source": "m", "emotion": label}
            image = name.replace("0.png", f"{number}.png")
            lines.append(json.dumps({**fields, "image": image, "label_set": "mikels8"}))
        (here / f"{split}.jsonl").write_text("\n".join(lines))
        assert main(["shards", "build", f"{split}.jsonl", "--images", split, "--out", "all"]) == 0
    code, text, errors = init("all", "--name", "again", "--splits", "train=0.5,val=0.25,test=0.25")
    assert code == 0 and "18 records of 18 images" in text and "near" not in text.partition("warning")[2], errors
    assert _images_of(here / "data/again/unpacked/records.jsonl") == images


@pytest.mark.parametrize("hidden", ["train/._000.tar", "._000.tar", "__MACOSX/._000.tar", ".trash/000.tar"])
def test_hidden_tars_are_skipped(init, here, hidden):
    for split in ("train", "test"):
        _tar(here / "tars" / split / "000.tar", _samples(range(12), lambda n: ("awe", "fear")[n % 2]))
    (here / "tars" / hidden).parent.mkdir(exist_ok=True)
    (here / "tars" / hidden).write_bytes(b"\0\5\x16\7" + bytes(300))
    code, text, errors = init("tars")
    assert code == 0 and "24 records of 24 images" in text, errors


def test_tars_whose_linked_names_are_equal(init, here):
    for tar in ("train/0_1.tar", "train_0/1.tar", "train_0_1.tar"):
        _tar(here / "tars" / tar, _samples(range(8), lambda n: ("awe", "fear")[n % 2]))
    code, text, errors = init("tars")
    assert code == 0 and "24 records of 24 images" in text, errors


@pytest.mark.parametrize("download", ["original.tar", "happy/original.tar", "index.json"])
def test_a_download_beside_labelled_images_is_not_the_data(init, here, download):
    for number in range(24):
        path = here / "pics" / ("happy", "sad")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_image_bytes(number))
    _tar(here / "pics" / download, _samples(range(4), lambda n: "x"))
    code, text, errors = init("pics")
    assert code == 0 and "24 records of 24 images" in text and "other files are ignored: 1" in text, errors
    assert not (here / "data/pics/unpacked").exists()


def test_an_image_beside_tars_is_not_the_data(init, here):
    _tar(here / "tars" / "000.tar", _samples(range(12), lambda n: ("awe", "fear")[n % 2]))
    (here / "tars" / "preview.png").write_bytes(_image_bytes(0))
    code, text, errors = init("tars")
    assert code == 0 and "12 records of 12 images" in text, errors


@pytest.mark.parametrize("locked", ["built/test", "tars/test"])
def test_a_split_that_cannot_be_read_is_refused(init, built, here, lock_folder, locked):
    for split in ("train", "test"):
        _tar(here / "tars" / split / "000.tar", _samples(range(12), lambda n: ("awe", "fear")[n % 2]))
    lock_folder(locked)
    code, _, errors = init(locked.partition("/")[0])
    assert code == 2 and f"{locked}: the folder cannot be read" in errors


@pytest.mark.parametrize("fields", [{"labels": ["calm", "wild"]}, {"votes": {"calm": 1.0}}, {"labels": ["wild"]}])
def test_finished_shards_without_an_emotion_are_refused(init, here, fields):
    lines = []
    for number in range(8):
        (here / f"{number}.png").write_bytes(_image_bytes(number))
        record = {
            "id": f"m/{number}",
            "image": f"{number}.png",
            "source": "m",
            "label_set": "labels:calm, wild",
            **fields,
        }
        lines.append(json.dumps({**record, "split": ("train", "test")[number % 2]}))
    (here / "r.jsonl").write_text("\n".join(lines))
    assert main(["shards", "build", "r.jsonl", "--out", "several"]) == 0
    code, _, errors = init("several")
    assert code == 2 and "several: none of its 8 records has an emotion" in errors and "set `emotion`" in errors
