"""The dataset card, read by the real library `datasets`.

- Every sample is read with its image, byte for byte, and its whole record, also what only a late sample has: keys, and
  another image format; in memory and as a stream. Without the card the library loses them.
- Folders of one split and of several are read by their names; training ignores the card.
- Tars of other tools, parts, split names that the library refuses and existing files are refused.
"""

from __future__ import annotations

import json

import datasets
import pytest
from PIL import Image

from lavis_emovit.cli.main import main
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord
from lavis_emovit.shards.card import write_card
from lavis_emovit.shards.reader import ShardReader
from lavis_emovit.shards.verify import verify_shards
from lavis_emovit.shards.writer import sample_rank, write_shards


@pytest.fixture
def varied(tmp_path, make_records):
    """(records, their folder): JPEG files with few keys, and, last in the order of the shards, a PNG file with all."""
    records = sorted(make_records(tmp_path, 12), key=lambda record: sample_rank(0, record.id))
    records = [record.model_copy(update={"image": f"{number}.jpg"}) for number, record in enumerate(records)]
    for record in records:
        Image.effect_noise((16, 16), 90).save(tmp_path / record.image)
    Image.effect_noise((16, 16), 90).save(tmp_path / "last.png")
    full = {
        "image": "last.png", "labels": ["awe", "fear"], "votes": {"awe": 0.75, "fear": 0.25}, "caption": "a dark wood",
        "attributes": {"brightness": 0.5, "object": ["tree", "owl"]}, "valence": -0.5, "action_units": {1: 2.0},
        "box": (1, 2, 3, 4.5), "words": ["calm", "moved"],
        "questions": [{"question": "?", "answers": ["a"], "options": ["a", "b"], "categories": {"type": "What"}}],
        "statements": [{"text": "It evokes awe.", "is_correct": True}], "ranking": ["awe", "fear"],
        "utterances": [{"text": "Eerie.", "score": 1.5}], "group": "p",
        "extra": {"page": 7, "night": True, "place": "wood"},
    }  # fmt: skip
    records[-1] = EmotionRecord.model_validate({**json.loads(records[-1].to_json()), **full})
    return records, tmp_path


def _read(rows):
    """Id -> (record, image bytes) of the rows of the library."""
    found = {}
    for row in rows:
        values = {key: value for key, value in row["json"].items() if value is not None}
        (image,) = (row[name]["bytes"] for name in ("jpg", "png") if row[name] is not None)
        found[row["json"]["id"]] = EmotionRecord.model_validate(values), image
    return found


def _undecoded(rows):
    return rows.cast_column("jpg", datasets.Image(decode=False)).cast_column("png", datasets.Image(decode=False))


def test_every_sample_is_read_with_every_key(varied, tmp_path):
    records, root = varied
    index = write_shards(records, root, tmp_path / "shards" / "train", samples_per_shard=7)
    expected = {record.id: (record, (root / record.image).read_bytes()) for record in records}
    tars = str(tmp_path / "shards" / "train" / "*.tar")
    plain = datasets.load_dataset("webdataset", data_files=tars, split="train", cache_dir=tmp_path / "plain")
    assert plain.num_rows == 12 and "png" not in plain.column_names and "caption" not in plain.features["json"]

    assert main(["shards", "card", str(tmp_path / "shards")]) == 0
    folder, cache = str(tmp_path / "shards"), str(tmp_path / "cache")
    assert _read(_undecoded(datasets.load_dataset(folder, split="train", cache_dir=cache))) == expected
    assert _read(_undecoded(datasets.load_dataset(folder, split="train", streaming=True))) == expected
    features = datasets.load_dataset_builder(folder, cache_dir=cache).info.features
    given = datasets.load_dataset("webdataset", data_files=tars, split="train", cache_dir=cache, features=features)
    assert _read(_undecoded(given)) == expected
    assert ShardReader(index).read(11).record == records[-1] and verify_shards(index.folder).ok


def test_splits_are_those_of_the_folders(varied, tmp_path):
    records, root = varied
    for split in ("train", "val"):
        own = [record.model_copy(update={"split": split}) for record in records[: 3 if split == "val" else 12]]
        write_shards(own, root, tmp_path / "all" / split)
        write_shards(own, root, tmp_path / "one" / f"my {split}")
        write_card(tmp_path / "one" / f"my {split}")
    assert verify_shards(tmp_path / "one" / "my val").strays == []
    write_card(tmp_path / "all")
    loaded = datasets.load_dataset(str(tmp_path / "all"), cache_dir=tmp_path / "cache")
    assert {split: part.num_rows for split, part in loaded.items()} == {"train": 12, "val": 3}
    one = datasets.load_dataset(str(tmp_path / "one" / "my val"), cache_dir=tmp_path / "cache")
    assert {split: part.num_rows for split, part in one.items()} == {"val": 3}
    with pytest.raises(DataError, match=r"my train: `datasets` accepts only letters, digits, _ and . in the name"):
        write_card(tmp_path / "one")


def test_what_has_no_card_is_refused(varied, tmp_path):
    records, root = varied
    with pytest.raises(DataError, match=r"no index.json in it or in its folders. Shards are complete"):
        write_card(tmp_path)
    write_shards(records, root, tmp_path / "parts", part=(1, 2))
    with pytest.raises(DataError, match="a part of a set; join the parts with `emovit shards merge` first"):
        write_card(tmp_path / "parts")
    index = write_shards(records, root, tmp_path / "done")
    write_card(tmp_path / "done")
    with pytest.raises(DataError, match=r"README.md: already exists; pass `--overwrite` to replace it"):
        write_card(tmp_path / "done")
    write_card(tmp_path / "done", overwrite=True)
    (index.folder / "index.json").unlink()
    assert main(["shards", "index", str(index.folder), "--source", "other"]) == 0
    with pytest.raises(DataError, match="its tars were made by another tool"):
        write_card(tmp_path / "done", overwrite=True)
