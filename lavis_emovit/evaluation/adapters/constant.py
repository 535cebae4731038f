"""Baselines that ignore the image: the largest class, or the shares of the classes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from lavis_emovit.emotion.labels import LabelSet
from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.adapters.base import Baseline, Item, register_adapter
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings, Kind
from lavis_emovit.settings import Settings


class ConstantSettings(Settings):
    """`adapter: majority` or `adapter: prior`."""

    adapter: Literal["majority", "prior"]


class ConstantBaseline(Baseline):
    """Predictions without a look at the image.

    `majority` is certain of the largest class of the training split. `prior` returns the classes' shares (counts plus
    one, so that none is impossible). Both choose the same label; their calibration differs. Values are the means of
    the training split.
    """

    kinds: frozenset[Kind] = frozenset({"emotion", "labels", "valence_arousal", "action_units"})
    learns = True
    reads_images = False

    def __init__(self, settings: ConstantSettings):
        self.settings = settings
        self._answer: dict[str, float] = {}

    def identity(self) -> dict[str, Any]:
        return {"adapter": self.settings.adapter}

    def fit(self, items: Iterable[Item], benchmark: BenchmarkSettings, label_set: LabelSet | None) -> None:
        truths = [item.truth for item in items]
        if not truths:
            raise DataError("the training split has no record with a truth to learn from")
        if label_set is not None:
            counts = Counter(label for truth in truths for label in truth.labels or (truth.label,))
            total = len(truths) + len(label_set)
            self._answer = {label: math.log((counts[label] + 1) / total) for label in label_set.labels}
            if self.settings.adapter == "majority":
                best = max(label_set.labels, key=lambda label: counts[label])
                self._answer = {label: 0.0 if label == best else -30.0 for label in label_set.labels}
            return
        sums: Counter[str] = Counter()
        seen: Counter[str] = Counter()
        for truth in truths:
            for name, value in (truth.values or {}).items():
                sums[name] += value  # type: ignore[assignment]
                seen[name] += 1
        self._answer = {name: sums[name] / seen[name] for name in sorted(seen)}

    def predict(self, items: Sequence[Item]) -> list[dict[str, float]]:
        return [dict(self._answer) for _ in items]


register_adapter(ConstantSettings, lambda entry, place: ConstantBaseline(entry))
