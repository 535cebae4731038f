"""What `emovit init` proposes for folders, tables and saved datasets.

- Folders: labels, splits and people are found in the paths, wherever archives put them; what is no image is ignored.
- Tables: image, label, ratings with their scale, votes, splits and people are found by content and name; a rating does
  not make a category of things an emotion.
- Names that a published label set has get this set, others one of their own.
- A proposal is read by the layout that it names, with the expected records; without labels it is refused with advice.
"""

from __future__ import annotations

import json
from collections import Counter

import pytest
from PIL import Image

from lavis_emovit.errors import DataError
from lavis_emovit.sources.layouts import open_dataset
from lavis_emovit.sources.proposals.inspect import check_proposal, propose
from lavis_emovit.sources.proposals.labels import choose_labels
from lavis_emovit.sources.proposals.proposal import split_names


@pytest.fixture
def put(tmp_path):
    """Function (path below the root, number=0) that writes an image, and returns the root."""

    def write(*paths):
        for number, path in enumerate(paths):
            place = tmp_path / "data" / path
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 20), (number * 7 % 256, number * 31 % 256, 50)).save(place)
        return tmp_path / "data"

    return write


def _records(proposal, tmp_path):
    reader = open_dataset(proposal.root, check_proposal(proposal), source="mine", extract_to=tmp_path / "extracted")
    return list(reader.read())


def _labels(records):
    return Counter(record.emotion for record in records)


@pytest.mark.parametrize(
    ("paths", "pattern", "labels", "splits", "groups"),
    [
        (["happy/1.jpg", "sad/a/2.jpg", "sad/3.png"], "{label}/{name*}", {"happy": 1, "sad": 2}, {"train": 3}, 0),
        # A download: a folder around everything, hidden folders and system files.
        (
            ["set v1/images/Calm /1.jpg", "set v1/images/TENSE/2.jpg", "__MACOSX/x/3.jpg", ".cache/4.jpg"],
            "{label}/{name*}", {"calm": 1, "tense": 1}, {"train": 2}, 0,
        ),
        (
            [f"{s}/{e}/{s}{e}.jpg" for s in ("Training", "Validation", "test") for e in ("joy", "sad")],
            "{split}/{label}/{name*}", {"joy": 3, "sad": 3}, {"train": 2, "val": 2, "test": 2}, 0,
        ),
        # Without a test split, val becomes it.
        (
            [f"{s}/{e}/1.jpg" for s in ("train", "valid") for e in ("calm", "wild")],
            "{split}/{label}/{name*}", {"calm": 2, "wild": 2}, {"train": 2, "test": 2}, 0,
        ),
        # A person in both classes, at the start of the names.
        (
            [f"{e}/{p:03}_{e}.jpg" for e in ("neutral", "happy") for p in range(6)],
            "{label}/{group}_{name}", {"neutral": 6, "happy": 6}, {"train": 12}, 6,
        ),
        (
            [f"{e}/p{p}.jpg" for e in ("calm", "wild") for p in range(6)],
            "{label}/{group}", {"calm": 6, "wild": 6}, {"train": 12}, 6,
        ),
        (
            [f"anna{p}/{e}/{i}.jpg" for p in range(5) for e in ("calm", "wild") for i in range(2)],
            "{group}/{label}/{name*}", {"calm": 10, "wild": 10}, {"train": 20}, 5,
        ),
        # Camera names are no people.
        (
            [f"{e}/IMG_{i}{e}.jpg" for e in ("calm", "wild") for i in range(6)],
            "{label}/{name*}", {"calm": 6, "wild": 6}, {"train": 12}, 0,
        ),
        ([f"{e}_{i}.jpg" for e in ("happy", "angry") for i in range(3)], "{label}_{name*}", {"happiness": 3, "anger": 3}
            , {"train": 6}, 0),
        (
            [f"{p:03}_{e}.jpg" for p in range(7) for e in ("neutral", "happy")],
            "{group}_{label}", {"neutral": 7, "happy": 7}, {"train": 14}, 7,
        ),
    ],
)  # fmt: skip
def test_folders(paths, pattern, labels, splits, groups, put, tmp_path):
    proposal = propose(put(*paths), {}, None if "happy_0.jpg" not in paths else "ekman6")
    assert proposal.source == "folder" and proposal.node["pattern"] == pattern
    records = _records(proposal, tmp_path)
    assert _labels(records) == labels
    assert Counter(record.split for record in records) == splits
    assert len({record.group for record in records} - {None}) == groups


