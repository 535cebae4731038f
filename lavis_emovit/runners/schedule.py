"""Learning rate as a pure function of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class LinearWarmupCosine:
    """Linear warm-up, then half a cosine, both counted in optimizer steps across epochs.

    LAVIS's scheduler of the same name warms up inside the first epoch only and holds one cosine value for a whole
    epoch; here the curve is smooth, and the same whatever the length of an epoch.

    Attributes:
        init_lr: peak, reached at step `warmup_steps`.
        min_lr: what the cosine falls to at step `total_steps`.
        warmup_lr: value at step 0.
        warmup_steps: length of the warm-up; 0 starts at the peak.
        total_steps: steps of the whole run.
    """

    init_lr: float
    min_lr: float
    warmup_lr: float
    warmup_steps: int
    total_steps: int

    def __call__(self, step: int) -> float:
        """Learning rate of optimizer step `step`, counted from 0."""
        if step < self.warmup_steps:
            return self.warmup_lr + (self.init_lr - self.warmup_lr) * step / self.warmup_steps
        cosine_steps = max(1, self.total_steps - self.warmup_steps)
        share = min(1.0, (step - self.warmup_steps) / cosine_steps)
        return self.min_lr + (self.init_lr - self.min_lr) * 0.5 * (1.0 + math.cos(math.pi * share))
