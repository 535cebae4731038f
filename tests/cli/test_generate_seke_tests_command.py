"""`emovit generate seke-tests` as a command, after `emovit data split`.

- Each level gets the faces that people labelled, with the questions of the level and without generated levels; counts,
  persons and hashes in the manifest agree with the files; the same seed gives the same bytes.
- Balanced sets have as many faces of each class as of the rarest one, for units at least as many; no face occurs twice.
- The commands of docs/seke.md work, and no person of the tests is in the training data.
- Persons and images in two splits are rejected; doubtful cases are noted, or rejected with `--strict`.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import shlex
import shutil
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from lavis_emovit.cli.main import EXIT_USER_ERROR, main
from lavis_emovit.emotion.facial import FACIAL_UNITS
from lavis_emovit.emotion.labels_faces import EXPRESSIONS8
from lavis_emovit.records import EmotionRecord, read_records, write_records
from lavis_emovit.shards.verify import verify_shards

FILES = {level: f"test_{level}.jsonl" for level in ("expression", "affect", "units")}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """200 faces of 40 persons; two thirds have each level; only `extra.subject` names the person."""
    root = tmp_path_factory.mktemp("faces")
    rng = random.Random(7)
    records = []
    for number in range(200):
        Image.new("RGB", (8, 8), (number, 90, 120)).save(root / f"{number}.png")
        values = {}
        if rng.random() < 0.66:
            values |= {"emotion": rng.choice(EXPRESSIONS8.labels[:4]), "label_set": "expressions8"}
        if rng.random() < 0.66:
            values |= {"valence": rng.uniform(-1, 1), "arousal": rng.uniform(-1, 1)}
        if rng.random() < 0.66:
            values["action_units"] = {unit: 3.0 * (rng.random() < 0.3) for unit in FACIAL_UNITS[:6]}
        extra = {"subject": f"s{number % 40}"}
        record = EmotionRecord(id=f"f/{number}", image=f"{number}.png", split="all", source="f", extra=extra, **values)
        records.append(record)
    # A generated level is not a label.
    generated = {"seke_given": "expression", "seke_label_set": "expressions8", "subject": "s0"}
    records[0] = records[0].model_copy(
        update={"emotion": "anger", "label_set": "expressions8", "extra": generated, "valence": 0.5, "arousal": 0.5}
    )
    write_records(root / "records.jsonl", records)
    assert main(["data", "split", str(root / "records.jsonl"), "--out", str(root / "split.jsonl"), "--group-by",
                 "subject", "--fractions", "train=0.6,test=0.4"]) == 0  # fmt: skip
    return root


def run(root, out, *more):
    return main(["generate", "seke-tests", str(root / "split.jsonl"), "--out", str(out), "--images", str(root), *more])


def read_sets(out):
    return {level: list(read_records(out / name)) for level, name in FILES.items()}


def test_levels(drawn, tmp_path, capsys):
    assert run(drawn, tmp_path / "one") == 0
    shown = capsys.readouterr().out
    assert run(drawn, tmp_path / "two") == 0
    sets = read_sets(tmp_path / "one")
    split = {record.id: record for record in read_records(drawn / "split.jsonl")}
    tested = [record for record in split.values() if record.split == "test"]
    training = {record.group for record in split.values() if record.split == "train"}
    truth = {
        "expression": {r.id for r in tested if r.emotion is not None and "seke_given" not in r.extra},
        "affect": {r.id for r in tested if r.valence is not None},
        "units": {r.id for r in tested if r.action_units},
    }
    manifest = json.loads((tmp_path / "one" / "manifest.json").read_text())
    for level, chosen in sets.items():
        assert {record.id for record in chosen} == truth[level] and len(chosen) > 20
        assert not {record.group for record in chosen} & training
        for record in chosen:
            assert [item.provenance for item in record.instructions] == [
                item.provenance for item in record.instructions if item.provenance.startswith(f"seke:{level}/")
            ] and len(record.instructions) == 1
            assert not any(name.startswith("seke_") for name in record.extra)
        entry = manifest["output"][FILES[level]]
        content = (tmp_path / "one" / FILES[level]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["persons"] == len({record.group for record in chosen}) and entry["records"] == len(chosen)
        assert content == (tmp_path / "two" / FILES[level]).read_bytes()
        assert f"{len(chosen)} faces of {entry['persons']} persons" in shown
    assert manifest["output"][FILES["expression"]]["classes"] == dict(
        sorted(Counter(record.emotion for record in sets["expression"]).items())
    )
    assert manifest["input"]["splits"]["train"]["persons"] == len(training) and manifest["notes"] == []


@pytest.mark.parametrize("more", [["--balanced"], ["--per-class", "5"], ["--balanced", "--per-class", "3"]])
def test_balanced(drawn, tmp_path, more):
    assert run(drawn, tmp_path / "all") == 0 and run(drawn, tmp_path / "few", *more) == 0
    assert run(drawn, tmp_path / "other", *more, "--seed", "1") == 0
    totals = json.loads((tmp_path / "all" / "manifest.json").read_text())["output"]
    found = json.loads((tmp_path / "few" / "manifest.json").read_text())["output"]
    for level, name in FILES.items():
        rarest = min(totals[name]["classes"].values())
        limit = min([rarest] * ("--balanced" in more) + [int(word) for word in more if word.isdigit()])
        for label, total in totals[name]["classes"].items():
            count = found[name]["classes"][label]
            assert count >= min(limit, total) if level == "units" else count == min(limit, total)
        assert found[name]["records"] < totals[name]["records"]
    assert (tmp_path / "few" / FILES["affect"]).read_bytes() != (tmp_path / "other" / FILES["affect"]).read_bytes()


def test_commands_of_the_page(drawn, tmp_path, monkeypatch):
    page = (Path(__file__).resolve().parents[2] / "docs" / "seke.md").read_text(encoding="utf-8")
    section = page.partition("## Test sets")[2].partition("\n## ")[0]
    lines = re.findall(r"(?:^|`)emovit ([^`\n]+)", section, flags=re.MULTILINE)
    assert [line.split()[1] for line in lines] == ["split", "seke-tests", "seke", "build"]
    (tmp_path / "faces").mkdir()
    for path in (*drawn.glob("*.png"), drawn / "records.jsonl"):
        shutil.copy(path, tmp_path / "faces")
    monkeypatch.chdir(tmp_path)
    for line in lines:
        assert main(shlex.split(line)) == 0, line
    completed = list(read_records("faces/completed/records.jsonl"))
    trained = {record.group for record in completed if record.instructions}
    tested = {record.group for name in FILES.values() for record in read_records(f"faces/tests/{name}")}
    assert trained and tested and not trained & tested
    assert verify_shards(Path("shards")).ok


def test_rejected_and_noted(drawn, tmp_path, capsys):
    records = list(read_records(drawn / "split.jsonl"))
    train = next(record for record in records if record.split == "train")
    test = next(record for record in records if record.split == "test")
    folder = tmp_path / "copy"
    shutil.copytree(drawn, folder)

    def attempt(changed, *more):
        write_records(folder / "split.jsonl", [changed.get(record.id, record) for record in records])
        code = run(folder, tmp_path / "out", *more)
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    code, shown = attempt({test.id: test.model_copy(update={"group": train.group})})
    assert code == EXIT_USER_ERROR and f"belongs to group '{train.group}'" in shown
    shutil.copy(folder / train.image, folder / test.image)
    code, shown = attempt({})
    assert code == EXIT_USER_ERROR and f"is the same image as '{train.id}'" in shown
    assert not (tmp_path / "out").exists()
    (folder / test.image).unlink()
    nameless = {test.id: test.model_copy(update={"group": None})}
    code, shown = attempt(nameless, "--strict")
    assert code == EXIT_USER_ERROR and "do not name a person" in shown and "1 of 200 images are not in" in shown
    assert not (tmp_path / "out").exists()
    assert attempt(nameless)[0] == 0
    code, shown = attempt(nameless)
    assert code == EXIT_USER_ERROR and "already exists" in shown
    # --overwrite removes files of an earlier run that it does not write again.
    assert attempt(nameless, "--overwrite", "--level", "units")[0] == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
            "manifest.json", "test_units.jsonl", "test_units.summary.json",
        ]  # fmt: skip
    code, shown = attempt({}, "--split", "dev", "--overwrite")
    assert code == EXIT_USER_ERROR and "no records of split 'dev' (available: test, train)" in shown
    scenes = test.model_copy(update={"emotion": "awe", "label_set": "mikels8"})
    shutil.copy(drawn / test.image, folder / test.image)
    code, shown = attempt({test.id: scenes}, "--overwrite")
    assert code == EXIT_USER_ERROR and f"record '{test.id}': label set 'mikels8' has no facial expressions" in shown
