"""Which validation is the best: by any number among the metrics of a split."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel

from lavis_emovit.errors import ConfigError
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.settings import nearest_name

# Last parts of the names of metrics of which less is better.
LESS_IS_BETTER = frozenset(
    {"brier", "ece", "mae", "rmse", "mse", "nll", "loss", "aurc", "num_invalid", "num_errors", "entropy"}
)


@dataclass(frozen=True)
class BestMetric:
    """A metric by name, `macro_f1` or `calibration.ece`, and which of two values is better.

    Attributes:
        name: keys of the metrics of a split, joined with dots.
        is_least: whether the lower value is better.
    """

    name: str
    is_least: bool = False

    @classmethod
    def of(cls, run: RunSettings) -> BestMetric:
        """The metric of a recipe.

        Raises:
            ConfigError: there is no such metric; found before anything is evaluated.
        """
        valid = sorted(_numbers_in_metrics())
        if run.best_metric not in valid:
            raise ConfigError(
                [f"run.best_metric: no number '{run.best_metric}' in the metrics{nearest_name(run.best_metric, valid)}"]
            )
        is_least = run.best_metric.rpartition(".")[2] in LESS_IS_BETTER if run.best_mode == "auto" else False
        return cls(run.best_metric, is_least or run.best_mode == "min")

    def value(self, metrics: Mapping[str, Any], split: str) -> float:
        """The value among the metrics of a split.

        Raises:
            ConfigError: these metrics have no such number, such as a calibration without scores.
        """
        found: Any = metrics
        for key in self.name.split("."):
            found = found.get(key) if isinstance(found, Mapping) else None
        if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
            raise ConfigError([f"run.best_metric: '{self.name}' of split '{split}' is {found}, not a number"])
        return float(found)

    def is_better(self, value: float, best: float) -> bool:
        """Whether a value beats the best so far; an equal one does not."""
        return value < best if self.is_least else value > best


def _numbers_in_metrics() -> Iterator[str]:
    """Names of all numbers that metrics of a split may have."""
    from lavis_emovit.evaluation.metrics.classification import ClassificationMetrics

    yield "agg_metrics"
    yield from _numbers_in(ClassificationMetrics)


def _numbers_in(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        kinds = {field.annotation, *get_args(field.annotation)}
        if kinds & {int, float}:
            yield f"{prefix}{name}"
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _numbers_in(kind, f"{prefix}{name}.")
