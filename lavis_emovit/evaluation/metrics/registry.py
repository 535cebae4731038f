"""The metrics of each kind of benchmark, found by registration.

A module in this folder adds a metric with one object, which suites, reports and `run.best_metric` then know. Other
packages register theirs in a module that an entry point names, see docs/metrics.md.

    register_metric(Metric("answer_length", kinds=("emotion",), measure=lambda rows: {"words": mean_words(rows.rows)}))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from pydantic import BaseModel

from lavis_emovit.errors import ConfigError
from lavis_emovit.evaluation.metrics.results import Interval
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.registered import import_modules

if TYPE_CHECKING:
    from lavis_emovit.emotion.labels import LabelSet
    from lavis_emovit.evaluation.benchmarks import BenchmarkSettings


@dataclass(frozen=True)
class MeasuredRows:
    """The rows of one model and scoring method on one benchmark.

    Attributes:
        rows: answers to the first variant of the question, and rows with an `error`; `all_variants` has every variant.
        label_set: None for kinds without labels.
        group_by: the slice whose groups intervals resample, such as a person; None resamples rows.
        name: the model and the benchmark, for messages.
    """

    rows: Sequence[PredictionRow]
    all_variants: Sequence[PredictionRow]
    settings: BenchmarkSettings
    label_set: LabelSet | None
    group_by: str | None
    name: str = "these rows"

    @property
    def labels(self) -> tuple[str, ...]:
        assert self.label_set is not None, "this kind of benchmark has no labels"
        return self.label_set.labels


@dataclass(frozen=True)
class Headline:
    """The number by which models are compared on a kind of benchmark.

    Attributes:
        field: of the metric's result; its interval is `<field>_interval`.
        counts: the result -> number of measured answers, and how many of them are invalid.
        compare: rows of two models on the same instances -> the paired comparison.
    """

    field: str
    title: str
    counts: Callable[[Any], tuple[int, int]]
    compare: Callable[[MeasuredRows, MeasuredRows], BaseModel]


@dataclass(frozen=True)
class Metric:
    """One metric, or several that are computed together.

    Attributes:
        name: key among the `metrics` of a result in metrics.json.
        measure: rows -> a result model or plain values; None where the metric does not apply to these rows.
        result: class of the result, from which the names of its numbers are known; None for plain values.
        keys: field of the result -> its keys, for fields that are mappings with known keys.
        less_is_better: last parts of the names of numbers where lower is better.
        headline: what a kind of benchmark is compared by; exactly one metric of each kind has one.
    """

    name: str
    kinds: tuple[str, ...]
    measure: Callable[[MeasuredRows], Any]
    result: type[BaseModel] | None = None
    keys: Mapping[str, tuple[str, ...]] | None = None
    less_is_better: Set[str] = frozenset()
    headline: Headline | None = None

    @property
    def module(self) -> str:
        return getattr(self.measure, "__module__", None) or "an unknown module"


_METRICS: dict[str, Metric] = {}
_REFUSED: list[str] = []


def register_metric(metric: Metric) -> None:
    """Make a metric known. ConfigError if its name is taken, or a kind of benchmark already has a headline.

    `metrics_of` then raises the same error: LAVIS skips broken plugins, but a result must not lack a metric. The main
    program, such as a notebook, may still choose another name.
    """
    if not metric.module.startswith(f"{__package__}."):
        import_modules(__package__)  # so that a package cannot take the name of a metric of this folder
    for other in _METRICS.values():
        shared = sorted(set(metric.kinds) & set(other.kinds))
        if metric.name == other.name:
            problem = f"a metric '{metric.name}' is registered already, by {other.module}; choose another name"
        elif metric.headline and other.headline and shared:
            problem = f"kind '{shared[0]}' already has its headline from the metric '{other.name}' of {other.module}"
        else:
            continue
        problem = f"{metric.module}: {problem}"
        if metric.module != "__main__":
            _REFUSED.append(problem)
        raise ConfigError([problem], "the registered metrics")
    _METRICS[metric.name] = metric


def metrics_of(kind: str) -> list[Metric]:
    """The metrics of a kind of benchmark: first the one with the headline, then the others by name."""
    import_modules(__package__)
    if _REFUSED:
        raise ConfigError(_REFUSED, "the registered metrics")
    found = [metric for metric in _METRICS.values() if kind in metric.kinds]
    return sorted(found, key=lambda metric: (metric.headline is None, metric.name))


def headline_of(kind: str) -> tuple[Metric, Headline] | None:
    """The metric by which models are compared on a kind of benchmark, or None for a kind that has no numbers."""
    return next(((metric, metric.headline) for metric in metrics_of(kind) if metric.headline is not None), None)


def numbers_of(kind: str) -> dict[str, bool]:
    """All numbers that metrics of a kind may have, by which checkpoints can be compared: those with a `result`.

    Returns:
        name -> whether less is better. Numbers of the metric with the headline are named by their path in its result
        (`accuracy`, `calibration.ece`), others start with their metric's name (`soft_labels.kl`).
    """
    return {
        name if metric.headline is not None else f"{metric.name}.{name}": name.split(".")[-1] in metric.less_is_better
        for metric in metrics_of(kind)
        if metric.result is not None
        for name in _numbers_in(metric.result, metric.keys or {})
    }


def _numbers_in(result: type[BaseModel], keys: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    for name, field in result.model_fields.items():
        annotation = field.annotation
        is_union = get_origin(annotation) in (Union, UnionType)
        for kind in get_args(annotation) if is_union else (annotation,):
            if kind in (int, float):
                yield name
            elif isinstance(kind, type) and issubclass(kind, BaseModel):
                numbers = ("low", "high") if kind is Interval else _numbers_in(kind, {})
                yield from (f"{name}.{inner}" for inner in numbers)
            elif get_origin(kind) is dict and name in keys:
                value = get_args(kind)[1]
                yield from (f"{name}.{key}.{inner}" for key in keys[name] for inner in _numbers_in(value, {}))
