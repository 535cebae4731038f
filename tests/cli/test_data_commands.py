"""`emovit data import`, `list`, `stats`, `verify`, `split` and `preview` on the command line.

- A dataset is imported by its name: counts that differ from the published ones, and skipped images, are reported; with
  --strict they are refused and nothing is written.
- The splits of its YAML are drawn, or the published ones kept, or new ones drawn; --set changes its layout.
- Wrong names, keys and folders are reported with the nearest valid one.
- Images of tables that contain them are written beside the records, so that the next commands find them.
- Neither import nor split overwrites its input, nor another file without --overwrite, also if two run at once.
- stats, verify and split report by default; --strict exits with code 2.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from functools import partial

import pytest
from filelock import FileLock, Timeout
from PIL import Image

from lavis_emovit import records
from lavis_emovit.cli.main import main
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord, image_root_of, read_records, write_records
from lavis_emovit.sources import splits


@pytest.fixture
def emovit(emovit):
    """Function (arguments) -> (exit code, output, errors) of the command `emovit data ...`."""
    return partial(emovit, "data")


@pytest.fixture
def abstract(tmp_path):
    """Abstract with 12 paintings, one of them tied."""
    root = tmp_path / "abstract"
    root.mkdir()
    lines = ["'','Amusement','Anger','Awe','Content','Disgust','Excitement','Fear','Sad'"]
    for number in range(12):
        votes = [1] * 8
        votes[number % 4] += 5
        votes[7] += 5 if number == 0 else 0
        Image.effect_noise((40, 40), 90).save(root / f"abstract_{number:04d}.jpg")
        lines.append(f"'abstract_{number:04d}.jpg'," + ",".join(map(str, votes)))
    (root / "ABSTRACT_groundTruth.csv").write_text("\n".join(lines))
    return root


def test_a_dataset_by_its_name(emovit, abstract, tmp_path):
    out = tmp_path / "out" / "records.jsonl"
    code, text, _ = emovit("import", "abstract", abstract, "--out", out)
    assert code == 0
    assert "11 records in" in text and "note: 1 skipped: the most votes are tied" in text
    assert "differs: 11 records, published: 229 (count after ties are dropped, VECBench)" in text
    assert "known only from documentation" in text and "licence: Paintings" in text
    assert f"image paths are relative to {abstract}" in text and "12 rows: 11 records, 1 skipped" in text
    summary = json.loads((tmp_path / "out" / "records.summary.json").read_text())
    assert (summary["image_root"], summary["rows"], summary["records"]) == (str(abstract), 12, 11)
    assert summary["skipped"] == {"the most votes are tied": 1}
    records = list(read_records(out))
    assert set(Counter(record.split for record in records)) == {"train", "val", "test"}
    assert all(record.instructions[0].kind == "categorical" for record in records)

    strict = tmp_path / "strict.jsonl"
    code, _, errors = emovit("import", "abstract", abstract, "--out", strict, "--strict")
    assert code == 2 and "not imported, because --strict refuses" in errors and "published: 229" in errors
    assert not strict.exists()


def test_a_records_file_remembers_the_folder_of_its_images(emovit, abstract, tmp_path):
    out = tmp_path / "out" / "records.jsonl"
    emovit("import", "abstract", abstract, "--out", out)
    code, text, _ = emovit("verify", out)
    assert code == 0 and "11 records with 11 images" in text and "missing" not in text
    assert emovit("split", out, "--out", tmp_path / "far" / "new.jsonl")[0] == 0
    assert emovit("preview", tmp_path / "far" / "new.jsonl", "--out", tmp_path / "p.html", "--strict")[0] == 0
    assert main(["shards", "build", str(tmp_path / "far" / "new.jsonl"), "--out", str(tmp_path / "shards")]) == 0
    assert main(["generate", "attributes", str(out), "--out", str(tmp_path / "made")]) == 0
    assert emovit("verify", tmp_path / "made" / "records.jsonl", "--strict")[0] == 0
    # Without a summary, or with a folder that is gone, paths start at the file.
    for content in ("{}", '{"image_root": "gone"}'):
        out.with_suffix(".summary.json").write_text(content)
        assert image_root_of(out) == out.parent
    for content in ("[", '{"image_root": 3}'):
        out.with_suffix(".summary.json").write_text(content)
        with pytest.raises(DataError, match=r"records\.summary\.json: damaged: .*emovit data images"):
            image_root_of(out)


def test_an_import_without_records_is_refused_with_the_reason(emovit, tmp_path):
    (tmp_path / "t.csv").write_text("image,mood\ngone.jpg,sad\n")
    options = ["--column", "emotion=mood", "--label-set", "ekman6", "--set", "missing=leave_out", "--split-seed", 1]
    code, _, errors = emovit("import", "table", tmp_path / "t.csv", *options, "--out", tmp_path / "records.jsonl")
    assert code == 2 and "1 skipped: the image is missing (gone.jpg)" in errors
    assert not (tmp_path / "records.jsonl").exists()


def test_splits_and_layout_can_be_changed(emovit, abstract, tmp_path):
    out = tmp_path / "r.jsonl"
    assert "12 records" in emovit("import", "abstract", abstract, "--out", out, "--set", "ties=soft")[1]
    emovit("import", "abstract", abstract, "--out", out, "--overwrite", "--own-splits", "--set", "default_split=test")
    assert {record.split for record in read_records(out)} == {"test"}
    emovit(
        "import", "abstract", abstract, "--out", out, "--overwrite",
        "--split-seed", 1, "--fractions", "a=0.5,b=0.5", "--stratify",
    )  # fmt: skip
    assert Counter(record.split for record in read_records(out)) == {"a": 6, "b": 5}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("abstrakt", "."), "unknown dataset 'abstrakt' (did you mean 'abstract'?)"),
        (("tabel", "."), "unknown dataset 'tabel' (did you mean 'table'?)"),
        (("abstract", "gone"), "gone: no such folder. Get testImages_abstract at https://www.imageemotion.org"),
        (("abstract", "."), "no such table. It must be a CSV, JSON or Parquet file"),
        (("abstract", ".", "--set", "tie=soft"), "--set tie: unknown key (did you mean 'ties'?)"),
        (("ferplus", ".", "--set", "files.7.images=x"), "'files.7.images=x': list index out of range"),
        (("ferplus", ".", "--set", "files.0.path=other.csv"), "other.csv: no such table"),
        (("abstract", ".", "--set", "ties"), "'ties' is not KEY=VALUE"),
        (("abstract", ".", "--set", "ties=maybe"), "Input should be 'drop', 'soft' or 'first'"),
        (("fi", ".", "--column", "image=x"), "'fi' has no table, so it has no columns to name"),
        (("folder", ".", "--label-set", "mikels"), "unknown label set 'mikels' (did you mean 'mikels8'?"),
        (("gone.yaml", "."), "gone.yaml"),
        (("abstract", ".", "--fractions", "train=2"), "--fractions needs --split-seed, which draws new splits"),
        (("abstract", ".", "--stratify"), "--stratify needs --split-seed, which draws new splits"),
        (("abstract", ".", "--split-seed", 1, "--own-splits"), "--split-seed draws new ones: use only one of them"),
        (("abstract", ".", "--name", "../../evil"), "'../../evil' is not a valid name; a name consists of letters"),
        (("huggingface", "gone"), "gone: no such folder"),
    ],
)
def test_wrong_arguments_are_reported_with_valid_ones(arguments, expected, emovit, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    code, text, errors = emovit("import", *arguments, "--out", "records.jsonl")
    assert code == 2 and expected in errors, (text, errors)
    assert not (tmp_path / "here" / "records.jsonl").exists()


def test_all_datasets_are_listed(emovit):
    code, text, _ = emovit("list")
    assert code == 0
    for name in ("emoset: emoset layout, documented", "london_faces: table layout, verified", "oxford_hic: table"):
        assert name in text
    assert "general layouts: conversations, folder, huggingface, libreface, openface, py_feat, table" in text


def test_from_pixels_to_a_sheet(emovit, tmp_path):
    """FER2013's table contains its images; the records can be verified and previewed without further paths."""
    (tmp_path / "fer").mkdir()
    rows = [f"{n % 7},{' '.join(str((n * 31 + i * 7) % 256) for i in range(2304))},Training" for n in range(7)]
    (tmp_path / "fer" / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *rows]))
    out = tmp_path / "records" / "records.jsonl"
    code, text, _ = emovit("import", "fer2013", tmp_path / "fer", "--out", out, "--own-splits")
    assert code == 0 and "--images" not in text
    assert len(list((tmp_path / "records" / "pictures").iterdir())) == 7
    assert list((tmp_path / "fer").iterdir()) == [tmp_path / "fer" / "fer2013.csv"]
    code, text, _ = emovit("verify", out, "--near", -1, "--strict")
    assert code == 0 and "7 records with 7 images: 0 findings" in text
    code, text, _ = emovit("preview", out, "--out", tmp_path / "sheet.html")
    assert code == 0 and "7 images of 7 labels" in text
    assert "1 of 1 shown" in (tmp_path / "sheet.html").read_text()


