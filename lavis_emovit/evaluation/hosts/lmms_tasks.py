"""Tasks of lmms-eval: files that it reads with --include_path, and the functions that they name.

lmms-eval 0.7.3 asks the questions (`output_type: generate_until`); answers are read and measured here, by the code of
suites. Its `multiple_choice` is not used: many of its models, InstructBLIP among them, have no log-likelihoods.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lavis_emovit.emotion.labels import LabelSet, LabelSetName, get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.adapters.base import Item
from lavis_emovit.evaluation.benchmark_rows import BenchmarkRows
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings
from lavis_emovit.evaluation.metrics.registry import headline_of
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.evaluation.suite.requests import BatchRequests, Prepared
from lavis_emovit.evaluation.summaries import result_of
from lavis_emovit.evaluation.truths import truth_of
from lavis_emovit.files import read_file, write_json
from lavis_emovit.images import decode_image
from lavis_emovit.own_files import read_own
from lavis_emovit.records import parse_record
from lavis_emovit.settings import Settings, valid_settings

_INVALID = "invalid"
_KEY = ("lmms-eval", "generation")

_UTILS = '''\
"""Functions of the tasks in this folder, written by `emovit suite export`."""

from pathlib import Path

from lavis_emovit.evaluation.hosts.lmms_tasks import Tasks

_tasks = Tasks(Path(__file__).parent)


def doc_to_visual(doc):
    return _tasks.images(doc)


def process_results(doc, results):
    return _tasks.results(doc, results[0])


def headline(items):
    return _tasks.headline(items)


def invalid(items):
    return _tasks.invalid(items)
'''
_YAML = """\
# Written by `emovit suite export`; needs lavis-emovit beside lmms-eval 0.7.3.
#   lmms-eval --include_path {folder} --tasks {task} --model emovit --model_args arch=emovit_tiny
task: {task}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.doc_to_visual
doc_to_text: question
doc_to_target: answer
process_results: !function utils.process_results
generation_kwargs: {decoding}
metric_list:
  - {{metric: {metric}, aggregation: !function utils.headline, higher_is_better: true}}
  - {{metric: {invalid}, aggregation: !function utils.invalid, higher_is_better: false}}
"""


@dataclass(frozen=True)
class QuestionRow:
    """A question of a task, a line of its data file."""

    benchmark: str
    record: str  # the record as JSON
    place: int  # of the question among those about the record
    question: str
    images: list[str]  # paths below the folder of the tasks, two of a pair
    answer: str  # the true label, if it has one; the host shows it


@dataclass(frozen=True)
class TaskFile:
    """What the answers of a benchmark are read and measured with."""

    name: str
    settings: BenchmarkSettings
    label_set: LabelSet | None

    @property
    def task_name(self) -> str:
        return f"emovit_{self.name}"

    @property
    def metric(self) -> str:
        """Name of the headline metric of the kind."""
        found = headline_of(self.settings.kind)
        assert found is not None, self.settings.kind
        return found[1].title.replace(" ", "_")


def write_task(folder: Path, out: Path, task: TaskFile, decoding: Mapping[str, float]) -> None:
    """Write the files of a task into `folder`, which will be `out`. `decoding` has at least `max_new_tokens`."""
    values = {
        "settings": task.settings.model_dump(mode="json", exclude={"config"}),
        "label_set": task.label_set.name if task.label_set is not None else None,
    }
    write_json(folder / f"{task.name}.json", values, indent=1)
    (folder / "utils.py").write_text(_UTILS, encoding="utf-8")
    text = _YAML.format(
        task=task.task_name,
        folder=out.absolute(),
        data=json.dumps(str(out.absolute() / f"{task.name}.jsonl")),
        decoding=json.dumps({**decoding, "temperature": 0, "do_sample": False, "until": []}),
        metric=task.metric,
        invalid=_INVALID,
    )
    (folder / f"{task.name}.yaml").write_text(text, encoding="utf-8")


class _Stored(Settings):
    """The file of a task."""

    settings: dict[str, Any]
    label_set: LabelSetName | None


class Tasks:
    """The functions of all tasks in a folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._files: dict[str, TaskFile] = {}

    def _task(self, name: str) -> TaskFile:
        if name not in self._files:
            path = self.folder / f"{name}.json"
            stored = read_own(path, _Stored, "Export the suite again.")
            label_set = get_label_set(stored.label_set) if stored.label_set is not None else None
            settings = valid_settings(BenchmarkSettings, stored.settings, name, str(path))
            self._files[name] = TaskFile(name, settings, label_set)
        return self._files[name]

    def images(self, doc: Mapping[str, Any]) -> list[Image.Image]:
        """The upright RGB images of a question; `filename` is the file of each."""
        if "images" not in doc:  # earlier exports had one `image`
            raise DataError(f"{self.folder}: a question has no `images`; export the suite again")
        found = []
        for path in (self.folder / name for name in doc["images"]):
            found.append(decode_image(read_file(path)))
            found[-1].filename = str(path)  # type: ignore[attr-defined]
        return found

    def results(self, doc: Mapping[str, Any], answer: str) -> dict[str, Any]:
        """For each metric, the row of an answer with the name of its benchmark; the metrics are made from all rows."""
        task = self._task(doc["benchmark"])
        record = parse_record(doc["record"], f"a question of {task.name}")
        truth = truth_of(record, task.settings, task.label_set)
        if truth is None:
            raise DataError(f"{task.name}: record '{record.id}' has no truth; export the suite again")
        requests = BatchRequests([Prepared(Item(record, b"", truth))], task.settings, "generation", task.label_set)
        answers = dict.fromkeys(range(len(requests.questions)), "") | {doc["place"]: answer}
        row = requests.rows(answers)[doc["place"]]
        measured = json.dumps({"benchmark": task.name, "row": row.model_dump(mode="json")})
        return {task.metric: measured, _INVALID: measured}

    def headline(self, items: Sequence[str]) -> float:
        """The headline metric of the suite on these rows; nan if it is undefined for them."""
        value = self._result(items)["headline"]["value"]
        return float("nan") if value is None else float(value)

    def invalid(self, items: Sequence[str]) -> float:
        """The share of invalid answers; they count as wrong in the headline."""
        result = self._result(items)
        return float(result["num_invalid"] / result["num_samples"])

    def _result(self, items: Sequence[str]) -> dict[str, Any]:
        found = [json.loads(item) for item in items]
        task = self._task(found[0]["benchmark"])
        rows = [PredictionRow.model_validate(one["row"]) for one in found]
        measured = BenchmarkRows(task.name, task.settings, task.label_set, {_KEY: rows}, len(rows)).measured(_KEY)
        return result_of(measured)
