"""Writing shards.

- Every sample is in exactly one shard, with its image's bytes unchanged, and `webdataset` streams them all.
- The same input gives the same bytes, in any order; another seed gives another order.
- Keys are plain and unique for any ids: dots, capitals, spaces, unicode, great length.
- Bad images are all counted and named; strict building leaves no index, `skip_bad` skips them and lists them.
- Finished shards are replaced only on request; other files are never touched.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil

import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord, parse_record
from lavis_emovit.shards import writer
from lavis_emovit.shards.index import ShardIndex
from lavis_emovit.shards.reader import ShardReader
from lavis_emovit.shards.writer import sample_key, write_shards


def test_webdataset_streams_every_sample(built):
    records, root, index = built
    urls = [str(index.folder / shard.name) for shard in index.shards]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
    assert len(samples) == len(records) == index.num_samples
    by_id = {record.id: record for record in records}
    for sample in samples:
        record = parse_record(sample["json"], "stream")
        assert by_id.pop(record.id) == record
        suffix = record.image.rpartition(".")[2]
        assert sample[suffix] == (root / record.image).read_bytes()
        assert sample["__key__"] == record.id
    assert not by_id
    decoded = next(iter(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode("pil")))
    assert decoded["json"]["source"] == "tiny"


def test_the_index_describes_the_shards(built):
    records, _, index = built
    assert [shard.num_samples for shard in index.shards] == [10, 10, 3]
    assert index.num_pairs == sum(len(record.instructions) for record in records)
    assert sum(index.label_histogram.values()) == 23
    assert index.label_histogram["anger"] == sum(record.emotion == "anger" for record in records)
    assert index.label_sets == ("mikels8",)
    reader = ShardReader(index)
    for sample in range(23):
        record = reader.read(sample).record
        pairs = slice(*index.pair_starts[sample : sample + 2])
        lengths = [len(item.question) + len(item.answer) for item in record.instructions]
        assert list(index.columns["pair_chars"][pairs]) == lengths
        kinds = [index.kinds[number] for number in index.columns["pair_kind"][pairs]]
        assert kinds == [item.kind for item in record.instructions]


def test_same_input_same_bytes(built, tmp_path):
    records, root, index = built
    again = write_shards(records[::-1], root, tmp_path / "again", samples_per_shard=10)
    assert again.hash == index.hash
    for name in [shard.name for shard in index.shards] + ["index.json", "index.safetensors"]:
        assert (tmp_path / "again" / name).read_bytes() == (index.folder / name).read_bytes()
    other = write_shards(records, root, tmp_path / "other", samples_per_shard=10, seed=1)
    assert other.hash != index.hash
    first = [ShardReader(item).read(0).record.id for item in (index, other)]
    assert first[0] != first[1]


def test_sorted_input_is_shuffled(built):
    index = built[2]
    reader = ShardReader(index)
    labels = [reader.read(sample).record.emotion for sample in range(23)]
    changes = sum(a != b for a, b in itertools.pairwise(labels))
    assert changes > 2 * (len(set(labels)) - 1)


@given(st.lists(st.text(min_size=1, max_size=150), min_size=2, max_size=6, unique=True))
def test_keys_are_plain_and_unique(ids):
    keys = [sample_key(record_id) for record_id in ids]
    assert len(set(keys)) == len(ids)
    for key in keys:
        assert re.fullmatch(r"[a-z0-9_/-]{1,90}", key)


def test_plain_ids_are_their_own_keys():
    assert sample_key("emoset/awe_06628") == "emoset/awe_06628"
    assert re.fullmatch(r"emoset/awe_06628_v2-[0-9a-f]{12}", sample_key("emoset/awe_06628.v2"))
    assert sample_key("a/B") != sample_key("a/b")


def test_odd_ids_and_names_survive(tmp_path, make_records):
    root = tmp_path / "images"
    base = make_records(root, 4)
    names = ["Ünïcode näme.v1.jpg", "UPPER.JPG", "dots.in.name.jpg", "html.png"]
    records = []
    for record, name in zip(base, names):
        (root / record.image).rename(root / name)
        records.append(record.model_copy(update={"id": f"odd/{name}", "image": name}))
    index = write_shards(records, root, tmp_path / "out")
    urls = [str(index.folder / shard.name) for shard in index.shards]
    streamed = [json.loads(item["json"])["id"] for item in webdataset.WebDataset(urls, shardshuffle=False)]
    assert sorted(streamed) == sorted(record.id for record in records)
    # The suffix in the shard is the true format, whatever the name of the file.
    assert sorted(key for item in webdataset.WebDataset(urls, shardshuffle=False) for key in item if key == "png") == []


def _spoil(root, records):
    (root / records[0].image).write_bytes(b"")
    (root / records[1].image).write_bytes(b"<!DOCTYPE html><html>not found</html>")
    (root / records[2].image).unlink()
    data = (root / records[3].image).read_bytes()
    (root / records[3].image).write_bytes(data[: len(data) // 2])


def test_bad_images_refuse_the_build(tmp_path, make_records, monkeypatch):
    monkeypatch.setattr(writer, "_MAX_REPORTED", 3)
    root, out = tmp_path / "images", tmp_path / "out"
    records = make_records(root, 12, size_px=64)
    _spoil(root, records)
    with pytest.raises(DataError) as caught:
        write_shards(records, root, out, samples_per_shard=2)
    text = str(caught.value)
    assert "4 of 12 images cannot be used" in text
    assert "... and 1 more" in text
    assert "--skip-bad" in text
    with pytest.raises(DataError, match="no shard index"):
        ShardIndex.load(out)
    # After the repair, the same build resumes and leaves nothing but the set.
    for record in records[:4]:
        shutil.copy(root / records[5].image, root / record.image)
    index = write_shards(records, root, out, samples_per_shard=2)
    assert index.num_samples == 12
    assert {path.name for path in out.iterdir()} == {"index.json", "index.safetensors", *(s.name for s in index.shards)}


def test_bad_images_are_skipped_on_request(tmp_path, make_records):
    root = tmp_path / "images"
    records = make_records(root, 12, size_px=64)
    _spoil(root, records)
    index = write_shards(records, root, tmp_path / "out", samples_per_shard=3, skip_bad=True)
    assert index.num_samples == 8
    skipped = {item["id"]: item["reason"] for item in index.build["skipped"]}
    assert set(skipped) == {record.id for record in records[:4]}
    assert "the file is empty" in skipped[records[0].id]
    assert "web page" in skipped[records[1].id]
    assert "cannot be read" in skipped[records[2].id]
    assert "Truncated" in skipped[records[3].id]
    assert ShardIndex.load(tmp_path / "out").build == index.build


@pytest.mark.parametrize("names", [["a/1", "a/1"], []])
def test_no_records_or_ids_that_repeat_are_refused(tmp_path, make_records, names):
    base = make_records(tmp_path, 1)[0]
    with pytest.raises(DataError, match=r"ids must be unique|no records to write"):
        write_shards([base.model_copy(update={"id": name}) for name in names], tmp_path, tmp_path / "out")
    assert not (tmp_path / "out" / "index.json").exists()


def test_a_set_of_only_bad_images_is_refused(tmp_path):
    record = EmotionRecord(id="a/1", image="gone.jpg", split="train", source="a")
    with pytest.raises(DataError, match="none of the 1 images can be used"):
        write_shards([record], tmp_path, tmp_path / "out", skip_bad=True)


def test_finished_shards_are_replaced_only_on_request(built, tmp_path):
    records, root, _ = built
    out = tmp_path / "out"
    first = write_shards(records[:5], root, out, samples_per_shard=2)
    with pytest.raises(DataError, match=r"already contains finished shards.*--overwrite"):
        write_shards(records, root, out)
    assert ShardIndex.load(out).hash == first.hash
    second = write_shards(records[:4], root, out, samples_per_shard=2, overwrite=True)
    assert ShardIndex.load(out).hash == second.hash
    assert len(list(out.glob("*.tar"))) == 2


def test_progress_counts_to_the_end(built, tmp_path):
    records, root, _ = built
    seen = []
    write_shards(records, root, tmp_path / "out", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(number, 23) for number in range(1, 24)]
