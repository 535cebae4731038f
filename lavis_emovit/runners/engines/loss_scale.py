"""The loss scale that keeps fp16 gradients from vanishing, in a form that all engines can resume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class LossScale:
    """Halved at an overflow, doubled after enough steps without one (Micikevicius et al. 2018, section 3.2).

    Rule, numbers and the names in `state` are those of `torch.amp.GradScaler`, so that a run may change its engine.
    """

    GROWTH, BACKOFF, GROWTH_INTERVAL = 2.0, 0.5, 2000

    def __init__(self, *, enabled: bool, scale: float = 65536.0):
        self.enabled = enabled
        self.value = scale if enabled else 1.0
        self._good_steps = 0

    def update(self, *, overflow: bool) -> None:
        """Adapt the scale after a step."""
        if not self.enabled:
            return
        if overflow:
            self.value *= self.BACKOFF
            self._good_steps = 0
            return
        self._good_steps += 1
        if self._good_steps == self.GROWTH_INTERVAL:
            self.value *= self.GROWTH
            self._good_steps = 0

    def state(self) -> dict[str, Any]:
        """The argument of `load`; empty if the scale is off."""
        if not self.enabled:
            return {}
        return {
            "scale": self.value,
            "growth_factor": self.GROWTH,
            "backoff_factor": self.BACKOFF,
            "growth_interval": self.GROWTH_INTERVAL,
            "_growth_tracker": self._good_steps,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the `state` of this class or of a GradScaler."""
        if self.enabled and state:
            self.value, self._good_steps = float(state["scale"]), int(state["_growth_tracker"])