def test_other_files_are_counted(put, tmp_path):
    root = put("happy/1.jpg", "sad/2.jpg", "stray.jpg")
    for name in ("Thumbs.db", ".DS_Store", "happy/desktop.ini", "happy/notes.txt", "film.mp4"):
        (root / name).write_bytes(b"x")
    proposal = propose(root, {}, None)
    assert "2 other files are ignored: 1 .mp4, 1 .txt" in proposal.warnings
    assert len(_records(proposal, tmp_path)) == 2


@pytest.mark.parametrize("paths", [["1.jpg", "2.jpg"], ["happy/1.jpg", "happy/2.jpg"], ["train/1.jpg", "test/2.jpg"]])
def test_images_without_labels_are_refused_with_what_is_needed(paths, put):
    with pytest.raises(DataError, match=r"training needs labels\. Put the images into a folder for each label"):
        propose(put(*paths), {}, None)


def test_nothing_to_read(put, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="contains no images and no table"):
        propose(tmp_path / "empty", {}, None)
    with pytest.raises(DataError, match="no such folder or file"):
        propose(tmp_path / "gone", {}, None)


def test_numbers_as_labels_get_names(put, tmp_path):
    root = put("0/a.jpg", "1/b.jpg")
    assert "the labels are numbers" in propose(root, {}, None).warnings[0]
    proposal = propose(root, {"label_names": {"0": "anger", "1": "fear"}}, "mikels8")
    assert _labels(_records(proposal, tmp_path)) == {"anger": 1, "fear": 1}
    with pytest.raises(DataError, match=r"--labels does not have all names[\s\S]*'0' .1 images[\s\S]*'1'"):
        propose(root, {}, "mikels8")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["Amusement", "anger", "AWE", "content", "disgust", "excitement", "fear", "sad"], "mikels8"),
        (["angry", "disgusted", "fear", "happy", "sad", "surprise"], "ekman6"),
        (["anger", "disgust", "fear", "joy", "sadness", "surprise"], "emotion6"),
        (["anger", "disgust", "fear", "happy", "sad", "surprise", "neutral"], "expressions7"),
        (["anger", "contempt", "disgust", "fear", "happy", "sad", "surprise", "neutral"], "expressions8"),
        (["Positive", "negative"], "polarity2"),
        (["happy", "sad"], ["happy", "sad"]),  # two of six
        (["calm", "very_wild "], ["calm", "very wild"]),
        (["yes", "no"], ["no", "yes"]),
    ],
)
def test_label_sets(names, expected):
    choice = choose_labels(dict.fromkeys(names, 5))
    assert choice.setting == expected
    assert {choice.label_set.canonical(name) for name in names} <= set(choice.label_set.labels)


def test_splits_by_their_names():
    assert split_names({"Train": 1, "DEV": 1, " test ": 1}) == {"Train": "train", "DEV": "val", " test ": "test"}
    assert split_names({"Training": 1, "PublicTest": 1, "PrivateTest": 1}) == {
        "Training": "train", "PublicTest": "val", "PrivateTest": "test",
    }  # fmt: skip
    assert split_names({"train": 1, "happy": 1}) is None
    assert split_names({"val": 3}) == {"val": "val"}