def test_without_out_nothing_is_written_into_the_folder_of_the_dataset(emovit, abstract, tmp_path, monkeypatch):
    before = sorted(abstract.rglob("*"))
    monkeypatch.chdir(tmp_path)
    assert emovit("import", "abstract", abstract)[0] == 0
    assert len(list(read_records(tmp_path / "abstract.jsonl"))) == 11
    assert emovit("import", "abstract", "abstract", "--name", "mine")[0] == 0
    assert image_root_of(tmp_path / "mine.jsonl") == abstract
    monkeypatch.chdir(abstract)
    code, _, errors = emovit("import", "abstract", ".")
    assert code == 2 and f"abstract.jsonl: would be written into the dataset's folder {abstract}" in errors
    assert sorted(abstract.rglob("*")) == before
    assert emovit("import", "abstract", ".", "--out", "here.jsonl")[0] == 0

    (tmp_path / "fer").mkdir()
    row = f"0,{' '.join(['7'] * 2304)},Training"
    (tmp_path / "fer" / "fer2013.csv").write_text(f"emotion,pixels,Usage\n{row}")
    monkeypatch.chdir(tmp_path)
    code, _, errors = emovit("import", "fer2013", "fer", "--own-splits")
    assert code == 2 and "fer: contains the images, which become files beside the records file" in errors
    assert "--out fer2013/records.jsonl" in errors and not (tmp_path / "pictures").exists()


