"""`emovit init`: from your own data to a dataset and a recipe that run.

- The two files are valid: the recipe is read from any working directory, and the dataset is prepared with the splits
  that the command printed; people and near duplicates are in one split, broken images are skipped and reported.
- The run of the recipe writes a report, in two commands.
- Nothing is overwritten silently, nothing is written into the folder of the images or with --dry-run.
- Misspelt labels, contradictory duplicates and too few images are reported; labels are never merged silently.
- Names, models, shares and settings that are wrong are refused.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from PIL import Image

from lavis_emovit.cli.main import main
from lavis_emovit.records import read_records
from lavis_emovit.runners.config import Config


def _image(path, seed, size=96):
    """A smooth random image; different seeds give different perceptual hashes."""
    rng = random.Random(seed)
    small = Image.new("RGB", (6, 6))
    small.putdata([(rng.randrange(256), rng.randrange(256), rng.randrange(256)) for _ in range(36)])
    path.parent.mkdir(parents=True, exist_ok=True)
    small.resize((size, size), Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def mypics(workplace):
    """30 images in two folders, one of them copied at half its size; the working directory is the folder above."""
    for number in range(30):
        _image(workplace / "mypics" / ("calm", "Wild")[number % 2] / f"{number}_x.png", number)
    Image.open(workplace / "mypics/calm/0_x.png").resize((48, 48)).save(workplace / "mypics/calm/copy.png")
    return workplace / "mypics"


def _prepared(config, name):
    """Split -> records of the shards that the recipe prepares."""
    from lavis_emovit.datasets.preparation import prepare_dataset
    from lavis_emovit.paths import data_root

    settings = config.datasets[name]
    storage = data_root() / settings.build_info.images.storage
    indexes = {split: storage / split / "index.json" for split in ("train", "val", "test")}
    prepare_dataset(name, settings.build_info.prepare, storage, indexes)
    found = defaultdict(list)
    for record in read_records(storage / "records.jsonl"):
        found[record.split].append(record)
    counts = {split: json.loads(path.read_text())["num_samples"] for split, path in indexes.items()}
    return found, counts


def test_the_recipe_trains_on_the_printed_splits(init, mypics, tmp_path, monkeypatch):
    (mypics / "calm" / "broken.jpg").write_bytes(b"<html>")
    code, text, errors = init("mypics")
    assert code == 0, errors
    assert "labels: a set of their own" in text and "drawn with seed 0 (train 0.7, val 0.1, test 0.2)" in text
    assert "1 images cannot be opened and are skipped" in text and "broken.jpg: a web page" in text
    assert text.endswith("next: python -m lavis.train --cfg-path mypics.yaml\n")
    printed = {name: int(count) for name, count in re.findall(r"(train|val|test) (\d+) \(", text.splitlines()[0])}
    # From another folder: the dataset is found beside the recipe.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    config = Config.load(tmp_path / "mypics.yaml")
    assert config.run.output_dir == "output/mypics" and config.model_cfg.image_size == 96
    found, counts = _prepared(config, "mypics")
    assert counts == printed and sum(counts.values()) == 31
    splits = {record.image: split for split, records in found.items() for record in records}
    assert splits["calm/copy.png"] == splits["calm/0_x.png"]
    assert all(record.instructions[0].kind == "categorical" for record in found["train"])


def test_people_are_in_one_split(init, tmp_path, monkeypatch, mypics):
    for person in range(12):
        for number, emotion in enumerate(("neutral", "happy")):
            _image(tmp_path / "faces" / emotion / f"{person:03}_{emotion}.png", 2 * person + number)
    assert init("faces", "--seed", 3)[0] == 0
    found, _ = _prepared(Config.load("faces.yaml"), "faces")
    people = {split: {record.group for record in records} for split, records in found.items()}
    assert sum(map(len, people.values())) == 12 and all(people.values())
    assert {record.label_set for records in found.values() for record in records} == {"neutral_happy2"}


def test_from_images_to_a_report_in_two_commands(init, mypics, tmp_path):
    from lavis_emovit.train import main as train

    assert init("mypics")[0] == 0
    assert train(["--cfg-path", "mypics.yaml", "--options", "run.max_steps=2", "run.warmup_steps=0"]) == 0
    assert "Always" in (tmp_path / "output/mypics/report.html").read_text()
    metrics = json.loads((tmp_path / "output/mypics/metrics.json").read_text())
    assert "majority_baseline" in json.dumps(metrics)


def test_valence_and_arousal_without_labels(init, mypics, tmp_path):
    from lavis_emovit.train import main as train

    lines = [
        f"{path.relative_to(mypics)},{1 + n % 9},{9 - n % 9}" for n, path in enumerate(sorted(mypics.rglob("*.png")))
    ]
    (mypics / "ratings.csv").write_text("\n".join(["path,valence,arousal", *lines]))
    code, text, errors = init("mypics", "--name", "rated")
    assert code == 0 and "scale of the ratings: 1 to 9" in text, errors
    assert train(["--cfg-path", "rated.yaml", "--options", "run.max_steps=1", "run.warmup_steps=0"]) == 0
    metrics = json.loads((tmp_path / "output/rated/metrics.json").read_text())
    assert "mean_ccc" in json.dumps(metrics)


def test_records_of_an_import_are_data_too(init, mypics, tmp_path):
    assert main(["data", "import", "folder", "mypics", "--out", "far/r.jsonl"]) == 0
    code, text, errors = init("far/r.jsonl", "--name", "again")
    assert code == 0 and "a records file with 31 records" in text, errors
    config = Config.load("again.yaml")
    found, _ = _prepared(config, "again")
    assert Counter(len(record.instructions) for records in found.values() for record in records) == {1: 31}
    # The file is part of the dataset's fingerprint.
    with Path("far/r.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(Exception, match="have changed since"):
        _prepared(config, "again")


def test_records_without_instructions_get_the_question_for_their_label(init, mypics):
    """As corrections of `emovit demo` and reviewed predictions are, beside records that have instructions."""
    assert main(["data", "import", "folder", "mypics", "--out", "mypics/r.jsonl"]) == 0
    rows = [json.loads(line) for line in Path("mypics/r.jsonl").read_text().splitlines()]
    bare = [{**row, "instructions": []} if number % 2 else row for number, row in enumerate(rows)]
    Path("mypics/r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bare))
    code, _, errors = init("mypics/r.jsonl", "--name", "corrected")
    assert code == 0, errors
    found, _ = _prepared(Config.load("corrected.yaml"), "corrected")
    kinds = [[one.kind for one in record.instructions] for records in found.values() for record in records]
    assert kinds == [["categorical"]] * 31


def test_records_without_a_usable_image_name_the_command_that_stores_their_folder(init, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = [
        {"id": f"x/{n}", "image": f"{n}.png", "split": "train", "source": "x", "emotion": "awe", "label_set": "mikels8"}
        for n in range(7)
    ]
    Path("lone.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    for options in ([], ["--dry-run"]):
        code, _, errors = init("lone.jsonl", *options)
        assert code == 2 and "has no usable image of the 7 records" in errors
        assert "`emovit data images RECORDS FOLDER`" in errors and "0.png" in errors
    for number in range(7):
        _image(tmp_path / "elsewhere" / f"{number}.png", str(number))
    assert main(["data", "images", "lone.jsonl", str(tmp_path / "elsewhere")]) == 0
    code, _, errors = init("lone.jsonl", "--splits", "train=1")
    assert code == 0, errors


def test_published_splits_are_kept(init, mypics, tmp_path):
    for split in ("train", "test"):
        for number in range(20):
            _image(tmp_path / "parts" / split / ("calm", "wild")[number % 2] / f"{number}.png", f"{split}{number}")
    code, text, _ = init("parts")
    assert code == 0 and "those of the data, with images held out of train for val" in text
    _, counts = _prepared(Config.load("parts.yaml"), "parts")
    assert counts == {"train": 18, "val": 2, "test": 20}
    shutil.copy(tmp_path / "parts/train/calm/0.png", tmp_path / "parts/test/calm/same.png")
    code, text, _ = init("parts", "--overwrite")
    assert "1 pairs of equal or nearly equal images, or groups, are in two splits" in text
    assert (
        "drawn with seed 0 (train 0.5, test 0.5)" in init("parts", "--overwrite", "--splits", "train=0.5,test=0.5")[1]
    )


def test_labels_are_not_merged_silently(init, mypics):
    for number in range(3):
        _image(mypics / "clam" / f"{number}.png", f"typo {number}")
    _image(mypics / "calm " / "0.png", "space")
    shutil.copy(mypics / "calm/2_x.png", mypics / "Wild/same.png")
    code, text, _ = init("mypics")
    assert code == 0
    assert "'calm' (16 images), 'calm ' (1 images) are all read as the label 'calm'" in text
    assert "the label 'clam' (3 images) is probably a misspelt 'calm' (16 images)" in text
    assert "1 equal images have different labels" in text
    assert re.search(r"^  clam +\d", text, re.MULTILINE)
    setting = re.search(r"--set '(label_names=.*)'\)", text)[1]
    text = init("mypics", "--overwrite", "--set", setting)[1]
    assert not re.search(r"^  clam +\d", text, re.MULTILINE) and "misspelt" not in text


def test_few_images(init, mypics):
    for path in sorted(mypics.rglob("*.png"))[1:-3]:
        path.unlink()
    code, text, _ = init("mypics")
    assert code == 0 and "label 'wild' has 1 images, and none of them in" in text
    assert re.search(r"test has 1 images, so an accuracy on it is uncertain by up to 98 points", text)
    for path in sorted(mypics.rglob("*.png"))[1:3]:
        path.unlink()
    code, _, errors = init("mypics", "--overwrite")
    assert code == 2 and "2 usable images: 2 groups are too few for the splits train, val, test" in errors
    code, text, _ = init("mypics", "--overwrite", "--splits", "train=1")
    assert code == 0 and "there is no split test" in text
    assert Config.load("mypics.yaml").run.test_splits == ()


def test_no_file_is_lost(init, mypics, tmp_path, monkeypatch):
    before = sorted(tmp_path.rglob("*"))
    assert "nothing written (--dry-run)" in init("mypics", "--dry-run")[1]
    assert sorted(tmp_path.rglob("*")) == before
    assert init("mypics")[0] == 0
    code, _, errors = init("mypics")
    assert code == 2 and "mypics.yaml: already exists; choose another --name or --out, or replace it" in errors
    assert init("mypics", "--overwrite", "--seed", 1)[0] == 0
    (tmp_path / "mypics.yaml").write_text("mine")
    code, _, errors = init("mypics", "--overwrite")
    assert code == 2 and "was not written by `emovit init`" in errors
    assert (tmp_path / "mypics.yaml").read_text() == "mine"
    assert init("mypics", "--out", tmp_path / "new" / "place")[0] == 0
    assert Config.load(tmp_path / "new/place/mypics.yaml").datasets
    monkeypatch.chdir(mypics)
    code, _, errors = init(".")
    assert code == 2 and "is the folder of the images, or inside it" in errors
    assert not (mypics / "mypics.yaml").exists()


def test_new_images_get_new_shards(init, mypics):
    init("mypics")
    old = Config.load("mypics.yaml").datasets["mypics"].build_info.images.storage
    init("mypics", "--overwrite")
    assert Config.load("mypics.yaml").datasets["mypics"].build_info.images.storage == old
    _image(mypics / "calm" / "new.png", "new")
    init("mypics", "--overwrite")
    assert Config.load("mypics.yaml").datasets["mypics"].build_info.images.storage != old


def test_a_dataset_beside_the_recipe_is_like_any_other(init, mypics, tmp_path):
    """In the working directory it is listed and imported by its name, and its files have the usual head."""
    init("mypics")
    for path in (tmp_path / "mypics.yaml", tmp_path / "emovit_datasets/mypics/defaults.yaml"):
        head = path.read_text().split("\n\n")[0]
        assert all(f"\n# {word}" in head for word in ("Needs:", "Launch:", "Override:", "Memory:"))
    assert main(["data", "import", "mypics", "mypics", "--out", "r.jsonl"]) == 0
    assert Counter(record.split for record in read_records("r.jsonl")) == {"train": 22, "val": 3, "test": 6}


def test_a_large_model(init, mypics):
    assert init("mypics", "--model", "emovit_vicuna7b")[0] == 0
    config = Config.load("mypics.yaml")
    assert (config.model_cfg.image_size, config.run.amp, config.run.micro_batch_size) == (224, "bf16", 2)


@pytest.mark.parametrize("model", ["emovit_qwen25vl_3b", "emovit_image_text"])
def test_an_image_text_model_reads_images_with_its_own_processor(init, mypics, model):
    assert init("mypics", "--model", model)[0] == 0
    config = Config.load("mypics.yaml")
    assert config.model.lora.parts == ("language_model",)
    assert config.datasets["mypics"].vis_processor.train.pretrained == config.model.pretrained != ""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["gone"], "gone: no such folder or file"),
        (["mypics", "--name", "a/b"], "'a/b' is not a valid name"),
        (["mypics", "--name", "emoset"], "'emoset' is the name of a published dataset"),
        (["mypics", "--model", "emovit_tini"], "no model 'emovit_tini' (did you mean 'emovit_tiny'?)"),
        (["mypics", "--splits", "train=0.5,test=0.6"], "the shares must sum to 1"),
        (
            ["mypics", "--splits", "train=0.5,held=0.5"],
            "must have a share of train, and may have those of val and test",
        ),
        (["mypics", "--labels", "mikels"], "unknown label set 'mikels' (did you mean 'mikels8'?)"),
        (["mypics", "--labels", "calm, tense"], "--labels does not have all names of the data"),
        (["mypics", "--set", "patern={label}/{name}"], "patern: unknown key (did you mean 'pattern'?)"),
        (["mypics", "--set", "pattern={label}/x/{name}"], "no image fits the pattern {label}/x/{name}"),
        (["mypics", "--set", "pattern={label}"], "must contain {name} or {group}"),
    ],
)
def test_wrong_arguments(arguments, expected, init, mypics, tmp_path):
    code, _, errors = init(*arguments)
    assert code == 2 and expected in errors, errors
    assert not list(tmp_path.glob("*.yaml"))
