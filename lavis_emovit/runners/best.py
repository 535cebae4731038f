"""Which validation is the best: by any number among the metrics of its benchmark."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lavis_emovit.errors import ConfigError
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.settings import nearest_name

HEADLINE = "agg_metrics"
"""LAVIS's name for the number that compares models on a benchmark."""


@dataclass(frozen=True)
class BestMetric:
    """A metric by name, such as `macro_f1` or `calibration.ece`, and which of two values is better.

    Attributes:
        name: keys of the metrics of a benchmark, joined with dots.
        less_is_better: whether the lower value is better.
    """

    name: str
    less_is_better: bool = False

    @classmethod
    def of(cls, run: RunSettings) -> BestMetric:
        """The metric of a recipe without `problems`."""
        if run.best_mode != "auto":
            return cls(run.best_metric, run.best_mode == "min")
        return cls(run.best_metric, _numbers(run).get(run.best_metric, False))

    @staticmethod
    def problems(run: RunSettings) -> list[str]:
        """A line if the validation of a recipe has no such metric."""
        if not run.is_validated:
            return []
        valid = _numbers(run)
        if not valid:
            return [f"run.valid_benchmarks: kind '{run.validation_kind}' has no number to choose a checkpoint by"]
        if run.best_metric in (HEADLINE, *valid):
            return []
        # Names without their metric (`mean_words`), or else all names that are worth listing.
        names = [name for name in valid if name.endswith(f".{run.best_metric}")]
        names = names or [name for name in (HEADLINE, *valid) if "_interval." not in name and "num_" not in name]
        near = nearest_name(run.best_metric, names)
        return [f"run.best_metric: no number '{run.best_metric}' in the metrics of kind '{run.validation_kind}'{near}"]

    def value(self, metrics: Mapping[str, Any], split: str) -> float:
        """The value among the metrics of a split.

        Raises:
            ConfigError: these metrics have no such number, for example because a calibration needs scores.
        """
        found: Any = metrics
        for key in self.name.split("."):
            found = found.get(key) if isinstance(found, Mapping) else None
        if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
            raise ConfigError([f"run.best_metric: '{self.name}' of split '{split}' is {found}, not a number"])
        return float(found)

    def is_better(self, value: float, best: float) -> bool:
        """Whether a value beats the best so far; an equal one does not."""
        return value < best if self.less_is_better else value > best


def _numbers(run: RunSettings) -> dict[str, bool]:
    """Names of the numbers of the deciding validation, and whether less is better."""
    from lavis_emovit.evaluation.metrics.registry import numbers_of

    return numbers_of(run.validation_kind)
