"""Records counted and checked with their images, and new splits.

- Counts agree with a hand count: splits, labels (each label of a record counts), label pairs, ratings, units.
- Missing, empty, truncated and fake images are faults; CMYK, 16-bit, animated, rotated and misnamed ones are odd.
- The same bytes, and a scaled or recompressed image, are found within a split, as a leak between splits, and as a leak
  between files; different images, and images of one tone, are not. Several records of one image are allowed.
- The bands find every pair of hashes that a comparison of all pairs finds.
- A stratified split gives each split its share of every label, divides no group, and depends only on groups and seed.
- The three real sets go from their tables to shards and back without a difference.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import unicodedata
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from lavis_emovit.chat.request import image_of
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord, read_records, write_records
from lavis_emovit.shards.images import BadImageError, check_image
from lavis_emovit.shards.reader import ShardReader
from lavis_emovit.shards.verify import verify_shards
from lavis_emovit.shards.writer import write_shards
from lavis_emovit.sources import checks
from lavis_emovit.sources.catalogue import find_entry
from lavis_emovit.sources.checks import CheckedFile, check_file, check_records, near_hashes, open_thumbnail
from lavis_emovit.sources.layouts import open_dataset
from lavis_emovit.sources.splits import split_by_group
from lavis_emovit.sources.statistics import count_records

SHARED = Path(os.environ.get("EMOVIT_SHARED", "../shared")) / "data"


def _record(name: str, split: str = "train", emotion: str | None = None, **fields) -> EmotionRecord:
    values = {"image": f"{name}.png", "label_set": "mikels8" if emotion else None, **fields}
    return EmotionRecord(id=f"s/{name}", split=split, source="s", emotion=emotion, **values)


def _scene(number: int, side: int = 96) -> Image.Image:
    """An image with a unique structure."""
    rng = random.Random(number)
    image = Image.new("RGB", (side, side), tuple(rng.randrange(256) for _ in range(3)))
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = rng.randrange(side), rng.randrange(side)
        colour = tuple(rng.randrange(256) for _ in range(3))
        pen.ellipse([x, y, x + rng.randrange(8, 50), y + rng.randrange(8, 50)], fill=colour)
    return image


def test_counts_agree_with_a_hand_count():
    counted = count_records([
        _record("a", emotion="awe", valence=0.5, group="p", action_units={1: 0.0, 12: 2.0}),
        _record("b", emotion="awe", votes={"awe": 0.5, "fear": 0.5}, valence=-0.5),
        _record("c", "test", emotion="fear", image="a.png"),
        _record("d", "test", labels=["anger", "awe", "fear"], label_set="mikels8", box=(0, 0, 1, 1)),
        _record("e", "test"),
    ])  # fmt: skip
    assert counted.num_records == 5 and counted.images == {"a.png", "b.png", "d.png", "e.png"}
    assert counted.splits == {"train": 2, "test": 3}
    assert counted.labels == {"train": {"awe": 2}, "test": {"fear": 2, "anger": 1, "awe": 1, "no label": 1}}
    assert counted.together == {("awe", "fear"): 2, ("anger", "awe"): 1, ("anger", "fear"): 1}
    assert counted.imbalance() == 3.0
    assert "sadness" in counted.absent() and "awe" not in counted.absent()
    assert counted.ratings == {"valence": [0.5, -0.5]}
    assert counted.action_units == {1: [1, 0], 12: [1, 1]}
    assert counted.groups == {"train": {"p"}} and counted.num_boxes == 1 and counted.num_votes == 1
    plain = counted.to_dict()
    assert plain["ratings"]["valence"] == {"count": 2, "mean": 0.0, "std": 0.5, "min": -0.5, "max": 0.5}
    assert plain["labels_together"]["awe + fear"] == 2


def _save_odd_images(root: Path) -> dict[str, str]:
    """File name -> the expected oddity, or, after '!', the expected fault."""
    _scene(1).convert("CMYK").save(root / "cmyk.jpg")
    Image.fromarray((numpy.arange(4096).reshape(64, 64) * 16).astype("uint16")).save(root / "deep.png")
    frames = [_scene(n).convert("P") for n in (1, 2, 3)]
    frames[0].save(root / "moving.gif", save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif[0x0112] = 6
    _scene(4).save(root / "turned.jpg", exif=exif)
    _scene(5).save(root / "misnamed.png", "JPEG")
    _scene(6).convert("RGBA").save(root / "clear.png")
    Image.new("RGB", (1, 1)).save(root / "dot.png")
    _scene(7).save(root / "cut.jpg")
    (root / "cut.jpg").write_bytes((root / "cut.jpg").read_bytes()[:-600])
    (root / "empty.png").write_bytes(b"")
    (root / "page.jpg").write_bytes(b"<html>Sign in</html>")
    (root / "noise.jpg").write_bytes(bytes(range(256)))
    return {
        "cmyk.jpg": "CMYK", "deep.png": "16-bit", "moving.gif": "animated", "turned.jpg": "turned by EXIF",
        "misnamed.png": "JPEG called .png", "clear.png": "transparent", "dot.png": "smaller than 16 px",
        "cut.jpg": "!truncated", "empty.png": "!the file is empty", "page.jpg": "!a web page or XML text",
        "noise.jpg": "!not an image of a known format", "gone.jpg": "!missing",
    }  # fmt: skip


def test_broken_and_odd_images(tmp_path):
    for name, expected in _save_odd_images(tmp_path).items():
        facts = check_file(str(tmp_path / name))
        if expected.startswith("!"):
            assert expected[1:] in (facts.fault or ""), (name, facts)
        else:
            assert facts.fault is None and facts.odd == (expected,), (name, facts)
    # Images of 16 bits, and of fractions, keep their tones.
    steps = numpy.linspace(0, 1, 4096).reshape(64, 64)
    Image.fromarray(steps.astype("float32")).save(tmp_path / "fractions.tif")
    Image.fromarray((steps * 65535).astype("int32")).save(tmp_path / "wide.tif")
    for name in ("deep.png", "fractions.tif", "wide.tif"):
        shown = numpy.asarray(open_thumbnail(tmp_path / name, 64))
        assert shown.shape == (64, 64, 3)
        assert shown[0, 0, 0] <= 1 and shown[-1, -1, 0] >= 254 and 110 < shown.mean() < 145, name
    # An image that a viewer rotates is rotated for the hash too.
    upright = _scene(4).rotate(270, expand=True)
    upright.save(tmp_path / "upright.png")
    turned, straight = check_file(str(tmp_path / "turned.jpg")), check_file(str(tmp_path / "upright.png"))
    assert (turned.phash ^ straight.phash).bit_count() <= 4


@pytest.fixture
def duplicated(tmp_path) -> Path:
    """Different images a to d; `a2` has a's bytes, `b2` is a scaled b, `c2` is a recompressed c."""
    for number, name in enumerate("abcd"):
        _scene(number + 20, 192).save(tmp_path / f"{name}.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "a2.png")
    Image.open(tmp_path / "b.png").resize((96, 96)).save(tmp_path / "b2.png")
    Image.open(tmp_path / "c.png").save(tmp_path / "c2.jpg", quality=60)
    Image.new("RGB", (64, 64), (250, 250, 250)).save(tmp_path / "white.png")
    Image.new("RGB", (64, 64), (10, 10, 10)).save(tmp_path / "black.png")
    return tmp_path


def test_duplicates_within_a_split_between_splits_and_between_files(duplicated):
    names = ["a", "b", "c", "d", "white", "black"]
    first = [_record(name, emotion="awe") for name in names]
    within = [*first, _record("a2", emotion="fear"), _record("b2"), _record("c2", image="c2.jpg")]
    report = check_records([CheckedFile("one", within, duplicated)])
    assert report.exact == ["s/a (train) and s/a2 (train) have the same bytes"]
    assert report.conflicts == ["s/a (train) is awe; s/a2 (train) is fear"]
    assert sorted(line.partition(" look")[0] for line in report.near) == [
        "s/b (train) and s/b2 (train)",
        "s/c (train) and s/c2 (train)",
    ]
    assert report.leaks == report.faults == []

    across = [r.model_copy(update={"split": "test"}) if "2" in r.id else r for r in within]
    report = check_records([CheckedFile("one", across, duplicated)])
    assert len(report.leaks) == 3 and report.exact == report.near == []
    assert "s/a (train) and s/a2 (test) have the same bytes" in report.leaks

    (duplicated / "other").mkdir()
    shutil.copy(duplicated / "d.png", duplicated / "other" / "x.png")
    Image.open(duplicated / "a.png").save(duplicated / "other" / "y.png", compress_level=0)
    other = [_record("x"), _record("y")]
    report = check_records(
        [CheckedFile("one", first, duplicated), CheckedFile("two", other, duplicated / "other")], num_workers=1
    )
    assert "s/d (train) of one and s/x (train) of two have the same bytes" in report.leaks
    assert any(line.startswith("s/a (train) of one and s/y (train) of two look alike (0") for line in report.leaks)
    assert report.num_findings == 2
    assert check_records([CheckedFile("one", within, duplicated)], near_bits=None).near == []


def test_people_in_one_image_and_groups_in_two_splits(duplicated):
    people = [_record("a"), _record("a").model_copy(update={"id": "s/a#1"})]
    assert check_records([CheckedFile("one", people, duplicated)]).num_findings == 0
    groups = [_record("a", group="p"), _record("b", "test", group="p"), _record("c", "test", group="q")]
    report = check_records([CheckedFile("one", groups, duplicated)])
    assert report.leaks == ["group 'p' of one is in the splits test, train"]


@pytest.mark.parametrize("name", ["José", "각", "Åsa"])
def test_a_group_in_two_forms_of_unicode_is_a_leak(duplicated, name):
    one, other = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    groups = [_record("a", group=one), _record("b", "test", group=other), _record("c", "test", group="q")]
    report = check_records([CheckedFile("one", groups, duplicated)])
    assert report.leaks == [f"group '{one}' of one is in the splits test, train"]
    assert {split: len(names) for split, names in count_records(groups).groups.items()} == {"train": 1, "test": 2}


def test_records_of_one_image_and_box_agree(duplicated):
    def conflicts(*fields):
        records = [_record("a", **values).model_copy(update={"id": f"s/{n}"}) for n, values in enumerate(fields)]
        return check_records([CheckedFile("one", records, duplicated)]).conflicts

    awe, fear, box = {"emotion": "awe"}, {"emotion": "fear"}, {"box": (1, 1, 50, 50)}
    assert conflicts(awe, fear, awe) == ["s/0 (train) is awe; s/1 (train) is fear"]
    assert conflicts(awe | box, fear | box) == ["s/0 (train) is awe; s/1 (train) is fear"]
    many = {"label_set": "mikels8", "box": (1, 1, 50, 50)}
    assert conflicts({"labels": ["awe", "fear"], **many}, {"labels": ["fear"], **many}) == [
        "s/0 (train) is awe, fear; s/1 (train) is fear"
    ]
    # Other people, the same labels, no label, another label set.
    assert conflicts(awe | box, fear | {"box": (60, 1, 90, 50)}) == conflicts(awe, awe, {}) == []
    assert conflicts(awe, {"emotion": "positive", "label_set": "polarity2"}) == []


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 40, 20), None),
        ((-1, -0.5, 40.9, 21), None),
        ((39, 19, 40, 20), None),
        ((-1.5, 0, 40, 20), "(-1.5, 0, 40, 20) reaches outside the image of 40 x 20 pixels"),
        ((0, 0, 20, 40), "(0, 0, 20, 40) reaches outside the image of 40 x 20 pixels"),
        ((500, 500, 600, 600), "(500, 500, 600, 600) reaches outside the image of 40 x 20 pixels"),
        ((0.25, 0.1, 0.75, 0.9), "(0.25, 0.1, 0.75, 0.9) looks like fractions of the image, but boxes are in pixels"),
        ((0, 0, 1, 1), "(0, 0, 1, 1) looks like fractions of the image, but boxes are in pixels"),
        ((5, 5, 5.5, 15), "(5, 5, 5.5, 15) is smaller than a pixel"),
    ],
)
def test_boxes_that_do_not_fit_are_named(tmp_path, box, expected):
    _scene(1).resize((40, 20)).save(tmp_path / "a.png")
    report = check_records([CheckedFile("one", [_record("a", box=box)], tmp_path)])
    assert report.boxes == ([f"s/a (train): its box {expected}"] if expected else [])
    assert report.num_findings == len(report.boxes)


