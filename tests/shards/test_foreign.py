"""Webdataset tars made by other tools.

- Tars written by webdataset or by tarfile, with json, cls or txt beside the image, are indexed in place and read like
  our own; our own shards, too, and records keep the content of their JSON.
- Names that webdataset would misread, repeated members, and truncated or compressed tars are refused by name, each case
  of the list; upper-case and unicode names are read.
- Samples that cannot be used are named, or skipped and listed.
- Labels are mapped to their label set; numbers need names.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import tarfile

import pytest
import webdataset
from PIL import Image

from lavis_emovit.errors import DataError
from lavis_emovit.generation.categorical import add_categorical
from lavis_emovit.shards.foreign import Reading, index_tars
from lavis_emovit.shards.index import ShardIndex
from lavis_emovit.shards.reader import ShardReader
from lavis_emovit.shards.tar import scan_tar
from lavis_emovit.shards.verify import verify_shards

READING = Reading("other")
CLASSES = ("amusement", "anger", "awe")


def jpeg(number):
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), (number * 20 % 256, 80, 90)).save(buffer, "JPEG")
    return buffer.getvalue()


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def plain(number, **more):
    """Members of one sample."""
    members = {"jpg": jpeg(number), "cls": str(number % 3).encode(), "txt": f"caption {number}".encode(), **more}
    return [(f"{number:05d}.{suffix}", data) for suffix, data in members.items() if data is not None]


@pytest.fixture
def folder(tmp_path):
    """Two tars of four samples with class numbers and captions."""
    for tar in range(2):
        write_tar(tmp_path / f"train-{tar}.tar", [m for n in range(4) for m in plain(4 * tar + n)])
    return tmp_path


def test_classes_and_captions(folder):
    instruct = lambda record: next(iter(add_categorical([record])))  # noqa: E731
    index = index_tars(folder, Reading("other", label_set="mikels8", classes=CLASSES), instruct=instruct)
    assert [shard.num_samples for shard in index.shards] == [4, 4]
    assert index.label_sets == ("mikels8",)
    assert index.label_histogram == {"amusement": 3, "anger": 3, "awe": 2}
    loaded = ShardIndex.load(folder)
    assert loaded.hash == index.hash
    reader = ShardReader(loaded, max_open=1)
    for number in (7, 0, 3, 4, 1):
        sample = reader.read(number)
        assert sample.image_bytes == jpeg(number)
        assert sample.record.id == f"other/train-{number // 4}/{number:05d}"
        assert sample.record.emotion == CLASSES[number % 3]
        assert sample.record.caption == f"caption {number}"
        assert sample.record.instructions[0].kind == "categorical"
    assert verify_shards(folder).ok
    with pytest.raises(DataError, match=r"index.json: already exists. Pass `--overwrite`"):
        index_tars(folder, READING)


def test_json_of_webdatasets_writer(tmp_path):
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A lamp."}]
    with webdataset.ShardWriter(str(tmp_path / "%03d.tar"), maxcount=3, verbose=0) as writer:
        for number in range(5):
            content = {"feeling": "Anger", "caption": "c", "width": 20, "list": [1], "conversations": turns}
            writer.write({"__key__": f"Ünï/Key{number}", "png": Image.new("RGB", (9, 9)), "json": content})
    index_tars(tmp_path, Reading("wds", split="val", label_set="mikels8", label_key="feeling"))
    record = ShardReader(ShardIndex.load(tmp_path)).read(4).record
    assert (record.id, record.split, record.emotion) == ("wds/001/Ünï/Key4", "val", "anger")
    assert record.extra == {"width": 20}
    assert [(item.question, item.answer) for item in record.instructions] == [("What?", "A lamp.")]


@pytest.mark.parametrize("caption", [["one", "two"], {"en": "one"}, [None]])
def test_a_caption_is_text(tmp_path, caption, caplog):
    with webdataset.ShardWriter(str(tmp_path / "%03d.tar"), verbose=0) as writer:
        for number, value in enumerate((caption, "plain", 7)):
            content = {"caption": value, "label": "awe"}
            writer.write({"__key__": f"{number}", "png": Image.new("RGB", (9, 9)), "json": content})
    reader = ShardReader(index_tars(tmp_path, Reading("wds", label_set="mikels8")))
    assert [reader.read(number).record.caption for number in range(3)] == [None, "plain", "7"]
    assert "no field of a record takes key 'caption' (1)" in caplog.text


def test_our_own_shards_can_be_indexed_again(shards_copy, built):
    shutil.copy(shards_copy / "shard-000000.tar", shards_copy / "mine.tar")
    index = index_tars(shards_copy, READING, pattern="mine.tar", overwrite=True)
    assert index.num_samples == 10
    assert ShardReader(index).read(4).record == ShardReader(built[2]).read(4).record


def cut_in_a_member(path):
    os.truncate(path, scan_tar(path)[7].offset + 100)


def cut_at_a_member_boundary(path):
    os.truncate(path, scan_tar(path)[6].offset - 512)


def zero_bytes(path):
    path.write_bytes(b"")


def compressed(path):
    path.write_bytes(gzip.compress(path.read_bytes()))


def html(path):
    path.write_bytes(b"<html>not found</html>" * 100)


def members(change):
    return lambda path: write_tar(path, change)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        pytest.param(cut_in_a_member, "train-0.tar: .*(truncated|not a readable tar)", id="cut in a member"),
        pytest.param(cut_at_a_member_boundary, "train-0.tar: the tar file is truncated", id="cut at a member boundary"),
        pytest.param(zero_bytes, "train-0.tar: not a readable tar file", id="zero bytes"),
        pytest.param(compressed, "train-0.tar: not a readable tar file .*uncompressed", id="compressed"),
        pytest.param(html, "train-0.tar: not a readable tar file", id="a web page"),
        pytest.param(
            members([(f"img.v1.{number}.jpg", jpeg(number)) for number in range(3)]),
            "key 'img' has several images .img.v1.0.jpg, img.v1.1.jpg.*first dot",
            id="dotted keys",
        ),
        pytest.param(members([*plain(0), *plain(1), *plain(0)]), "key '00000' is in two places", id="apart"),
        pytest.param(members([*plain(0), ("00000.txt", b"x")]), "it contains '00000.txt' twice", id="duplicate member"),
    ],
)
def test_damaged_tars_are_refused(folder, damage, expected):
    damage(folder / "train-0.tar")
    for skip_bad in (False, True):
        with pytest.raises(DataError, match=expected):
            index_tars(folder, Reading("other", classes=CLASSES), skip_bad=skip_bad)
    assert not (folder / "index.json").exists()


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        pytest.param(plain(9, jpg=None), "no picture among its members .00009.cls, 00009.txt", id="no image"),
        pytest.param(plain(9, jpg=b"<html>"), "a web page", id="HTML named .jpg"),
        pytest.param(plain(9, jpg=jpeg(1)[:-99]), "truncated|Truncated", id="truncated image"),
        pytest.param(plain(9, json=b"{"), "00009.json is not JSON", id="broken JSON"),
        pytest.param(plain(9, json=b"[1]"), "00009.json holds list, not an object", id="JSON of another kind"),
        pytest.param(plain(9, cls=b"7"), "number 7, there are 3 names", id="class out of range"),
        pytest.param(plain(9, cls=None, json=b'{"label": -1}'), "number -1, there are 3 names", id="negative"),
        pytest.param(plain(9, cls=b"-2"), "number -2, there are 3 names", id="negative class file"),
        pytest.param(plain(9, json=b'{"label": true}'), "its label is True, neither a name nor a number", id="true"),
        pytest.param(plain(9, json=b'{"cls": false}'), "its label is False, neither a name nor a number", id="false"),
        pytest.param(plain(9, json=b'{"label": 1.5}'), "its label is 1.5, neither a name nor a number", id="fraction"),
        pytest.param(plain(9, txt=b"caf\xe9"), "00009.txt is not UTF-8 text", id="caption in Latin-1"),
        pytest.param(plain(9, cls=b"\xff"), "00009.cls is not UTF-8 text", id="class in no encoding"),
        pytest.param(plain(9, json=b"\xff\xfe1"), "00009.json is not JSON", id="JSON in no encoding"),
        pytest.param(plain(9, json=b"[" * 100_000), "00009.json is not JSON .nested too deeply", id="deep JSON"),
        pytest.param(plain(9, json=b'{"age": NaN}'), "key 'extra.age': must be .*finite number", id="not a number"),
        pytest.param(plain(9, json=b'{"age": 1e400}'), "key 'extra.age': must be .*finite number", id="infinite"),
    ],
)
def test_samples_that_cannot_be_used_are_named_or_skipped(folder, sample, expected):
    write_tar(folder / "train-2.tar", [*plain(8), *sample, *plain(10)])
    reading = Reading("other", classes=CLASSES)
    with pytest.raises(DataError, match=rf"1 samples cannot be used:\n  - train-2.tar, key '00009': .*({expected})"):
        index_tars(folder, reading)
    index = index_tars(folder, reading, skip_bad=True)
    assert index.num_samples == 10
    assert index.build["skipped"][0]["id"] == "train-2.tar, key '00009'"


def test_members_and_keys_that_no_field_takes_are_counted(folder, caplog):
    content = b'{"bbox": [1, 2], "width": 3, "mask": null, "tags": {"a": 1}}'
    extra = [*plain(8, json=content), ("00008.npy", b"x"), ("README", b"x"), (".hidden.txt", b"x")]
    write_tar(folder / "train-2.tar", extra)
    index_tars(folder, Reading("other", classes=CLASSES))
    assert (
        "no field of a record takes members that are hidden or have no suffix (2), key 'bbox' (1), key 'tags' (1), "
        in (caplog.text)
    )
    assert "member '.npy' (1)" in caplog.text and "width" not in caplog.text and "mask" not in caplog.text


def test_odd_names_are_read(folder):
    odd = [("SUB/Ünï Cöde.JPG", jpeg(1)), ("SUB/Ünï Cöde.CLS", b"2"), ("./b.jpeg", jpeg(2)), ("README", b"x")]
    write_tar(folder / "train-1.tar", odd)
    index = index_tars(folder, Reading("other", classes=CLASSES))
    reader = ShardReader(index)
    assert [reader.read(number).record.id for number in (4, 5)] == ["other/train-1/SUB/Ünï Cöde", "other/train-1/b"]
    assert [reader.read(number).record.emotion for number in (4, 5)] == ["awe", None]


@pytest.mark.parametrize(
    ("reading", "expected"),
    [
        (Reading("other"), "its label is the number 0; pass the names"),
        (Reading("other", label_key="mood"), "its JSON has no key 'mood' .it has none"),
        (Reading("other", label_set="ekman6", classes=CLASSES), "unknown emotion 'amusement'"),
    ],
)
def test_labels_need_names_that_fit(folder, reading, expected):
    with pytest.raises(DataError, match=expected):
        index_tars(folder, reading)


def test_a_superscript_is_no_number(folder):
    write_tar(folder / "train-1.tar", plain(9, cls="²".encode()))
    reader = ShardReader(index_tars(folder, Reading("other", classes=CLASSES)))
    assert reader.read(4).record.emotion == "²"
    with pytest.raises(DataError, match="unknown emotion '²'"):
        index_tars(folder, Reading("other", label_set="mikels8"), overwrite=True)


def add_member(path, name, kind, target=""):
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        tar.addfile(info)


def test_hard_links_are_read(folder):
    """GNU tar stores the second of two equal files as a hard link."""
    path = folder / "train-1.tar"
    add_member(path, "00008.jpg", tarfile.LNKTYPE, "00004.jpg")
    add_member(path, "00008.cls", tarfile.LNKTYPE, "00005.cls")
    add_member(path, "00009.jpg", tarfile.LNKTYPE, "00008.jpg")
    reader = ShardReader(index_tars(folder, Reading("other", classes=CLASSES)))
    assert reader.read(8).image_bytes == reader.read(9).image_bytes == jpeg(4)
    assert [reader.read(number).record.emotion for number in (8, 9)] == ["awe", None]
    assert verify_shards(folder).ok


@pytest.mark.parametrize(
    ("kind", "target", "expected"),
    [
        (tarfile.LNKTYPE, "gone.jpg", "a hard link to a file that is not in the tar"),
        (tarfile.SYMTYPE, "00004.jpg", "a symbolic link"),
        (tarfile.FIFOTYPE, "", "a pipe"),
        (tarfile.CHRTYPE, "", "a device"),
    ],
)
def test_members_that_are_no_files_are_refused(folder, kind, target, expected):
    add_member(folder / "train-1.tar", "00008.jpg", kind, target)
    for skip_bad in (False, True):
        with pytest.raises(DataError, match=f"train-1.tar: '00008.jpg' is {expected}.*--hard-dereference"):
            index_tars(folder, Reading("other", classes=CLASSES), skip_bad=skip_bad)


@pytest.mark.parametrize("last", [("d", tarfile.DIRTYPE, ""), ("00008.jpg", tarfile.LNKTYPE, "00004.jpg")])
def test_a_tar_may_end_in_a_folder_or_a_link(folder, last):
    add_member(folder / "train-1.tar", *last)
    assert index_tars(folder, Reading("other", classes=CLASSES)).num_samples in (8, 9)
    os.truncate(folder / "train-1.tar", scan_tar(folder / "train-1.tar")[0].offset + 512)
    with pytest.raises(DataError, match=r"train-1.tar: the tar file is truncated"):
        scan_tar(folder / "train-1.tar")


def test_an_empty_folder_and_duplicate_ids_are_refused(tmp_path, folder):
    with pytest.raises(DataError, match=r"no file matches x\*.tar"):
        index_tars(tmp_path, READING, pattern="x*.tar")
    own = {"id": "same", "image": "a.jpg", "split": "train", "source": "x"}
    for tar in range(2):
        write_tar(folder / f"train-{tar}.tar", [("a.jpg", jpeg(0)), ("a.json", json.dumps(own).encode())])
    with pytest.raises(DataError, match=r"id 'same' is in train-0.tar, key 'a' and in train-1.tar"):
        index_tars(folder, READING)


def test_damage_after_indexing_is_noticed(folder):
    index_tars(folder, Reading("other", classes=CLASSES))
    records = folder / "index.records.jsonl"
    records.write_bytes(records.read_bytes().replace(b"caption 3", b"caption 4"))
    report = verify_shards(folder)
    assert any("index.records.jsonl: changed" in problem for problem in report.problems)
    with pytest.raises(DataError, match="sample 3: its bytes changed"):
        ShardReader(ShardIndex.load(folder)).read(3)
    records.unlink()
    assert any("index.records.jsonl: missing" in problem for problem in verify_shards(folder).problems)
    with pytest.raises(DataError, match=r"index.records.jsonl: the shard cannot be opened"):
        ShardReader(ShardIndex.load(folder)).read(3)


@pytest.mark.parametrize("more", [{"json": b'{"label": 1.0}', "cls": None}, {"cls": b"1.0"}, {"cls": b"1"}])
def test_a_class_number_may_be_a_whole_fraction(folder, more):
    write_tar(folder / "train-1.tar", plain(9, **more))
    reader = ShardReader(index_tars(folder, Reading("other", classes=CLASSES)))
    assert reader.read(4).record.emotion == "anger"


@pytest.mark.parametrize(
    ("name", "advice"),
    [("00009.png", "with one image for each key"), ("00009.left.png", "no other dot"), ("00009.JPEG", "one image")],
)
def test_the_advice_fits_the_second_image(folder, name, advice):
    write_tar(folder / "train-1.tar", [*plain(9), (name, jpeg(9))])
    with pytest.raises(DataError, match=f"key '00009' has several images .*{advice}"):
        index_tars(folder, READING)


def test_files_that_macos_adds_are_ignored(folder):
    (folder / "._train-0.tar").write_bytes(b"\x00\x05\x16\x07")
    assert len(index_tars(folder, Reading("other", classes=CLASSES)).shards) == 2
