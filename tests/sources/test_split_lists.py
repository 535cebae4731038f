"""Official split lists.

- Names may be whole paths, ends of them, without the file's ending, with a label behind, as text or as JSON; records
  that no list names are left out, with a count.
- Lists that overlap, repeat an image, are empty, missing, ambiguous, or name images that are not there are refused, all
  of it together; `skip_bad` leaves entries without an image out, with a count.
- The rows of a table of several datasets are a list, whose names may have more folders in front; columns that are
  missing, and ends of several names, are refused.
- A dataset is prepared with the splits of its lists, wherever they are, and prepared shards notice a changed list.
"""

from __future__ import annotations

import json
import logging

import pytest
from PIL import Image

from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord
from lavis_emovit.sources.catalogue import DeclaredPreparation
from lavis_emovit.sources.split_lists import ListedImages, SplitList, split_by_lists


def _records(*images):
    return [
        EmotionRecord(id=f"set/{number}", image=image, split="any", source="set") for number, image in enumerate(images)
    ]


IMAGES = ("images/anger/1.jpg", "images/anger/2.jpg", "images/joy/1.jpg", "images/joy/2 a.jpg", "images/joy/3.jpg")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("images/anger/1.jpg\nimages/joy/2 a.jpg\n", "images/anger/2.jpg\nimages/joy/1.jpg"),
        ("# official\n\nanger/1.jpg\njoy/2 a.jpg\n", "./anger/2.jpg\r\njoy\\1.jpg"),
        ("anger/1 0\njoy/2 a 3\n", "anger/2.jpg\t0\njoy/1.jpg,3,x"),
    ],
)
def test_names_in_several_forms(train, test, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    lists = {"train": tmp_path / "train.txt", "test": tmp_path / "test.txt"}
    lists["train"].write_text(train)
    lists["test"].write_text(test)
    found = split_by_lists(_records(*IMAGES), lists)
    assert {record.image: record.split for record in found} == dict(zip(IMAGES, ("train", "test", "test", "train")))
    assert "1 images are in none of the split lists and are left out" in caplog.text


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085"])
def test_a_name_may_contain_unusual_line_ends(tmp_path, separator):
    names = [f"joy/a{separator}{number}.jpg" for number in (1, 2)]
    (tmp_path / "test.txt").write_text("\n".join(names), encoding="utf-8")
    found = split_by_lists(_records(*names, "joy/b.jpg"), {"test": tmp_path / "test.txt"})
    assert [record.image for record in found] == names


def test_a_list_may_be_json(tmp_path):
    path = tmp_path / "test.json"
    path.write_text(json.dumps(["joy/3", "anger/1.jpg"]))
    assert [record.image for record in split_by_lists(_records(*IMAGES), {"test": path})] == [IMAGES[0], IMAGES[4]]
    path.write_text(json.dumps({"a": 1}))
    with pytest.raises(DataError, match="expected a JSON list of names"):
        split_by_lists(_records(*IMAGES), {"test": path})


def test_all_faults_of_lists_are_refused_at_once(tmp_path, caplog):
    lists = {split: tmp_path / f"{split}.txt" for split in ("train", "val", "test")}
    lists["train"].write_text("anger/1.jpg\njoy/1.jpg\njoy/1.jpg\n")
    lists["test"].write_text("joy/1.jpg\nfear/9.jpg\nfear/8.jpg\n2.jpg\n")
    records = _records(*IMAGES, "images/fear/2.jpg")
    with pytest.raises(DataError) as refused:
        split_by_lists(records, lists)
    text = str(refused.value)
    assert "val.txt: cannot be read (" in text
    assert "train.txt: 1 images are listed twice" in text
    assert "test.txt: 1 images are also in split 'train', such as 'joy/1.jpg'" in text
    assert "'2.jpg' names both 'set/1' and 'set/5'; write more of their paths" in text
    assert (
        "test.txt: 2 entries have no image, such as 'fear/9.jpg'. Complete the images, or set `skip_bad: true`" in text
    )
    lists = {"test": tmp_path / "test.txt"}
    lists["test"].write_text("anger/1.jpg\nfear/9.jpg\n")
    caplog.set_level(logging.WARNING)
    assert len(split_by_lists(records, lists, skip_missing=True)) == 1
    assert "1 entries have no image and are left out, such as 'fear/9.jpg'" in caplog.text
    lists["test"].write_text("\n# none\n")
    with pytest.raises(DataError, match="names no image"):
        split_by_lists(records, lists)


TABLE = """task,split,label,image_path
Joy-2,test,joy,all/set/images/joy/1.jpg
Joy-2,test,joy,"all/set/images/joy/2 a.jpg"
Joy-2,train,anger,all/set/images/anger/1.jpg
Joy-7,test,anger,all/set/images/anger/2.jpg
"""


def test_rows_of_a_table_are_a_list(tmp_path, caplog):
    table = tmp_path / "samples.csv"
    table.write_text(TABLE)
    rows = ListedImages(table, "image_path", {"task": "Joy-2", "split": "test"})
    found = split_by_lists(_records(*IMAGES), {"test": rows})
    assert {record.image: record.split for record in found} == dict.fromkeys(IMAGES[2:4], "test")
    assert "3 images are in none of the split lists" in caplog.text
    with pytest.raises(
        DataError, match=r"samples.csv \(task=Joy-2, split=test\): 2 entries have no image, such as 'all/"
    ):
        split_by_lists(_records(*IMAGES[:2], IMAGES[4]), {"test": rows})
    with pytest.raises(DataError, match=r"\(task=Joy-8\): names no image"):
        split_by_lists(_records(*IMAGES), {"test": ListedImages(table, "image_path", {"task": "Joy-8"})})
    with pytest.raises(DataError, match="no column path, part; its columns are task, split, label, image_path"):
        split_by_lists(_records(*IMAGES), {"test": ListedImages(table, "path", {"part": "test"})})
    # Two folders of the table end in the same way, so the name of the image alone decides nothing.
    table.write_text(TABLE + "Joy-2,test,joy,all/other/images/joy/1.jpg\n")
    with pytest.raises(DataError, match=r"2 entries have no image, such as 'all/set/images/joy/1\.jpg'"):
        split_by_lists(_records(*IMAGES), {"test": rows})


def test_settings_of_lists_are_recorded_as_they_are_written(tmp_path, monkeypatch):
    rows = {"file": "samples.csv", "column": "image_path", "where": {"task": "Joy-2"}}
    prepare = DeclaredPreparation(source="folder", split_lists={"train": "train.txt", "test": rows})
    assert prepare.model_dump()["split_lists"] == {"train": "train.txt", "test": rows}
    with pytest.raises(ValueError, match="so it needs `column`"):
        SplitList(file="samples.csv", where={"task": "Joy-2"})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "samples.csv").touch()
    assert SplitList(**rows).below(tmp_path / "set") == ListedImages(
        tmp_path / "samples.csv", "image_path", rows["where"]
    )
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "samples.csv").touch()
    assert SplitList(**rows).below(tmp_path / "set").path == tmp_path / "set" / "samples.csv"