def test_counts_are_shown_and_written(emovit, abstract, tmp_path):
    out = tmp_path / "r.jsonl"
    emovit("import", "abstract", abstract, "--out", out)
    code, text, _ = emovit("stats", out, "--json", tmp_path / "stats.json")
    assert code == 0
    assert "11 records of 11 images" in text and "no record of: disgust, excitement, fear, sadness" in text
    assert "amusement + anger" in text and "11 records with shares of votes" in text
    counts = json.loads((tmp_path / "stats.json").read_text())[str(out)]
    assert counts["num_records"] == 11 and sum(counts["splits"].values()) == 11
    code, _, errors = emovit("stats", out, "--strict")
    assert code == 2 and "no record of 'fear'" in errors


def test_findings_are_reported_and_refused_when_strict(emovit, abstract, tmp_path):
    out = tmp_path / "r.jsonl"
    emovit("import", "abstract", abstract, "--out", out)
    text = emovit("verify", out, "--images", abstract, "--strict")[1]
    assert "11 images: 0 findings" in text and "none of the images" not in text
    (tmp_path / "r.summary.json").unlink()
    text = emovit("verify", out)[1]
    assert f"none of the images is in {tmp_path}: pass the folder of the image paths with --images" in text
    (tmp_path / "empty").mkdir()
    text = emovit("verify", out, "--images", tmp_path / "empty")[1]
    assert f"none of the images is in {tmp_path / 'empty'}: check --images" in text
    first, second, third = [abstract / record.image for record in list(read_records(out))[:3]]
    shutil.copy(first, second)
    third.write_bytes(b"<html>")
    code, text, _ = emovit("verify", out, "--images", abstract, "--json", tmp_path / "found.json")
    assert code == 0 and "a web page or XML text, not an image" in text and "have the same bytes" in text
    assert "same image, different labels: 1" in text
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found["missing or broken pictures"]) == 1
    code, _, errors = emovit("verify", out, "--images", abstract, "--strict")
    assert code == 2 and "refused by --strict: 1 missing or broken images" in errors
    code, _, errors = emovit("verify", out, out, "--images", "a", "--images", "b", "--images", "c")
    assert code == 2 and "3 folders for 2 records files" in errors
    # Another file with the same images is a leak.
    shutil.copy(out, tmp_path / "s.jsonl")
    code, text, _ = emovit("verify", out, tmp_path / "s.jsonl", "--images", abstract, "--show", 12)
    assert f"of {tmp_path / 's.jsonl'} have the same bytes" in text and "more (--show, --json)" in text
    code, _, errors = emovit("preview", out, "--images", abstract, "--out", tmp_path / "s.png", "--strict")
    assert code == 2 and "1 of 11 images cannot be read" in errors


