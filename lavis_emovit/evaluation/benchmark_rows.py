"""The rows of all models on a benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lavis_emovit.emotion.labels import LabelSet
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings
from lavis_emovit.evaluation.metrics.registry import MeasuredRows
from lavis_emovit.evaluation.metrics.rows import GROUP
from lavis_emovit.evaluation.predictions import PredictionRow

if TYPE_CHECKING:
    from lavis_emovit.evaluation.judging import Judgement

DIRECT = "direct"
"""In place of a scoring method: a baseline, which reads no question."""

ModelKey = tuple[str, str]
"""Name of a model, and its scoring method."""


@dataclass(frozen=True)
class BenchmarkRows:
    """The rows of all models on a benchmark.

    `rows` has the order of the suite; `judgements` are the scores of explanations by its judge.
    """

    name: str
    settings: BenchmarkSettings
    label_set: LabelSet | None  # of the answers; None for kinds without labels
    rows: Mapping[ModelKey, Sequence[PredictionRow]]
    num_records: int | None = None  # of the split, if known
    judgements: Mapping[ModelKey, Sequence[Judgement]] = field(default_factory=dict)

    def plain(self, key: ModelKey) -> list[PredictionRow]:
        """Rows of the first variant of the question; baselines have no variants."""
        first = self.settings.variants[0].name
        return [row for row in self.rows[key] if row.variant in (None, first)]

    def measured(self, key: ModelKey) -> MeasuredRows:
        """The rows of one model, for metrics."""
        plain = self.plain(key)
        name = f"{result_name(*key) if key[0] else 'the model'} on {self.name}"
        return MeasuredRows(plain, self.rows[key], self.settings, self.label_set, group_key(plain), name)


def group_key(rows: Sequence[PredictionRow]) -> str | None:
    """The slice whose groups intervals resample, or None if a row has no group."""
    return GROUP if all((row.slices or {}).get(GROUP) is not None for row in rows) else None


def result_name(model: str, method: str) -> str:
    """A model with its scoring method, if it has one."""
    return model if method in (DIRECT, "") else f"{model} ({method.replace('_', ', ', 1)})"
