"""The scale that keeps fp16 gradients from vanishing, as numbers that any engine can take over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class LossScale:
    """Halved at an overflow, doubled after enough steps without one (Micikevicius et al. 2018, section 3.2).

    The rule, its numbers and the names in `state` are those of `torch.amp.GradScaler`, so that a run may change
    engine.
    """

    GROWTH, BACKOFF, GROWTH_INTERVAL = 2.0, 0.5, 2000

    def __init__(self, *, enabled: bool, scale: float = 65536.0):
        self.enabled = enabled
        self.value = scale if enabled else 1.0
        self._good_steps = 0

    def update(self, *, overflow: bool) -> None:
        """Learn from a step."""
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
        """What `load` takes; empty where it is off."""
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
        """Put back what `state` gave, or what a GradScaler gave."""
        if self.enabled and state:
            self.value, self._good_steps = float(state["scale"]), int(state["_growth_tracker"])
