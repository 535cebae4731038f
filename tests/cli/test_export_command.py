"""`emovit export data`.

Properties:
- it prints the conversations, images and kinds of each split, what it skipped, and how the trainer reads the files;
- `emovit data import conversations` reads the folder back as the same records;
- wrong settings, and an export of nothing, exit with code 2 and write nothing.
"""

from __future__ import annotations

import pytest

from lavis_emovit.cli.main import EXIT_USER_ERROR, main
from lavis_emovit.records import read_records, write_records


@pytest.fixture
def records(make_records, tmp_path):
    found = make_records(tmp_path / "mine", 6)
    found[0] = found[0].model_copy(update={"instructions": []})
    found[5] = found[5].model_copy(update={"split": "test"})
    write_records(tmp_path / "mine" / "records.jsonl", found)
    return found


def test_a_folder_is_written_and_read_back(records, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["mine/records.jsonl", "--format", "ms-swift", "--kinds", "categorical, reasoning", "--out", "swift"]
    assert main(["export", "data", *arguments]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "test: 2 conversations about 1 images in swift/test.jsonl (categorical 1, reasoning 1)",
        "train: 5 conversations about 4 images in swift/train.jsonl (categorical 4, reasoning 1)",
        "  skipped: 1 records without instructions (tiny/amusement_00000)",
        "  use: ROOT_IMAGE_DIR=swift swift sft --dataset swift/train.jsonl --val_dataset ...",
    ]
    assert main(["data", "import", "conversations", "swift", "--out", "again/r.jsonl", "--strict"]) == 0
    output = capsys.readouterr().out
    assert "5 records in again/r.jsonl: test 1, train 4" in output and "not imported" not in output
    again = {record.id: record for record in read_records(tmp_path / "again" / "r.jsonl")}
    for record in records[1:]:
        chosen = [one for one in record.instructions if one.kind != "conversation"]
        image = again[record.id].image
        assert again[record.id] == record.model_copy(update={"image": image, "instructions": chosen})


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--format", "trl", "--kinds", "explanation"], "there is nothing to export"),
        (["--format", "sharegpt", "--kinds", "all"], "unknown format 'sharegpt'"),
        (["--format", "easyr1", "--join"], "--join: a row of easyr1 has one question"),
        (["--format", "trl", "--images", "gone"], "--images gone: no such folder"),
    ],
)
def test_errors_write_nothing(records, tmp_path, capsys, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "data", "mine", "--out", "out", *arguments]) == EXIT_USER_ERROR
    assert expected in capsys.readouterr().err and not (tmp_path / "out").exists()