def test_new_splits(emovit, abstract, tmp_path):
    source, out = tmp_path / "r.jsonl", tmp_path / "split.jsonl"
    emovit("import", "abstract", abstract, "--out", source)
    code, text, _ = emovit("split", source, "--out", out, "--fractions", "train=0.7,test=0.3", "--seed", 3)
    assert code == 0 and "11 records of 11 images; test 3" in text
    before = {record.id: record for record in read_records(source)}
    for record in read_records(out):
        assert record.model_copy(update={"split": ""}) == before[record.id].model_copy(update={"split": ""})
    code, _, errors = emovit(
        "split", source, "--out", tmp_path / "no.jsonl", "--fractions", "a=0.95,b=0.05", "--strict"
    )
    assert code == 2 and "split 'b' has no record of a" in errors and not (tmp_path / "no.jsonl").exists()
    code, _, errors = emovit("split", source, "--out", out, "--overwrite", "--group-by", "person")
    assert code == 2 and "has no extra 'person'\n" in errors  # without a list of no valid names
    # 1 and 1.0 are one person in JSON, and a group is never divided.
    people = ["1", "1.0", '"1"', "2", "2.0", "3", "4.0", "4", "5", "6", "7"]
    lines = source.read_text().splitlines()
    lines = [line[:-1] + f', "extra": {{"person": {person}}}}}' for line, person in zip(lines, people)]
    source.write_text("\n".join(line.replace('"extra":{}', "") for line in lines))
    code, _, errors = emovit("split", source, "--out", out, "--overwrite", "--group-by", "person")
    assert code == 0, errors
    assert [record.group for record in read_records(out)] == ["1", "1", "1", "2", "2", "3", "4.0", "4.0", "5", "6", "7"]


def test_nothing_is_overwritten_by_accident(emovit, abstract, tmp_path):
    out = tmp_path / "r.jsonl"
    emovit("import", "abstract", abstract, "--out", out)
    table, image = abstract / "ABSTRACT_groundTruth.csv", abstract / "abstract_0000.jpg"
    lines = tmp_path / "records.jsonl"
    lines.write_text('{"id": "a", "image": "abstract/abstract_0001.jpg", "split": "x", "source": "y"}\n')
    (tmp_path / "link.jsonl").symlink_to(out)
    (tmp_path / "other.jsonl").write_text(out.read_text())
    before = {path: path.read_bytes() for path in (out, table, image, lines, tmp_path / "other.jsonl")}
    read = "is an input file"
    for arguments, expected in (
        (("split", out, "--out", out, "--overwrite"), read),
        (("split", out, "--out", tmp_path / "link.jsonl", "--overwrite"), read),
        (("split", out, "--out", tmp_path / "abstract" / ".." / "r.jsonl", "--overwrite"), read),
        (("split", out, "--out", tmp_path / "other.jsonl"), "already exists; use another --out, or --overwrite"),
        (("split", out, "--out", tmp_path), "is a folder"),
        (("import", "table", lines, "--out", lines, "--overwrite"), read),
        (("import", "abstract", abstract, "--out", table, "--overwrite"), "is not a records file"),
        (("import", "table", tmp_path, "--set", "file=records.jsonl", "--out", lines, "--overwrite"), read),
        (("import", "abstract", abstract, "--out", image, "--overwrite"), "is not a records file"),
        (("import", "abstract", abstract, "--out", out), "r.jsonl: already exists"),
    ):
        code, text, errors = emovit(*arguments)
        assert code == 2 and expected in errors, (arguments, text, errors)
        assert {path: path.read_bytes() for path in before} == before, arguments
    assert emovit("split", out, "--out", tmp_path / "other.jsonl", "--seed", 5, "--overwrite")[0] == 0
    assert (tmp_path / "other.jsonl").read_bytes() != before[tmp_path / "other.jsonl"]