def _table(root, name, lines):
    (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root / name


def test_a_table_beside_its_images(put, tmp_path):
    root = put(*[f"photos/{n}.jpg" for n in range(8)], "photos/spare.jpg")
    lines = ["nr;file;mood;person;set;notes"]
    lines += [
        f"{n};{n};{'Calm' if n % 2 else 'wild'};p{n // 2};{'train' if n < 5 else 'test'};{'x' * n}" for n in range(8)
    ]
    _table(root, "moods.csv", [*lines, "9;gone;wild;p4;train;"])
    for path in (root, root / "moods.csv"):
        proposal = propose(path, {}, None)
        assert proposal.node["image"] == "photos/{file}.jpg" and proposal.node["missing"] == "leave_out"
        records = _records(proposal, tmp_path)
        assert _labels(records) == {"calm": 4, "wild": 4}
        assert Counter(record.split for record in records) == {"train": 5, "test": 3}
        assert records[3].group == "p1" and records[3].extra == {"nr": "3", "notes": "xxx"}


def test_ratings_and_their_scale(put, tmp_path):
    root = put(*[f"{n}.jpg" for n in range(6)])
    lines = ["image,category,Valence_mean,Valence_SD,arousal"]
    _table(
        root, "r.csv", lines + [f"{n}.jpg,{'animal' if n % 2 else 'person'},{1.5 + n},0.5,{6 - n}" for n in range(6)]
    )
    proposal = propose(root, {}, None)
    assert proposal.kind == "valence_arousal" and proposal.labels is None
    assert proposal.node["scales"] == {"valence": [1, 7], "arousal": [1, 7]}
    records = _records(proposal, tmp_path)
    assert (records[0].valence, records[0].arousal) == (pytest.approx(-5 / 6), pytest.approx(4 / 6))
    assert records[0].emotion is None and records[0].extra == {"category": "person", "Valence_SD": "0.5"}
    nine = propose(root, {"scales": {"valence": [1, 9], "arousal": [1, 9]}}, None)
    assert _records(nine, tmp_path)[0].valence == pytest.approx(2 * 0.5 / 8 - 1)


@pytest.mark.parametrize(
    ("low", "high", "scale"),
    [
        (-0.9, 0.8, None),
        (0.1, 0.9, [0, 1]),
        (1.2, 4.9, [1, 5]),
        (1.1, 8.3, [1, 9]),
        (0, 9.5, [0, 10]),
        (3, 88, [0, 100]),
    ],
)
def test_scales(low, high, scale, put):
    root = put("0.jpg", "1.jpg")
    _table(root, "r.csv", ["image,valence,arousal", f"0.jpg,{low},{high}", f"1.jpg,{high},{low}"])
    assert propose(root, {}, None).node.get("scales", {}).get("valence") == scale


def test_emoset_as_published(tmp_path):
    from lavis_emovit.sample_set.write import write_sketch

    root = write_sketch(tmp_path / "drawn", images_per_class=10, size_px=48)
    proposal = propose(root, {}, None)
    assert (proposal.source, proposal.kind) == ("emoset", "emotion")
    records = _records(proposal, tmp_path)
    assert len(records) == 80 and {record.split for record in records} == {"train", "val", "test"}
    assert {record.label_set for record in records} == {"mikels8"}


def test_votes(put, tmp_path):
    root = put(*[f"{n}.jpg" for n in range(4)])
    names = ["Amusement", "Anger", "Awe", "Content", "Disgust", "Excitement", "Fear", "Sad"]
    rows = [",".join([f"{n}.jpg", *(str(5 if place == n else 1) for place in range(8))]) for n in range(4)]
    _table(root, "v.csv", [",".join(["picture", *names]), *rows])
    proposal = propose(root, {}, None)
    records = _records(proposal, tmp_path)
    assert [record.emotion for record in records] == ["amusement", "anger", "awe", "contentment"]
    assert records[0].votes["amusement"] == pytest.approx(5 / 12)


def test_several_rows_of_an_image_are_votes(put, tmp_path):
    root = put(*[f"{n}.jpg" for n in range(4)])
    rows = [f"{n}.jpg,{emotion}" for n in range(4) for emotion in ("calm", "calm", "wild" if n else "calm")]
    proposal = propose(_table(root, "v.csv", ["image,emotion", *rows]), {}, None)
    records = _records(proposal, tmp_path)
    assert len(records) == 4 and records[1].votes == {"calm": pytest.approx(2 / 3), "wild": pytest.approx(1 / 3)}


def test_tables_of_splits_as_hugging_face_names_them(put, tmp_path):
    root = put(*[f"{split}/{n}.png" for split in ("train", "validation", "test") for n in range(2)])
    for split in ("train", "validation", "test"):
        lines = [json.dumps({"file_name": f"{n}.png", "label": ("calm", "wild")[n]}) for n in range(2)]
        _table(root / split, "metadata.jsonl", lines)
    records = _records(propose(root, {"id_from": "path"}, None), tmp_path)
    assert Counter((record.split, record.emotion) for record in records) == {
        (split, emotion): 1 for split in ("train", "val", "test") for emotion in ("calm", "wild")
    }


def test_a_saved_dataset(put, tmp_path):
    datasets = pytest.importorskip("datasets")
    images = [Image.new("RGB", (8, 8), (n * 20, 0, 0)) for n in range(6)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["calm", "wild"])})
    part = datasets.Dataset.from_dict({"image": images, "label": [0, 1] * 3}, features=features)
    datasets.DatasetDict({"train": part, "validation": part}).save_to_disk(str(tmp_path / "saved"))
    proposal = propose(tmp_path / "saved", {}, None)
    assert proposal.source == "huggingface"
    records = _records(proposal, tmp_path)
    assert Counter((record.split, record.emotion) for record in records) == {
        (split, emotion): 3 for split in ("train", "val") for emotion in ("calm", "wild")
    }