def test_boxes_are_in_pixels_of_the_displayed_image(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    # The decoder reduces a file of this size.
    _scene(2).resize((400, 800)).save(tmp_path / "a.jpg", exif=turned)
    boxes = {"wide": (0, 0, 800, 400), "high": (0, 0, 400, 800)}
    records = [_record(name, image="a.jpg", box=box) for name, box in boxes.items()]
    (fault,) = check_records([CheckedFile("one", records, tmp_path)]).boxes
    assert fault == "s/high (train): its box (0, 0, 400, 800) reaches outside the image of 800 x 400 pixels"


def test_processes_find_the_same(duplicated):
    records = []
    for number in range(70):
        _scene(100 + number // 2).save(duplicated / f"n{number}.png")
        records.append(_record(f"n{number}", ("train", "test")[number % 2]))
    seen = []
    alone = check_records([CheckedFile("one", records, duplicated)], progress=lambda *done: seen.append(done))
    together = check_records([CheckedFile("one", records, duplicated)], num_workers=2)
    assert alone == together and len(alone.leaks) == 35 and seen[-1] == (70, 70)


@hypothesis_settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(0, 6))
def test_bands_find_every_near_pair(seed, near_bits):
    rng = random.Random(seed)
    centres = [rng.getrandbits(64) for _ in range(4)]
    hashes = set()
    for _ in range(40):
        value = rng.choice(centres)
        for _ in range(rng.randrange(8)):
            value ^= 1 << rng.randrange(64)
        hashes.add(value)
    expected = {pair for pair in combinations(sorted(hashes), 2) if (pair[0] ^ pair[1]).bit_count() <= near_bits}
    assert near_hashes(hashes, near_bits) == expected


@hypothesis_settings(max_examples=30)
@given(st.integers(0, 2**32))
def test_stratified_splits(seed):
    rng = random.Random(seed)
    records = []
    for group in range(60):
        for number in range(rng.choice((1, 1, 2, 4))):
            label = rng.choices(("awe", "fear", "sadness"), (6, 3, 1))[0]
            records.append(_record(f"{group}_{number}", emotion=label, group=f"g{group}"))
    shares = {"train": 0.6, "val": 0.15, "test": 0.25}
    done = split_by_group(records, shares, seed, stratify=True)
    assert [record.id for record in done] == [record.id for record in records]
    of_group: dict[str, set[str]] = {}
    for record in done:
        of_group.setdefault(record.group, set()).add(record.split)
    assert all(len(splits) == 1 for splits in of_group.values())
    totals = Counter(record.emotion for record in records)
    found = Counter((record.split, record.emotion) for record in done)
    for split, share in shares.items():
        for label, count in totals.items():
            # Groups are not divided, so a split may miss its share by two groups of up to four.
            assert abs(found[split, label] - share * count) <= 8, (split, label, found, totals)
        assert abs(sum(found[split, label] for label in totals) - share * len(records)) <= 8
    shuffled = rng.sample(records, len(records))
    again = {record.id: record.split for record in split_by_group(shuffled, shares, seed, stratify=True)}
    assert again == {record.id: record.split for record in done}


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5])
def test_single_records_are_divided_exactly(share):
    """Of 8 labels with 5 records each, and of one with 330, each split has its share of every label and of all."""
    labels = [f"l{number}" for number in range(8) for _ in range(5)] + ["many"] * 330
    records = [_record(str(n), labels=[label], label_set="x") for n, label in enumerate(labels)]
    done = split_by_group(records, {"train": 1 - share, "test": share}, 4, stratify=True)
    test = Counter(record.labels[0] for record in done if record.split == "test")
    assert abs(sum(test.values()) - share * 370) <= 1
    assert abs(test["many"] - share * 330) <= 2
    assert all(abs(test[label] - share * 5) <= 1 for label in set(labels) - {"many"})


