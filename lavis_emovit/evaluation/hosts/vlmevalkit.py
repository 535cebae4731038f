"""Tables of VLMEvalKit: a question with options a row, with its image in base64.

VLMEvalKit takes a file `$LMUData/<name>.tsv` with the columns `A` and `B` for a custom multiple-choice dataset (read in
ms-vlmeval 0.0.20). It lists the options itself, reads two images from a list as Python writes it, takes a short text in
the place of an image for the index of the row that has it, and compares files by MD5.
"""

from __future__ import annotations

import base64
import csv
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from lavis_emovit.emotion.labels import LabelSet
from lavis_emovit.emotion.questions import BARE_QUESTIONS, BARE_STATEMENT, PAIR_NOTE, STATEMENT_ANSWERS
from lavis_emovit.evaluation.adapters.base import Item
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings, Kind, record_subject
from lavis_emovit.evaluation.own_questions import shows_joined_pair
from lavis_emovit.evaluation.suite.benchmark_data import OpenBenchmark
from lavis_emovit.evaluation.truths import Truth
from lavis_emovit.records import AnsweredQuestion, Statement

LETTERS = string.ascii_uppercase
_LONGEST_INDEX = 64  # characters of a text that is an index and no image
KINDS: tuple[Kind, ...] = ("emotion", "choice", "statement")
"""The kinds of benchmarks whose questions have options."""


class WrittenTable(NamedTuple):
    path: Path
    num_records: int
    num_rows: int


class _Row(NamedTuple):
    id: str
    question: str
    options: tuple[str, ...]
    right: str
    category: str


def check_options(settings: BenchmarkSettings, label_set: LabelSet | None, place: str) -> list[str]:
    """Why a benchmark is no multiple choice of VLMEvalKit, if it is not."""
    if settings.kind not in KINDS:
        return [f"{place}: kind '{settings.kind}' has no options; export it with --to lmms-eval"]
    if label_set is not None and len(label_set.labels) > len(LETTERS):
        many = f"{len(label_set.labels)} labels, and VLMEvalKit has {len(LETTERS)} letters"
        return [f"{place}: {many}; choose a coarser label_set, or export it with --to lmms-eval"]
    return []


def write_table(folder: Path, benchmark: OpenBenchmark, count: Callable[[], None]) -> WrittenTable:
    """Write the table of a benchmark; the same benchmark gives the same bytes. `count` is called for every sample.

    Options are in the order of the benchmark's first variant.
    """
    path, num_records, num_rows = folder / f"EmoVIT_{benchmark.name}.tsv", 0, 0
    letters = LETTERS[: _most_options(benchmark)]
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n")
        table.writerow(["index", "id", "image", "question", *letters, "answer", "category"])
        for number in benchmark.numbers():
            for item in benchmark.image_items([number]):
                num_records += 1
                encoded = [base64.b64encode(data).decode() for data in item.images(join_pairs=_joins(benchmark))]
                image = encoded[0] if len(encoded) == 1 else str(encoded)
                for row in _rows(benchmark, item):
                    right = letters[row.options.index(row.right)]
                    options = [*row.options, *[""] * (len(letters) - len(row.options))]
                    table.writerow([num_rows, row.id, image, row.question, *options, right, row.category])
                    # Later rows of a record refer to the first one.
                    image = str(num_rows) if len(image) > _LONGEST_INDEX else image
                    num_rows += 1
            count()
    return WrittenTable(path, num_records, num_rows)


def _most_options(benchmark: OpenBenchmark) -> int:
    if benchmark.label_set is not None:
        return len(benchmark.label_set.labels)
    if benchmark.settings.kind == "statement":
        return len(STATEMENT_ANSWERS)
    return max(len(row.options) for item in benchmark.items() for row in _rows(benchmark, item))


def _rows(benchmark: OpenBenchmark, item: Item) -> Iterator[_Row]:
    record, variant = item.record, benchmark.settings.variants[0]
    note = PAIR_NOTE if shows_joined_pair(record, is_joined=_joins(benchmark)) else ""
    for truth in item.truth.each:
        if isinstance(truth.asked, Statement):
            right = STATEMENT_ANSWERS[0 if truth.asked.is_correct else 1]
            text = BARE_STATEMENT.format(statement=truth.asked.text)
            yield _Row(_id(item, truth), note + text, STATEMENT_ANSWERS, right, _category(truth))
        elif isinstance(truth.asked, AnsweredQuestion):
            options = variant.options(truth.asked.options or (), _id(item, truth))
            yield _Row(_id(item, truth), note + truth.asked.question, options, str(truth.label), _category(truth))
        else:
            assert benchmark.label_set is not None
            about = benchmark.settings.subject or record_subject(record, benchmark.label_set.name)
            options = variant.options(benchmark.label_set.labels, record.id)
            yield _Row(record.id, BARE_QUESTIONS[about], options, str(truth.label), str(truth.label))


def _joins(benchmark: OpenBenchmark) -> bool:
    return benchmark.settings.join_pairs


def _id(item: Item, truth: Truth) -> str:
    return f"{item.record.id}/{truth.name}"


def _category(truth: Truth) -> str:
    """The first of the published categories, by which VLMEvalKit divides its results."""
    found = truth.asked.categories if truth.asked is not None else None
    return next(iter(found.values())) if found else ""