def test_a_dataset_is_prepared_with_the_splits_of_its_lists(tmp_path, monkeypatch):
    from lavis.common.registry import registry

    from lavis_emovit.shards.index import ShardIndex

    monkeypatch.setenv("EMOVIT_DATA", str(tmp_path / "data"))
    root = tmp_path / "EmotionROI"
    for number in range(12):
        folder = root / "images" / ("joy", "fear")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (number * 20, 90, 60)).save(folder / f"{number}.jpg")
    (root / "test.txt").write_text("joy/0.jpg\nfear/1.jpg\njoy/2.jpg\n")
    (tmp_path / "train.txt").write_text("".join(f"{('joy', 'fear')[n % 2]}/{n}.jpg\n" for n in range(3, 10)))
    prepare = {"root": str(root), "split_lists": {"train": str(tmp_path / "train.txt"), "test": "test.txt"}}
    builder = registry.get_builder_class("emotionroi")
    indexes = builder({"build_info": {"prepare": prepare}}).prepare()
    assert {split: ShardIndex.load(path).num_samples for split, path in indexes.items()} == {"train": 7, "test": 3}
    (root / "test.txt").write_text("joy/0.jpg\n")
    with pytest.raises(DataError, match="have changed since"):
        builder({"build_info": {"prepare": prepare}}).prepare()