def test_images_without_a_label_in_a_saved_dataset(tmp_path):
    datasets = pytest.importorskip("datasets")
    images = [Image.new("RGB", (8, 8), (n * 20, 0, 0)) for n in range(6)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    part = datasets.Dataset.from_dict({"image": images, "label": ["calm", None, "wild"] * 2}, features=features)
    part.save_to_disk(str(tmp_path / "saved"))
    proposal = propose(tmp_path / "saved", {}, None)
    assert proposal.labels is not None and proposal.labels.labels == ("calm", "wild")
    assert [record.emotion for record in _records(proposal, tmp_path)] == ["calm", None, "wild"] * 2


def test_parquet_files_of_hugging_face(put, tmp_path):
    """The images are inside, and the names of the classes in the schema."""
    datasets = pytest.importorskip("datasets")
    images = [Image.new("RGB", (8, 8), (n * 20, 0, 0)) for n in range(6)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["calm", "wild"])})
    part = datasets.Dataset.from_dict({"image": images, "label": [0, 1, 1] * 2}, features=features)
    (tmp_path / "hub" / "data").mkdir(parents=True)
    for split in ("train", "test"):
        part.to_parquet(str(tmp_path / "hub" / "data" / f"{split}-00000-of-00001.parquet"))
    records = _records(propose(tmp_path / "hub", {}, None), tmp_path)
    assert Counter((record.split, record.emotion) for record in records) == {
        ("train", "calm"): 2, ("train", "wild"): 4, ("test", "calm"): 2, ("test", "wild"): 4,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "given", "expected"),
    [
        (["image,emotion", "x.jpg,calm", "y.jpg,wild"], {}, "no column names the images below"),
        (["image,size", "0.jpg,17", "1.jpg,18"], {}, "no column has labels, votes, or valence and arousal"),
        (["image,emotion", "0.jpg,calm", "1.jpg,calm"], {"columns": {"emotion": "emotion"}}, "only one label, 'calm'"),
        (["image,emotion", "0.jpg,calm", "1.jpg,wild"], {"columns": {"emotion": "mood"}}, "no column 'mood'"),
        (["image,emotion"], {}, "contains no rows"),
    ],
)
def test_tables_that_cannot_be_used(lines, given, expected, put):
    root = put("0.jpg", "1.jpg")
    with pytest.raises(DataError, match=expected):
        propose(_table(root, "t.csv", lines), given, None)


def test_two_tables_need_a_choice(put):
    root = put("0.jpg", "1.jpg")
    for name in ("first.csv", "second.csv"):
        _table(root, name, ["image,emotion", "0.jpg,calm", "1.jpg,wild"])
    with pytest.raises(DataError, match=r"several tables with images .*first.csv.*second.csv.*; pass one of them"):
        propose(root, {}, None)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"labels": ["calm"], "label_set": "labels:calm, tense"}, "2 have only several labels or votes: set `emotion`"),
        ({"votes": {"calm": 1.0}, "label_set": "labels:calm, tense"}, "2 have only several labels or votes"),
        ({"emotion": "calm"}, "valence and arousal. 2 have an emotion without a label set: set `label_set`."),
        ({"labels": ["calm"]}, "2 have only several labels or votes: set `emotion` and `label_set`."),
        ({"valence": 0.5}, "none of its 2 records has an emotion with its label set, or valence and arousal."),
    ],
)
def test_records_name_what_they_lack(put, fields, expected):
    root = put("1.jpg", "2.jpg")
    rows = ({"id": f"m/{n}", "image": f"{n}.jpg", "split": "train", "source": "m", **fields} for n in (1, 2))
    (root / "r.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError) as caught:
        propose(root / "r.jsonl", {}, None)
    assert expected in str(caught.value)
