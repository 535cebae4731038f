"""Every dataset of the catalogue, from its published layout to records and through its LAVIS builder.

- Every dataset declared by a YAML has a tiny copy in its published layout and is read from it with the expected number
  of records and the expected fields of one record, and every row is accounted for; no id repeats, no label is outside
  its set.
- An import writes nothing into the folder of the dataset.
- Every dataset states where to get it, its licence and whether its layout was verified with a real copy, and a copy of
  another size differs from the published counts.
- LAVIS has a builder for it by name, which builds shards of all splits from the copy; people are in one split only.
- If a dataset is published in several layouts, the present one is read.
- A custom dataset is one YAML file: read by its path, or registered in LAVIS from a folder. All its keys are checked
  before an import, and they are the same as those of its builder.
- A layout is one file: every reader module defines one layout, which nothing else names, and a new module is enough.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy
import pytest
import yaml
from lavis.common.registry import registry
from PIL import Image

from lavis_emovit.cli.main import main
from lavis_emovit.datasets.builders.declared import register_declared
from lavis_emovit.datasets.settings import BuildInfoSettings, DatasetSettings, PrepareSettings
from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings
from lavis_emovit.records import read_records
from lavis_emovit.shards.index import ShardIndex
from lavis_emovit.shards.reader import ShardReader
from lavis_emovit.sources import readers
from lavis_emovit.sources.base import LAYOUTS, Notes, Reader
from lavis_emovit.sources.catalogue import (
    DeclaredBuildInfo,
    DeclaredDataset,
    DeclaredPreparation,
    all_entries,
    dataset_files,
    find_entry,
)
from lavis_emovit.sources.layouts import LayoutSettings, open_dataset
from lavis_emovit.sources.statistics import PublishedCounts, compare_counts

NAMES = list(all_entries()[0])
# Ratings, action units, several labels or captions, but not a single emotion for a question.
WITHOUT_QUESTIONS = ("oasis", "bass", "emotic", "disfa", "bp4d", "oxford_hic")
# Benchmarks without a training split, or with answers in words: their other splits have no label of an emotion.
WITHOUT_LABELS: dict[str, set[str]] = {
    "pope": set(), "mme": set(), "scienceqa": set(), "vqav2": set(),
    "mvei": set(), "eemo_bench": set(), "eemo_bench_pair": set(), "faba_emotion": {"train"}, "faba_au": {"train"},
}  # fmt: skip


def _read(name, root, tmp_path, **changes):
    entry = find_entry(name)
    layout = entry.layout.model_copy(update=changes)
    notes = Notes()
    reader = open_dataset(root, layout, source=name, notes=notes, extract_to=tmp_path / "extracted")
    return list(reader.read()), reader.image_root, notes


def _fields(record):
    return json.loads(record.model_dump_json())


def test_every_dataset_has_a_copy(draw_published):
    assert set(NAMES) == set(draw_published)
    assert len(NAMES) == 49


@pytest.mark.parametrize("name", NAMES)
def test_is_read_as_published(name, draw_published, tmp_path):
    expected = draw_published[name](tmp_path / "set")
    records, image_root, notes = _read(name, tmp_path / "set", tmp_path)
    assert len(records) == expected.total
    assert notes.num_rows == len(records) + notes.skipped.total() + notes.num_joined > 0
    assert len({record.id for record in records}) == len(records)
    for record in records:
        assert record.source == name
        assert (image_root / record.image).is_file()
        if record.emotion is not None:
            assert record.emotion in get_label_set(record.label_set).labels
    fields = _fields(next(record for record in records if record.id == expected.record_id))
    for key, value in expected.fields.items():
        if key == "utterances":
            given = [{k: v for k, v in item.items() if v is not None} for item in fields[key]]
            assert given == value
        elif key == "action_units":
            assert {int(k): v for k, v in fields[key].items()} == value
        elif key == "extra":
            assert fields[key].items() >= value.items()
        else:
            assert fields[key] == value, key


@pytest.mark.parametrize("name", NAMES)
def test_an_import_writes_nothing_into_the_folder(name, draw_published, tmp_path):
    root = tmp_path / "set"
    draw_published[name](root)
    before = {path: path.stat() for path in root.rglob("*")}
    assert main(["data", "import", name, str(root), "--out", str(tmp_path / "out" / "records.jsonl")]) == 0
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == {
        path: status.st_mtime_ns for path, status in before.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_states_source_licence_and_counts(name, draw_published, tmp_path):
    about = find_entry(name).about
    assert "http" in about.where_to_get and about.licence
    assert about.layout_status == ("verified" if name in ("london_faces", "oasis", "bass") else "documented")
    published = about.published
    if published != PublishedCounts():
        assert published.reference
        draw_published[name](tmp_path / "set")
        records, _, _ = _read(name, tmp_path / "set", tmp_path)
        differences = compare_counts(records, published)
        assert differences or published == PublishedCounts(reference=published.reference)
        assert all("published: " in line for line in differences)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "emoset"])
def test_builder_builds_shards(name, draw_published, tmp_path, monkeypatch):
    monkeypatch.setenv("EMOVIT_DATA", str(tmp_path / "data"))
    expected = draw_published[name](tmp_path / "set")
    builder = registry.get_builder_class(name)({"build_info": {"prepare": {"root": str(tmp_path / "set")}}})
    assert builder.where_to_get == find_entry(name).about.where_to_get
    if name in WITHOUT_QUESTIONS:
        # The shards are built; missing questions are reported when training opens them.
        with pytest.raises(DataError, match="Write instructions before building shards"):
            builder.build_datasets()
    else:
        assert set(builder.build_datasets()) == WITHOUT_LABELS.get(name, set(builder.indexes))
    groups = Counter()
    total = 0
    for split, path in builder.indexes.items():
        reader = ShardReader(ShardIndex.load(path))
        records = [reader.read(number).record for number in range(len(reader))]
        total += len(records)
        assert records and {record.split for record in records} == {split}
        groups.update({record.group for record in records if record.group is not None})
        for record in records:
            has_question = any(instruction.kind == "categorical" for instruction in record.instructions)
            assert has_question == (record.emotion is not None)
    assert total == expected.total
    assert set(groups.values()) <= {1}


def test_only_differing_counts_are_reported(draw_published, tmp_path):
    draw_published["raf_db"](tmp_path)
    records, _, _ = _read("raf_db", tmp_path, tmp_path)
    right = PublishedCounts(total=14, splits={"train": 11, "test": 3}, labels={"anger": 2}, groups=0)
    assert compare_counts(records, right) == []
    wrong = PublishedCounts(total=14, splits={"train": 12}, labels={"anger": 3}, groups=1, reference="the paper")
    assert compare_counts(records, wrong) == [
        "0 groups, published: 1 (the paper)",
        "11 records in split 'train', published: 12 (the paper)",
        "2 records of 'anger', published: 3 (the paper)",
    ]


def test_ties_are_dropped_or_kept_as_soft_labels(draw_published, tmp_path):
    draw_published["abstract"](tmp_path)
    table = find_entry("abstract").layout.table
    _, _, notes = _read("abstract", tmp_path, tmp_path)
    assert notes.report() == ["1 skipped: the most votes are tied"]
    assert notes.serious() == []
    soft, _, notes = _read("abstract", tmp_path, tmp_path, table=table.model_copy(update={"ties": "soft"}))
    assert len(soft) == 10 and notes.report() == []
    tied = soft[-1]
    assert tied.emotion is None and tied.label_set == "mikels8"
    assert tied.votes["anger"] == tied.votes["contentment"] == pytest.approx(0.25)


@pytest.mark.parametrize(("level", "classes", "count"), [("webemo7", {"joy", "anger"}, 12), ("polarity2", None, 12)])
def test_coarser_levels_of_webemo(level, classes, count, draw_published, tmp_path):
    draw_published["webemo"](tmp_path)
    folder = find_entry("webemo").layout.folder.model_copy(update={"coarsen_to": level})
    records, _, _ = _read("webemo", tmp_path, tmp_path, folder=folder)
    assert len(records) == count
    assert {record.label_set for record in records} == {level}
    assert {record.emotion for record in records} == (classes or {"negative", "positive"})


def test_lists_of_affectnet_in_a_separate_folder(draw_published, tmp_path):
    expected = draw_published["affectnet"](tmp_path)
    (tmp_path / "Manually_Annotated_file_lists").mkdir()
    for name in ("training.csv", "validation.csv"):
        (tmp_path / name).rename(tmp_path / "Manually_Annotated_file_lists" / name)
    records, _, _ = _read("affectnet", tmp_path, tmp_path)
    assert len(records) == expected.total


def test_affectnet_is_tested_on_its_official_validation_list(draw_published, tmp_path):
    draw_published["affectnet"](tmp_path)
    records, _, _ = _read("affectnet", tmp_path, tmp_path)
    # Rows that say "no face" or "uncertain", or that have no valence, are no records.
    rows = [line.split(",") for line in (tmp_path / "validation.csv").read_text().splitlines()[1:]]
    listed = {Path(row[0]).name for row in rows if int(row[6]) < 8}
    assert {Path(record.image).name for record in records if record.split == "test"} == listed
    suite = yaml.safe_load((Path(__file__).resolve().parents[2] / "projects/emovit/eval/feab.yaml").read_text())[
        "suite"
    ]
    of_affectnet = [one for one in suite["benchmarks"].values() if one["dataset"] == "affectnet"]
    assert len(of_affectnet) == 3
    assert {BenchmarkSettings.model_validate(one).split for one in of_affectnet} == {"test"}


def test_other_layouts_of_a_dataset(tmp_path):
    for number, label in enumerate(("angry", "happy")):
        for split in ("train", "test"):
            path = tmp_path / "fer" / split / label / f"{number}.png"
            path.parent.mkdir(parents=True)
            Image.new("L", (48, 48), number * 50).save(path)
    records, root, notes = _read("fer2013", tmp_path / "fer", tmp_path)
    assert root == tmp_path / "fer"
    assert Counter((record.split, record.emotion) for record in records) == {
        (split, label): 1 for split in ("train", "test") for label in ("anger", "happiness")
    }
    # Five classes have no image here, which is reported.
    assert len(notes.serious()) == 5 and "'surprise'" in " ".join(notes.serious())

    for folder, value in (("train_set", "3"), ("val_set", 0)):
        (tmp_path / "affectnet" / folder / "images").mkdir(parents=True)
        (tmp_path / "affectnet" / folder / "annotations").mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / "affectnet" / folder / "images" / "17.jpg")
        for key, content in (("exp", value), ("val", "-0.5"), ("aro", 0.25)):
            numpy.save(tmp_path / "affectnet" / folder / "annotations" / f"17_{key}.npy", numpy.array(content))
    records, _, _ = _read("affectnet", tmp_path / "affectnet", tmp_path)
    assert [(r.split, r.emotion, r.valence, r.arousal) for r in records] == [
        ("train", "surprise", -0.5, 0.25),
        ("test", "neutral", -0.5, 0.25),
    ]


def test_pixels_are_written_as_images(draw_published, tmp_path):
    draw_published["fer2013"](tmp_path / "set")
    records, root, _ = _read("fer2013", tmp_path / "set", tmp_path)
    assert root == tmp_path / "extracted"
    with Image.open(root / records[3].image) as image:
        assert (image.mode, image.size) == ("L", (48, 48))
        assert numpy.asarray(image).ravel()[:5].tolist() == [21, 22, 23, 24, 25]
    before = (root / records[3].image).stat().st_mtime_ns
    assert [r.id for r in _read("fer2013", tmp_path / "set", tmp_path)[0]] == [r.id for r in records]
    assert (root / records[3].image).stat().st_mtime_ns == before


CUSTOM = """
datasets:
  my_moods:
    data_type: images
    about:
      where_to_get: On my disk.
      licence: Mine.
      layout_status: verified
    build_info:
      annotations:
        train: {storage: my_moods/train/index.json}
        test: {storage: my_moods/test/index.json}
      images: {storage: my_moods}
      prepare:
        source: table
        root: ROOT
        table:
          file: moods.csv
          label_set: "labels: calm, tense"
          columns: {image: file, emotion: mood, split: part}
