"""docs/dataflow.md against the code.

Properties: every file that the page names exists; every name that it gives to a file is defined there; every key table
lists exactly the keys that the code really has or writes, no more and no fewer; shapes and types of tensors are the
real ones; no table goes unchecked.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "dataflow.md").read_text(encoding="utf-8")

_FILE = re.compile(r"`((?:lavis_emovit|lavis_configs|docs|tests|projects|tools)/[\w./*-]+)`")
_KEY_TABLE = re.compile(r"<!-- keys: ([\w-]+) -->\n((?:\|.*\n)+)")
_CODE_TABLE = re.compile(r"\| file \| names \| what they do \|\n\|[-|]+\|\n((?:\|.*\n)+)")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def code_rows() -> Iterator[tuple[str, str]]:
    """(file, name) pairs of the tables of functions and classes."""
    for table in _CODE_TABLE.findall(PAGE):
        for line in table.splitlines():
            file, names, _ = cells(line)
            for name in re.findall(r"`([\w.]+)`", names):
                yield file.strip("`"), name


def key_tables() -> dict[str, dict[str, str]]:
    """Table -> key -> what stands in its second column."""
    tables = {}
    for name, table in _KEY_TABLE.findall(PAGE):
        rows = [cells(line) for line in table.splitlines()[2:]]
        assert name not in tables, f"two tables are called {name}"
        tables[name] = {row[0].strip("`"): row[1] for row in rows}
        assert len(tables[name]) == len(rows), f"a key stands twice in {name}"
    return tables


def defined_names(path: Path) -> set[str]:
    """Functions, classes, their methods (`Class.method`) and module-level names of a file."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def written_keys(file: str, function: str, beside: str) -> set[str]:
    """Keys of the dict literals of a function that hold the key `beside`, or that spread such a dict."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    (node,) = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == function]
    found: set[str] = set()
    for literal in (n for n in ast.walk(node) if isinstance(n, ast.Dict)):
        keys = {key.value for key in literal.keys if isinstance(key, ast.Constant)}
        if beside in keys or None in literal.keys:
            found |= keys
    assert beside in found, f"{file}: {function} writes no '{beside}'"
    return found


# ---- What the code really has ----------------------------------------------------------------------------------


def annotation_keys(tmp_path: Path, make_records: Callable) -> set[str]:
    from lavis_emovit.sample_set.draw import render
    from lavis_emovit.sample_set.scene import sample_scene
    from lavis_emovit.sample_set.write import annotation_of

    found: set[str] = set()
    for seed in range(40):
        scene = sample_scene(random.Random(seed))
        found |= annotation_of(scene, "x", scene.emotion, render(scene, 32)).keys()
    return found


def model_keys(module: str, name: str) -> Callable:
    def keys(tmp_path: Path, make_records: Callable) -> set[str]:
        return set(getattr(__import__(module, fromlist=[name]), name).model_fields)

    return keys


def conversation_keys(tmp_path: Path, make_records: Callable) -> set[str]:
    from lavis_emovit.records import to_conversations

    return set(to_conversations(make_records(tmp_path, 1))[0])


def index_content(tmp_path: Path, make_records: Callable) -> dict[str, Any]:
    from lavis_emovit.shards.writer import write_shards

    write_shards(make_records(tmp_path, 8), tmp_path, tmp_path / "shards")
    return json.loads((tmp_path / "shards" / "index.json").read_text())


def dataset_items(tmp_path: Path, make_records: Callable) -> list[dict[str, Any]]:
    from lavis_emovit.datasets.shard_dataset import EmotionShardDataset
    from lavis_emovit.processors.emovit_image_train import EmovitImageTrainProcessor
    from lavis_emovit.processors.emovit_text import EmovitTextProcessor
    from lavis_emovit.shards.writer import write_shards

    index = write_shards(make_records(tmp_path, 8), tmp_path, tmp_path / "shards")
    dataset = EmotionShardDataset(index, EmovitImageTrainProcessor(), EmovitTextProcessor(), seed=0)
    return [dataset[(0, number)] for number in range(8)]


def batch(tmp_path: Path, make_records: Callable) -> dict[str, Any]:
    from lavis_emovit.datasets.collate import collate

    return collate(dataset_items(tmp_path, make_records))


def storage_files(tmp_path: Path, make_records: Callable) -> set[str]:
    from lavis_emovit.datasets import preparation

    index = f"<split>/{preparation.INDEX_NAME}"
    return {
        f"{preparation.DRAWN_NAME}/",
        f"{preparation.GENERATED_NAME}/",
        preparation.RECORDS_NAME,
        "records.summary.json",
        index,
        preparation.STATE_NAME,
    }


def run_files(tmp_path: Path, make_records: Callable) -> set[str]:
    from lavis_emovit.runners.run_folder import RUN_FILES, RUN_FOLDERS

    return {*RUN_FILES, *(f"{name}/" for name in RUN_FOLDERS)}


def saved_checkpoint(tmp_path: Path) -> Path:
    from lavis_emovit.checkpoints.checkpoint import CheckpointFacts, save_checkpoint
    from lavis_emovit.checkpoints.training_state import EngineState, Position, TrainingState, writers_of

    state = TrainingState(trained={}, engine=EngineState(), position=Position(), config_yaml="run: {}\n", samples={})
    return save_checkpoint(
        tmp_path,
        CheckpointFacts("a", "b", "c", {"python": "3.11"}),
        step=1,
        epoch=0,
        writers=writers_of(state),
    )


def checkpoint_files(tmp_path: Path, make_records: Callable) -> set[str]:
    return {path.name for path in saved_checkpoint(tmp_path).iterdir()}


def manifest_keys(tmp_path: Path, make_records: Callable) -> set[str]:
    return set(json.loads((saved_checkpoint(tmp_path) / "MANIFEST.json").read_text()))


def position_keys(tmp_path: Path, make_records: Callable) -> set[str]:
    from lavis_emovit.checkpoints.training_state import Position

    state = json.loads((saved_checkpoint(tmp_path) / "state.json").read_text())
    assert set(state) == {"position", "engine"}
    assert set(state["position"]) == {field.name for field in dataclasses.fields(Position)}
    return set(state["position"])


def metrics_keys(tmp_path: Path, make_records: Callable) -> set[str]:
    from lavis_emovit.evaluation.metrics.classification import ClassificationMetrics

    task = "lavis_emovit/tasks/base.py"
    return set(ClassificationMetrics.model_fields) | written_keys(task, "metrics", "agg_metrics")


def answer_loss_keys(tmp_path: Path, make_records: Callable) -> set[str]:
    import torch
    from lavis.models import load_model

    samples = {"image": torch.zeros(1, 3, 96, 96), "text_input": ["What?"], "text_output": ["A dog."]}
    return set(vars(load_model("emovit_tiny").answer_loss(samples)))


def log_step_keys(tmp_path: Path, make_records: Callable) -> set[str]:
    from lavis_emovit.runners.logs import NOTES

    return written_keys(RUNNER, "_step_row", "event") | set(NOTES)


RUNNER = "lavis_emovit/runners/runner_emovit.py"

REAL_KEYS: dict[str, Callable[[Path, Callable], Any]] = {
    "annotation": annotation_keys,
    "record": model_keys("lavis_emovit.records", "EmotionRecord"),
    "attributes": model_keys("lavis_emovit.records", "Attributes"),
    "clip": model_keys("lavis_emovit.clips.clip", "Clip"),
    "trace": model_keys("lavis_emovit.clips.trace", "Trace"),
    "instruction": model_keys("lavis_emovit.records", "Instruction"),
    "conversation": conversation_keys,
    "storage-files": storage_files,
    "index": lambda *fixtures: set(index_content(*fixtures)),
    "shard": lambda *fixtures: set(index_content(*fixtures)["shards"][0]),
    "columns": lambda *fixtures: set(index_content(*fixtures)["shards"][0]["columns"]),
    "item": lambda *fixtures: set(dataset_items(*fixtures)[0]),
    "batch": lambda *fixtures: set(batch(*fixtures)),
    "answer_loss": answer_loss_keys,
    "run-files": run_files,
    "log-step": log_step_keys,
    "log-eval": lambda *_: written_keys(RUNNER, "_evaluate", "event"),
    "checkpoint-files": checkpoint_files,
    "manifest": manifest_keys,
    "position": position_keys,
    "prediction": model_keys("lavis_emovit.evaluation.predictions", "PredictionRow"),
    "metrics": metrics_keys,
    "summary": lambda *_: written_keys(RUNNER, "_finish", "config_hash"),
}


# ---- Tests -------------------------------------------------------------------------------------------------------


def test_every_file_that_the_page_names_exists():
    files = set(_FILE.findall(PAGE))
    assert len(files) > 40
    missing = [file for file in files if not (ROOT / file).is_file()]
    assert not missing


def test_every_name_is_defined_in_the_file_beside_it():
    rows = list(code_rows())
    assert len(rows) > 90
    names = {file: defined_names(ROOT / file) for file, _ in rows}
    missing = [f"{file}: {name}" for file, name in rows if name not in names[file]]
    assert not missing


def test_every_room_of_the_way_is_on_the_page():
    rooms = {Path(file).parts[1] for file, _ in code_rows()}
    assert {
        "sources",
        "generation",
        "shards",
        "datasets",
        "processors",
        "models",
        "tasks",
        "runners",
        "evaluation",
    } <= rooms


def test_no_key_table_goes_unchecked():
    assert set(key_tables()) == set(REAL_KEYS)
    key_headers = re.findall(r"^\| (?:key|column) \|", PAGE, flags=re.MULTILINE)
    assert len(key_headers) == len(re.findall(r"<!-- keys: [\w-]+ -->\n\| (?:key|column) \|", PAGE))


@pytest.mark.parametrize("table", sorted(REAL_KEYS))
def test_keys_are_the_real_ones(table, tmp_path, make_records):
    assert set(key_tables()[table]) == REAL_KEYS[table](tmp_path, make_records)


@pytest.mark.parametrize(("table", "make"), [("item", lambda *f: dataset_items(*f)[0]), ("batch", batch)])
def test_shapes_and_types_are_the_real_ones(table, make, tmp_path, make_records):
    real = make(tmp_path, make_records)
    sizes = {"B": len(real["record_id"]), "3": 3}
    if table == "batch":
        sizes["N"] = len(real["text_input"])
        assert sizes["N"] > sizes["B"]
    for key, described in key_tables()[table].items():
        tensor = re.match(r"(\w+) \[(.*)\]$", described)
        length = re.match(r"list of ([BN]) str", described)
        if tensor:
            assert str(real[key].dtype) == f"torch.{tensor[1]}", key
            shape = tensor[2].split(", ")
            assert real[key].dim() == len(shape), key
            assert all(sizes.get(letter, size) == size for letter, size in zip(shape, real[key].shape)), key
        elif length:
            assert len(real[key]) == sizes[length[1]], key
            assert all(isinstance(value, str) for value in real[key]), key
        else:
            kind = {"list": list, "int": int}.get(described.split()[0], str)
            assert isinstance(real[key], kind), key


def test_index_columns_have_the_lengths_that_the_page_gives(tmp_path, make_records):
    from lavis_emovit.shards.writer import write_shards

    index = write_shards(make_records(tmp_path, 8), tmp_path, tmp_path / "shards")
    assert index.num_pairs != index.num_samples
    totals = {"samples": index.num_samples, "pairs": index.num_pairs}
    for column, length in key_tables()["columns"].items():
        assert len(index.columns[column]) == totals[length], column
