"""Generated instructions in the shards of a dataset: joined from a folder of `emovit generate`, or written offline.

- Training gets exactly the pairs of the folder, joined by id; images without any are in the shards, are not trained on,
  and are counted in `prepared.json` and in the log. Splits, labels and images are the dataset's own.
- A mix draws the images that `emovit generate all --mix` draws with the same seed, and what it leaves out is counted.
- Offline instructions are those of `emovit generate`; held-out images get reference answers, in their own splits only.
- Instructions of other images, labels, splits or attributes are refused together with missing kinds, with counts,
  examples and commands; so are a folder and a dataset that are both missing.
- A changed folder is refused, a moved or deleted one is not; storages of earlier versions are used as before.
- Wrong settings are reported with the nearest name.
"""

from __future__ import annotations

import json
import logging
import shutil
from types import SimpleNamespace

import pytest
from lavis.common.registry import registry
from typer.testing import CliRunner

from lavis_emovit.cli.main import app
from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.generation.mix import MIXES, Mix, draw_mix
from lavis_emovit.records import read_records, write_records
from lavis_emovit.runners.config import Config
from lavis_emovit.shards.reader import ShardReader
from lavis_emovit.tasks.emotion_instruction import EmotionInstructionTask

HALF = {"parts": [{"kinds": ["conversation", "reasoning"], "per_class": 1}, {"kinds": ["categorical"], "per_class": 1}]}


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch):
    """A separate data folder for every test."""
    monkeypatch.setenv("EMOVIT_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def _run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.fixture
def generated(published, tmp_path):
    """A folder of `emovit generate all` for the training split of the published dataset."""
    _run("data", "import", "emoset", published, "--no-categorical", "--out", tmp_path / "records.jsonl")
    _run("generate", "all", tmp_path / "records.jsonl", "--out", tmp_path / "generated", "--preview", "0")
    return tmp_path / "generated"


def _builder(root, instructions, **node):
    prepare = {"root": str(root), "instructions": instructions}
    return registry.get_builder_class("emoset")({"build_info": {"prepare": prepare}, **node})


def _pairs(dataset):
    return {
        dataset.read(number).record.id: [(item.kind, item.question, item.answer) for item in items]
        for number in range(len(dataset))
        if (items := dataset.read(number).record.instructions)
    }


def _written(folder):
    return {
        record.id: [(item.kind, item.question, item.answer) for item in record.instructions]
        for record in read_records(folder / "records.jsonl")
        if record.instructions
    }


def _prepared(data_folder):
    return json.loads((data_folder / "emoset" / "prepared.json").read_text())["instructions"]


def _edit(folder, change):
    """Replace the records of a folder by changed ones; None leaves a record out."""
    records = [change(number, record) for number, record in enumerate(read_records(folder / "records.jsonl"))]
    write_records(folder / "records.jsonl", [record for record in records if record is not None])


def test_a_path_alone_trains_on_exactly_the_generated_pairs(published, generated, data_folder, caplog):
    _edit(generated, lambda number, record: record.model_copy(update={"instructions": []}) if number < 4 else record)
    with caplog.at_level(logging.INFO, "lavis_emovit"):
        datasets = _builder(published, str(generated)).build_datasets()
    assert _pairs(datasets["train"]) == _written(generated)
    assert len(datasets["train"]) == 20 and datasets["train"].index.num_samples == 24
    assert all(not record.instructions for record in _records(datasets["test"]))
    train = _prepared(data_folder)["splits"]["train"]
    kinds = [kind for items in _written(generated).values() for kind, *_ in items]
    assert train == {
        "images": 24, "with_instructions": 20, "pairs": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
    }  # fmt: skip
    assert "train: 20 of 24 images have instructions" in caplog.text
    assert "training on 20 of 24 images" in caplog.text
    # The records are the dataset's own: generation measured the colours of this image, the dataset has none.
    assert all(record.attributes.colorfulness is None for record in _records(datasets["train"]))


def _records(dataset):
    reader = ShardReader(dataset.index)
    return [reader.read(number).record for number in range(len(reader))]


def test_the_template_fills_in_images_without_a_categorical_question(published, generated):
    def keep_one_of_two(number, record):
        return record.model_copy(update={"instructions": record.instructions[: number % 2]})

    _edit(generated, keep_one_of_two)
    datasets = _builder(published, {"generated": str(generated / "records.jsonl")}).build_datasets()
    assert len(datasets["train"]) == 24
    kinds = [[kind for kind, *_ in items] for items in _pairs(datasets["train"]).values()]
    assert kinds == [["categorical"]] * 24
    assert all([item.kind for item in record.instructions] == ["categorical"] for record in _records(datasets["test"]))


def test_a_mix_draws_the_images_of_emovit_generate(published, generated, data_folder):
    instructions = {"generated": str(generated), "categorical": None, "mix": {**HALF, "seed": 3}}
    datasets = _builder(published, instructions).build_datasets()
    training = [record for record in read_records(generated / "records.jsonl") if record.split == "train"]
    drawn = draw_mix(training, Mix.model_validate(HALF), seed=3)
    got = {name: {kind for kind, *_ in items} for name, items in _pairs(datasets["train"]).items()}
    assert got == {name: set(kinds) for name, kinds in drawn.items()} and len(got) == 16
    counts = _prepared(data_folder)
    assert counts["mix"] == {kind: {"drawn": 8, "found": 8} for kind in ("conversation", "reasoning", "categorical")}
    all_kinds = [kind for items in _written(generated).values() for kind, *_ in items]
    kept = [kind for items in _pairs(datasets["train"]).values() for kind, *_ in items]
    left_out = {kind: all_kinds.count(kind) - kept.count(kind) for kind in set(all_kinds)}
    assert counts["left_out_by_mix"] == {kind: count for kind, count in left_out.items() if count}


def test_a_mix_that_is_short_is_refused_or_counted(published, generated, data_folder, caplog):
    mix = {"parts": [{"kinds": ["reasoning"], "per_class": 9}]}
    with pytest.raises(DataError, match=r"awe: 3 images, the mix needs 9[\s\S]*allow_short=true"):
        _builder(published, {"generated": str(generated), "mix": mix}).build_datasets()
    without = next(record.id for record in read_records(generated / "records.jsonl") if record.split == "train")

    def drop(number, record):
        kept = [item for item in record.instructions if item.kind != "reasoning" or record.id != without]
        return record.model_copy(update={"instructions": kept})

    _edit(generated, drop)
    mix["allow_short"] = True
    _builder(published, {"generated": str(generated), "mix": mix}).build_datasets()
    assert _prepared(data_folder)["mix"] == {"reasoning": {"drawn": 24, "found": 23}}
    assert "the mix draws 24 images with reasoning, and 23 of them have it" in caplog.text


def test_offline_instructions_are_those_of_the_command(published, generated, data_folder):
    kinds = {"categorical", "conversation", "reasoning"}
    datasets = _builder(published, {"offline": {"kinds": sorted(kinds)}}).build_datasets()
    wanted = {name: [item for item in items if item[0] in kinds] for name, items in _written(generated).items()}
    assert _pairs(datasets["train"]) == wanted
    folder = data_folder / "emoset" / "generated"
    assert {path.name for path in folder.iterdir()} >= {"records.jsonl", "manifest.json", "preview.html", "rejected"}
    summary = json.loads((folder / "summary.json").read_text())
    assert {step["step"]: step["num_records"] for step in summary["steps"]}["reasoning"] == 24
    # Held-out images have reference answers, and none of them is in the training split.
    ids = {split: {record.id for record in _records(dataset)} for split, dataset in datasets.items()}
    assert not ids["train"] & (ids["val"] | ids["test"])
    for record in [*_records(datasets["val"]), *_records(datasets["test"])]:
        assert {item.kind for item in record.instructions} == kinds


def test_everything_that_does_not_fit_is_refused_at_once(published, generated):
    def spoil(number, record):
        if number in (0, 1):
            return record.model_copy(update={"image": f"image/other/{number}.jpg"})
        if number == 2:
            return record.model_copy(update={"emotion": "fear"})
        if number == 3:
            return record.model_copy(update={"split": "test"})
        if number == 4:
            return record.model_copy(update={"attributes": record.attributes.model_copy(update={"brightness": 0.9})})
        if number == 5:
            return record.model_copy(update={"id": "emoset/stranger"})
        return record

    def drop_reasoning(number, record):
        kept = [item for item in record.instructions if item.kind != "reasoning"]
        return record.model_copy(update={"instructions": kept})

    _edit(generated, spoil)
    _edit(generated, drop_reasoning)
    with pytest.raises(DataError) as caught:
        instructions = {"generated": str(generated), "categorical": None, "mix": "released"}
        _builder(published, instructions, kinds=["conversation", "reasoning"]).build_datasets()
    text = str(caught.value)
    for line in (
        "2 records have another image ('emoset/amusement_00000': image/other/0.jpg there, image/amusement/",
        "1 records have another label ('emoset/amusement_00002': fear there, amusement here)",
        "1 records have another split (",
        "1 records have another set of attributes (",
        "brightness 0.9 there, brightness 0.5 here",
        "1 records are not in this dataset ('emoset/stranger')",
        f"`emovit generate reasoning {generated / 'records.jsonl'} --out {generated}`",
        "awe: 3 images, the mix needs 5600",
    ):
        assert line in text


def test_a_missing_folder_and_a_missing_dataset_are_reported_together(tmp_path):
    with pytest.raises(DataError) as caught:
        _builder(tmp_path / "nowhere", {"generated": str(tmp_path / "nothing"), "mix": "paper"}).build_datasets()
    text = str(caught.value)
    assert "nowhere does not exist" in text
    assert "`emovit generate all records.jsonl --out data/emoset_generated --mix paper`" in text


def test_shards_never_replace_generated_files(published, generated, data_folder):
    before = (generated / "records.jsonl").read_bytes()
    inside = shutil.copytree(generated, data_folder / "emoset")
    for folder in (inside, generated):
        with pytest.raises(
            DataError, match=r"data/emoset is a folder of `emovit generate`[\s\S]*Choose another folder"
        ):
            _builder(published, str(folder)).build_datasets()
    (inside / "ledger.jsonl").unlink()
    with pytest.raises(DataError, match=r"data/emoset is a folder of `emovit generate`"):
        _builder(published, str(inside)).build_datasets()
    assert (inside / "records.jsonl").read_bytes() == before == (generated / "records.jsonl").read_bytes()


def test_kinds_that_nothing_writes_are_refused_before_shards_are_written(published, data_folder):
    with pytest.raises(DataError, match=r"no conversation, reasoning instructions[\s\S]*emovit generate conversation"):
        _builder(published, {"categorical": {}}, kinds=["conversation", "reasoning", "categorical"]).build_datasets()
    assert not list(data_folder.rglob("*.tar"))


def test_all_datasets_of_a_recipe_are_refused_at_once(tmp_path, published):
    nodes = {
        "emoset": {"build_info": {"prepare": {"root": str(published), "instructions": str(tmp_path / "a")}}},
        "emoset_sketch": {"build_info": {"prepare": {"instructions": str(tmp_path / "b")}}},
    }
    with pytest.raises(DataError) as caught:
        EmotionInstructionTask().build_datasets(SimpleNamespace(datasets_cfg=nodes))
    assert str(tmp_path / "a") in str(caught.value) and str(tmp_path / "b") in str(caught.value)


def test_a_changed_folder_is_refused_and_a_lost_one_is_not(published, generated, data_folder, tmp_path):
    _builder(published, str(generated)).build_datasets()
    moved = shutil.copytree(generated, tmp_path / "moved")
    _builder(published, str(moved)).build_datasets()
    _edit(generated, lambda number, record: record.model_copy(update={"instructions": record.instructions[:1]}))
    with pytest.raises(DataError, match=rf"the instructions in {generated} have changed since[\s\S]*delete"):
        _builder(published, str(generated)).build_datasets()
    shutil.rmtree(generated)
    assert len(_builder(published, str(generated)).build_datasets()["train"]) == 24
    with pytest.raises(DataError, match=r"prepare.instructions.generated: was \"[0-9a-f]{64}\", now null"):
        _builder(published, {"categorical": None}).build_datasets()


def test_a_storage_of_an_earlier_version_is_used_as_before(published, data_folder, monkeypatch):
    registry.get_builder_class("emoset")({"build_info": {"prepare": {"root": str(published)}}}).build_datasets()
    path = data_folder / "emoset" / "prepared.json"
    state = json.loads(path.read_text())
    state["settings"]["instructions"] = {"categorical": state["settings"]["instructions"]["categorical"]}
    del state["instructions"]
    path.write_text(json.dumps(state))
    registry.get_builder_class("emoset")({"build_info": {"prepare": {"root": str(published)}}}).build_datasets()


@pytest.mark.parametrize(
    ("instructions", "problem"),
    [
        ({"mix": "relesed"}, "did you mean 'released'"),
        ({"mix": {"name": "paper", "parts": []}}, "has both a name"),
        ({"generated": "G", "offline": {}}, "has both `generated` and `offline`"),
        ({"offline": {"kinds": ["conversation"]}, "mix": "paper"}, "`mix` has categorical, reasoning"),
        ({"generatd": "G"}, "did you mean 'generated'"),
    ],
)
def test_wrong_settings_are_explained(instructions, problem):
    with pytest.raises(ConfigError, match=problem):
        _builder("/data", instructions)


def test_splits_that_the_recipe_does_not_use_may_have_instructions(published, tmp_path):
    _run("data", "import", "emoset", published, "--no-categorical", "--out", tmp_path / "records.jsonl")
    every = ("--split", "every", "--no-check-overlap", "--preview", "0")
    _run("generate", "reasoning", tmp_path / "records.jsonl", "--out", tmp_path / "every", *every)
    builder = registry.get_builder_class("emoset")
    prepare = {"root": str(published), "instructions": str(tmp_path / "every")}
    node = {"build_info": {"prepare": prepare, "annotations": {"val": None, "test": None}}}
    assert set(builder(node).build_datasets()) == {"train"}


def test_the_recipe_of_the_paper_has_its_mix():
    settings = Config.load("projects/emovit/train_instructions.yaml").datasets["emoset"].build_info.prepare.instructions
    assert settings.categorical is None and settings.mix.parts == MIXES["paper"].parts
    assert {name: 8 * sum(part.per_class for part in MIXES[name].parts) for name in ("paper", "released")} == {
        "paper": 51200,
        "released": 44800,
    }