"""


@pytest.fixture
def custom(tmp_path):
    """A YAML file and the dataset that it describes."""
    rows = ["file;mood;part"]
    for number in range(6):
        Image.new("RGB", (9, 9), (number * 30, 0, 0)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png;{('Calm', 'tense')[number % 2]};{('train', 'test')[number // 4]}")
    (tmp_path / "moods.csv").write_text("\n".join(rows))
    path = tmp_path / "configs" / "my_moods" / "defaults.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(CUSTOM.replace("ROOT", str(tmp_path)))
    return path


def test_a_custom_dataset_is_one_yaml_file(custom, tmp_path, monkeypatch):
    entry = find_entry(str(custom))
    assert entry.name == "my_moods"
    records = list(open_dataset(tmp_path, entry.layout, source=entry.name).read())
    assert [record.emotion for record in records] == ["calm", "tense"] * 3
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMOVIT_DATASETS", custom.parent.parent.name)
    monkeypatch.setenv("EMOVIT_DATA", str(tmp_path / "data"))
    assert "my_moods" in all_entries()[0]
    assert "my_moods" in [*register_declared(), *registry.list_datasets()]
    datasets = registry.get_builder_class("my_moods")().build_datasets()
    assert {split: len(dataset) for split, dataset in datasets.items()} == {"train": 4, "test": 2}
    assert datasets["test"].label_set.labels == ("calm", "tense")
    question, answer = datasets["train"][0]["pairs"][0][:2]
    assert "calm, tense" in question and answer.startswith("Predict emotion: ")


def test_a_wrong_yaml_is_refused_with_all_problems(custom, monkeypatch, tmp_path):
    text = custom.read_text()
    custom.write_text(
        text.replace("licence: Mine.", "").replace("mood,", "mood, spilt: x,").replace("file: moods", "fil: m")
    )
    with pytest.raises(ConfigError) as caught:
        find_entry(str(custom))
    problems = " ".join(caught.value.problems)
    assert "about.licence: missing" in problems
    assert "table.columns.spilt: unknown key (did you mean 'split'?)" in problems
    assert "table.fil: unknown key (did you mean 'file'?)" in problems
    custom.write_text(text.replace("build_info:", "buildinfo:"))
    with pytest.raises(ConfigError, match=r"buildinfo: unknown key \(did you mean 'build_info'"):
        find_entry(str(custom))
    custom.write_text(text.replace("prepare:", "prepair:"))
    with pytest.raises(ConfigError, match=r"prepair: unknown key \(did you mean 'prepare'"):
        find_entry(str(custom))
    for wrong, expected in (("[", "not YAML"), ("datasets: 3", "not a dataset in LAVIS's layout")):
        custom.write_text(wrong)
        with pytest.raises(ConfigError, match=expected):
            find_entry(str(custom))
    with pytest.raises(ConfigError, match="cannot be read"):
        find_entry(str(tmp_path / "gone.yaml"))
    monkeypatch.setenv("EMOVIT_DATASETS", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="nowhere: no such folder, but EMOVIT_DATASETS names it"):
        dataset_files()
    assert register_declared() == []
    (tmp_path / "nowhere").mkdir()
    with pytest.raises(DataError, match=r"nowhere: EMOVIT_DATASETS names it, but it contains no <name>/defaults\.yaml"):
        dataset_files()


def test_a_wrong_yaml_does_not_hide_the_other_datasets(custom, monkeypatch):
    monkeypatch.setenv("EMOVIT_DATASETS", str(custom.parent.parent))
    custom.parent.rename(custom.parent.with_name("other"))
    entries, problems = all_entries()
    assert list(entries) == NAMES
    assert [line.partition(": ")[2] for line in problems] == [
        "the dataset is called 'my_moods' and its folder 'other'; both need the same name"
    ]


def test_equal_faults_of_many_rows_are_one_line_and_the_advice_fits(custom, tmp_path):
    labels = tmp_path / "moods.csv"
    labels.write_text(labels.read_text().replace("Calm", "Flat"))
    reader = open_dataset(tmp_path, find_entry(str(custom)).layout, source="my_moods")
    with pytest.raises(DataError) as caught:
        list(reader.read())
    assert len(re.findall("unknown emotion 'Flat'", str(caught.value))) == 1
    assert "line 2, line 4, line 6: unknown emotion" in str(caught.value)
    assert str(caught.value).endswith("Correct or remove these rows of the table.")
    labels.write_text(labels.read_text().replace("tense", "Flat"))
    with pytest.raises(DataError, match=r"line 2, line 3, line 4 and 3 more: unknown (?s:.*)check the settings first"):
        list(open_dataset(tmp_path, find_entry(str(custom)).layout, source="my_moods").read())


def test_a_label_set_may_be_a_list(custom, tmp_path):
    text = custom.read_text()
    custom.write_text(text.replace('"labels: calm, tense"', "[calm, tense]"))
    assert find_entry(str(custom)).layout.table.label_set == "labels: calm, tense"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "        root:",
            "        splitseed: 0\n        root:",
            "prepare.splitseed: unknown key (did you mean 'split_seed'?)",
        ),
        (
            "        root:",
            "        stratify: perhaps\n        root:",
            "prepare.stratify: Input should be a valid boolean",
        ),
        ("        root:", "        fractions: 3\n        root:", "prepare.fractions: expected a mapping of settings"),
        (
            "        root:",
            "        fractions: {train: 2}\n        root:",
            "prepare.fractions.train: Input should be less",
        ),
        (
            "        root:",
            "        fractions: {train: 0.5}\n        root:",
            "prepare.fractions: train, val and test must sum",
        ),
        ("        root:", "        split_seed: 0\n        root:", "`fractions` must give their sizes"),
        ("data_type", "data_typ", "datasets.my_moods.data_typ: unknown key (did you mean 'data_type'?)"),
        ("images: {storage", "images: {storag", "build_info.images.storag: unknown key (did you mean 'storage'?)"),
        ("test: {storage", "tset: {storage", "annotations.tset: unknown key (did you mean 'test'?)"),
        ("annotations:", "anotations:", "build_info.anotations: unknown key (did you mean 'annotations'?)"),
        (
            "  my_moods:",
            "  other moods:",
            "'other moods' is not a valid name; a name consists of letters, digits, _ and -",
        ),
        ("  my_moods:", "  ../../evil:", "'../../evil' is not a valid name"),
    ],
)
def test_every_key_of_a_yaml_is_checked_before_an_import(custom, old, new, expected):
    text = custom.read_text()
    assert old in text
    custom.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        find_entry(str(custom))
    assert str(custom) in str(caught.value) and expected in str(caught.value)


def test_an_import_has_the_keys_of_the_builders():
    assert set(DeclaredDataset.model_fields) == set(DatasetSettings.model_fields)
    assert set(DeclaredPreparation.model_fields) == set(PrepareSettings.model_fields)
    assert set(DeclaredBuildInfo.model_fields) == set(BuildInfoSettings.model_fields)


def test_settings_of_layouts_are_checked():
    numbers = {"label_names": {0: "anger"}, "files": [{"path": "a.csv", "where": {"part": 1}}]}
    table = LayoutSettings.model_validate({"source": "table", "table": numbers}).table
    assert table.label_names == {"0": "anger"} and table.files[0].where == {"part": "1"}
    for values, expected in (
        ({"source": "folder", "table": {}}, "`table` belongs to source 'table', this one is 'folder'"),
        ({"source": "folder", "folder": {"pattern": "{label}/x"}}, "must contain {name} or {group}"),
        ({"source": "table", "table": {"label_pattern": "("}}, "is not a regular expression"),
        ({"source": "table", "table": {"scales": {"valence": [3, 1]}}}, "a scale is .lowest, highest."),
        ({"source": "tabel"}, r"unknown layout \(did you mean 'table'\?\)"),
        ({"source": "table", "table": {"encoding": "klingon"}}, "not an encoding that Python knows"),
    ):
        with pytest.raises(ValueError, match=expected):
            LayoutSettings.model_validate(values)


def test_every_layout_is_defined_in_one_file():
    folder = Path(readers.__file__).parent
    modules = {path.stem: path.read_text() for path in folder.glob("*.py") if path.stem != "__init__"}
    defined = {name: re.findall(r'\(\w*Reader, layout="(\w+)"\)', text) for name, text in modules.items()}
    assert all(len(names) == 1 for names in defined.values())
    assert sorted(name for names in defined.values() for name in names) == sorted(LAYOUTS)
    for name, reader in LAYOUTS.items():
        assert reader.__module__ == f"{readers.__name__}.{next(m for m, names in defined.items() if name in names)}"
        # A dataset without other settings needs nothing but the name.
        assert LayoutSettings(source=name).reader(folder).is_present() in (True, False)
    with pytest.raises(ValueError, match=r"layout 'table' is defined in lavis_emovit\.sources\.readers\.table and in"):

        class Other(Reader, layout="table"):
            pass


NEW_LAYOUT = """
from lavis_emovit.settings import Settings
from lavis_emovit.sources.base import Reader