def test_a_stratified_split_leaves_no_split_empty():
    records = [_record(str(number), emotion="awe") for number in range(3)]
    done = split_by_group(records, {"train": 0.98, "val": 0.01, "test": 0.01}, 0, stratify=True)
    assert Counter(record.split for record in done) == {"train": 1, "val": 1, "test": 1}
    with pytest.raises(DataError, match="3 groups are too few"):
        split_by_group(records, {"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25}, 0, stratify=True)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared datasets are not available")
@pytest.mark.parametrize(("name", "total"), [("london_faces", 204), ("oasis", 610), ("bass", 502)])
def test_real_sets_to_shards_and_back(name, total, tmp_path):
    entry = find_entry(name)
    records = list(open_dataset(SHARED / name, entry.layout, source=name).read())
    assert len(records) == total
    write_records(tmp_path / "records.jsonl", records)
    back = list(read_records(tmp_path / "records.jsonl"))
    assert back == records
    report = check_records([CheckedFile(name, back, SHARED / name)])
    assert report.num_images == total
    assert report.faults == report.exact == report.leaks == report.conflicts == []
    # Two silhouettes of BASS are nearly the same.
    assert [line.partition(" look")[0] for line in report.near] == (
        ["bass/tennis2 (train) and bass/badminton (train)"] if name == "bass" else []
    )
    index = write_shards(back, SHARED / name, tmp_path / "train", samples_per_shard=200)
    assert verify_shards(index.folder).ok
    reader = ShardReader(index)
    stored = {sample.record.id: sample for sample in map(reader.read, range(len(reader)))}
    assert len(stored) == total
    for record in records:
        assert stored[record.id].record == record
        assert stored[record.id].image_bytes == (SHARED / name / record.image).read_bytes()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_or_a_device_is_no_image(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/null")
    for name in ("pipe.jpg", "device.jpg"):
        assert check_file(str(tmp_path / name)).fault == "cannot be read (not a regular file)"
        with pytest.raises(DataError, match="not a regular file"):
            open_thumbnail(tmp_path / name, 16)
        with pytest.raises(DataError, match="not a regular file"):
            image_of(tmp_path / name)
        record = EmotionRecord(id="a", image=name, split="train", source="a")
        with pytest.raises(DataError, match=r"1 of 1 images cannot be used.*\n.*cannot be read .not a regular file."):
            write_shards([record], tmp_path, tmp_path / "out")


def test_images_that_shards_refuse_are_faults(tmp_path):
    Image.fromarray(numpy.full((64, 64), 0.5, numpy.float32)).save(tmp_path / "float.tif")
    _scene(1).save(tmp_path / "a.ppm")
    (tmp_path / "a.ppm").rename(tmp_path / "ppm.png")
    _scene(2).convert("L").save(tmp_path / "a.tga")
    (tmp_path / "a.tga").rename(tmp_path / "tga.jpg")
    _scene(3).save(tmp_path / "sum.png")
    data = (tmp_path / "sum.png").read_bytes()
    (tmp_path / "sum.png").write_bytes(data[:-14] + bytes([data[-14] ^ 255]) + data[-13:])  # a checksum of the pixels
    reasons = {"float.tif": "floating-point", "ppm.png": "format PPM", "tga.jpg": "format TGA", "sum.png": "broken PNG"}
    for name, reason in reasons.items():
        fault = check_file(str(tmp_path / name)).fault
        assert fault is not None and fault.startswith(reason)
        with pytest.raises(BadImageError, match=re.escape(fault)):
            check_image((tmp_path / name).read_bytes())


def test_a_thumbnail_names_the_reason(tmp_path):
    for name, data, reason in (
        ("a.jpg", b"noise", "not an image of a known format"),
        ("b.jpg", b"<html>", "a web page or XML text, not an image"),
        ("c.jpg", None, "No such file or directory"),
    ):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=rf"{name}: the image cannot be read \(.*{reason}") as caught:
            open_thumbnail(tmp_path / name, 64)
        assert "BytesIO" not in str(caught.value)


def test_a_killed_process_that_reads_images_is_an_error(monkeypatch):
    monkeypatch.setattr(checks, "check_file", signal.raise_signal)
    with pytest.raises(DataError, match="was killed"):
        checks.check_files([signal.SIGKILL] * 1000, 2, lambda done, count: None)