def test_images_that_were_moved(emovit, abstract, tmp_path):
    """The message names the old folder; the new one is passed, or stored once."""
    out = tmp_path / "out" / "records.jsonl"
    emovit("import", "abstract", abstract, "--out", out)
    moved = abstract.rename(tmp_path / "moved")
    commands = [
        ["verify", out],
        ["preview", out, "--out", tmp_path / "p.html"],
        ["dedupe", out, "--out", tmp_path / "d.jsonl"],
    ]
    commands += [
        ["clean", out, "--out", tmp_path / "c.jsonl"],
        ["split", out, "--out", tmp_path / "s.jsonl", "--near", 2],
    ]
    for command in commands:
        code, _, errors = emovit(*command)
        assert code == 2 and f"its images were in {abstract}, which no longer exists" in errors, command
        assert f"--images, or store it once with `emovit data images {out} FOLDER`" in errors
    assert main(["shards", "build", str(out), "--out", str(tmp_path / "shards")]) == 2
    assert emovit("stats", out)[0] == 0  # opens no image
    assert emovit("verify", out, "--images", moved, "--strict")[0] == 0
    code, _, errors = emovit("verify", out, "--images", tmp_path / "nowhere")
    assert code == 2 and "nowhere: no such folder" in errors

    code, _, errors = emovit("images", out, tmp_path)
    assert code == 2 and "contains none of the 11 images" in errors
    before = json.loads(out.with_suffix(".summary.json").read_text())
    code, text, _ = emovit("images", out, moved)
    assert code == 0 and f"11 of 11 records have their image in {moved}" in text
    after = json.loads(out.with_suffix(".summary.json").read_text())
    assert after == {**before, "image_root": str(moved)} and before["image_root"] == str(abstract)
    for command in commands:
        assert emovit(*command)[0] == 0, command
    # Records and images that moved together need nothing.
    shutil.copy(out, moved / "r.jsonl")
    (moved / "r.summary.json").write_text(json.dumps({"image_root": str(abstract)}))
    assert emovit("verify", moved / "r.jsonl", "--strict")[0] == 0


def test_misspelt_labels(emovit, tmp_path):
    for label, count in (("calm", 10), ("clam", 2), ("wild", 9)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(count):
            Image.effect_noise((40, 40), 90).save(tmp_path / "photos" / label / f"{number}.png")
    out = tmp_path / "r.jsonl"
    text = emovit("import", "folder", tmp_path / "photos", "--out", out)[1]
    assert "note: the label 'clam' (2 images) is probably a misspelt 'calm' (10 images)" in text
    code, text, _ = emovit("verify", out, "--json", tmp_path / "v.json")
    assert code == 0 and "labels that are probably misspelt: 1\n  - 'clam' (2 images)" in text
    assert len(json.loads((tmp_path / "v.json").read_text())["labels that are probably misspelt"]) == 1
    code, _, errors = emovit("verify", out, "--strict")
    assert code == 2 and "1 labels that are probably misspelt" in errors
    strict = ["import", "folder", tmp_path / "photos", "--out", tmp_path / "s.jsonl", "--strict"]
    assert emovit(*strict)[0] == 2
    assert emovit(*strict, "--set", 'label_names={"clam": "calm"}')[0] == 0
    rows = [f"photos/{label}/{n}.png,{label if n else label.title()}" for label in ("calm", "wild") for n in range(9)]
    (tmp_path / "t.csv").write_text("\n".join(["image,emotion", *rows]))
    options = [
        "--out",
        tmp_path / "t.jsonl",
        "--label-set",
        "labels: calm, wild",
        "--set",
        "id_from=path",
        "--column",
        "emotion=emotion",
    ]
    text = emovit("import", "table", tmp_path / "t.csv", *options)[1]
    assert "note: 'Calm' (1 images), 'calm' (8 images) are all read as the label 'calm'" in text


OWN = "labels:calm, tense"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"emotion": "happy", "label_set": OWN},
            f"2 records, the first m/0: unknown emotion 'happy' for label set '{OWN}'",
        ),
        ({"labels": ["calm", "joy"], "label_set": OWN}, "2 records, the first m/0: unknown emotion 'joy'"),
        ({"emotion": "calm", "label_set": "nosuch"}, "2 records, the first m/0: unknown label set 'nosuch'"),
        ({"emotion": "CALM", "label_set": OWN}, None),
        ({"emotion": "joy", "label_set": "ekman6"}, None),
        ({"emotion": "happy"}, None),
        # Votes keep what has no place among the labels.
        ({"emotion": "calm", "votes": {"calm": 0.5, "neutral": 0.5}, "label_set": OWN}, None),
    ],
)
def test_labels_outside_their_label_set(emovit, tmp_path, capsys, fields, expected):
    lines = []
    for number in range(2):
        Image.effect_noise((40, 40), 90).save(tmp_path / f"{number}.png")
        record = {"id": f"m/{number}", "image": f"{number}.png", "split": "train", "source": "m", **fields}
        lines.append(json.dumps(record))
    (tmp_path / "r.jsonl").write_text("\n".join(lines))
    code, text, _ = emovit("verify", tmp_path / "r.jsonl", "--json", tmp_path / "v.json", "--strict")
    found = json.loads((tmp_path / "v.json").read_text())["labels outside their label set"]
    assert (code, len(found)) == ((2, 1) if expected else (0, 0)) and (expected or "") in "".join(found)
    assert ("labels outside their label set: 1\n  - 2 records" in text) == bool(expected)
    capsys.readouterr()
    assert main(["shards", "build", str(tmp_path / "r.jsonl"), "--out", str(tmp_path / "shards")]) == 0
    assert (expected or "") in (text := capsys.readouterr().out) and ("note:" in text) == bool(expected)