class ListSettings(Settings):
    file: str = "list.txt"


class ListReader(Reader, layout="list"):
    settings_class = ListSettings
    imported_from = "file"

    def files(self):
        return [self.root / self.settings.file]

    def records(self):
        for line in self.files()[0].read_text().splitlines():
            with self.collect_faults():
                image, emotion = line.split()
                yield self.record(line, id=image, image=image, split="train", emotion=emotion, label_set="mikels8")
"""


def test_a_new_layout_is_one_file(tmp_path, custom):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "list.py").write_text(NEW_LAYOUT)
    (tmp_path / "moods.txt").write_text("0.png awe\n1.png fear\n")
    declared = custom.read_text().partition("        table:\n")[0].replace("source: table", "source: list")
    custom.write_text(declared + "        list: {file: moods.txt}\n")
    run = (
        "import sys; from lavis_emovit.sources import readers; readers.__path__.append(sys.argv[1]);"
        "from lavis_emovit.cli.main import main; sys.exit(main(['data', *sys.argv[2:]]))"
    )
    for dataset, path in (("list", tmp_path / "moods.txt"), (custom, tmp_path)):
        command = ["import", str(dataset), str(path), "--out", str(tmp_path / "records.jsonl"), "--overwrite"]
        arguments = [sys.executable, "-c", run, str(tmp_path / "modules"), *command]
        subprocess.run(arguments, check=True, timeout=120, capture_output=True)
        assert [record.emotion for record in read_records(tmp_path / "records.jsonl")] == ["awe", "fear"]


def test_the_catalogue_needs_neither_torch_nor_lavis():
    code = (
        "import sys; from lavis_emovit.sources.catalogue import all_entries;"
        f"assert len(all_entries()[0]) == {len(NAMES)};"
        "assert not {'torch', 'lavis', 'pandas', 'scipy', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_frames_counted_from_another_number_are_refused(draw_published, tmp_path):
    draw_published["disfa"](tmp_path / "set")
    for path in sorted((tmp_path / "set" / "frames").glob("*/*.jpg")):
        path.rename(path.with_name(f"{int(path.stem) - 1:05d}.jpg"))
    with pytest.raises(DataError, match=r"SN001: the first image has the number 0, the first code 1.*frame_offset=-1"):
        _read("disfa", tmp_path / "set", tmp_path)
    settings = find_entry("disfa").layout.action_units
    for offset, image in ((-1, "frames/SN001/00020.jpg"), (0, None)):
        changed = settings.model_copy(update={"frame_offset": offset})
        records, _, notes = _read("disfa", tmp_path / "set", tmp_path, action_units=changed)
        assert notes.num_rows == len(records) + notes.skipped.total()
        assert (records[1].image if records else None) == image