def test_two_commands_never_mix_their_records_and_summaries(emovit, tmp_path, monkeypatch):
    """One writes at a time, and a file that came since the start is not replaced without --overwrite."""
    record = EmotionRecord(id="a", image="a.png", split="train", source="s")
    write_records(tmp_path / "r.jsonl", [record])
    out = tmp_path / "out.jsonl"
    command = ("split", tmp_path / "r.jsonl", "--fractions", "test=1", "--out", out)
    divide, summarise, locked = splits.split_by_group, records.write_summary, []

    def overtaken(*arguments, **options):
        write_records(out, [record])
        return divide(*arguments, **options)

    def watched(*arguments, **account):
        with pytest.raises(Timeout), FileLock(tmp_path / ".out.jsonl.lock", timeout=0):
            pass
        locked.append(arguments)
        summarise(*arguments, **account)

    monkeypatch.setattr(splits, "split_by_group", overtaken)
    monkeypatch.setattr(records, "write_summary", watched)
    code, _, errors = emovit(*command)
    assert code == 2 and "already exists" in errors and not locked
    assert [one.split for one in read_records(out)] == ["train"]
    assert emovit(*command, "--overwrite")[0] == 0 and len(locked) == 1
    assert [one.split for one in read_records(out)] == ["test"]


def test_answers_with_another_label(emovit, tmp_path):
    def record(number, *answers, **fields):
        Image.effect_noise((40, 40), 90).save(tmp_path / f"{number}.png")
        asked = [{"kind": kind, "question": "Which?", "answer": text, "provenance": "human"} for kind, text in answers]
        values = {"id": f"m/{number}", "image": f"{number}.png", "split": "train", "source": "m", "label_set": OWN}
        return json.dumps({**values, "instructions": asked, **fields})

    tense, calm = (("categorical", f"Predict emotion: {label}") for label in ("tense", "calm"))
    lines = [
        record(0, calm, tense, emotion="calm"),
        record(1, calm, ("categorical", "not sure"), ("conversation", "He is tense."), emotion="Calm"),
        record(2, tense, labels=["calm", "tense"]),
        record(3, tense),
        record(4, tense, emotion="calm", label_set="nosuch"),
    ]
    (tmp_path / "r.jsonl").write_text("\n".join(lines))
    code, text, _ = emovit("verify", tmp_path / "r.jsonl", "--json", tmp_path / "v.json")
    found = json.loads((tmp_path / "v.json").read_text())["answers with another label"]
    assert code == 0 and found == ["m/0 (train) is calm, but its answer is 'Predict emotion: tense'"]
    assert "answers with another label: 1\n  - m/0 (train) is calm" in text
