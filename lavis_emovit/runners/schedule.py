"""Learning rate as a pure function of the step: nothing to save, nothing to restore.

LAVIS's schedulers of the same names warm up inside the first epoch only and hold one value for a whole epoch. Here
everything is counted in optimizer steps across epochs, so a curve is the same whatever the length of an epoch; only
`linear_warmup_step_lr` goes by epochs, as it is meant to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lavis_emovit.runners.settings import RunSettings


@dataclass(frozen=True)
class LinearWarmup:
    """Linear warm-up, then what a subclass makes of it; this one stays at the peak (`constant_lr`).

    Attributes:
        init_lr: peak, reached at step `warmup_steps`.
        min_lr: what the curve falls to at step `total_steps`.
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
        return self._after_warmup(step)

    def _after_warmup(self, step: int) -> float:
        return self.init_lr

    def _share_done(self, step: int) -> float:
        """How much of the way from the peak to the end is done, 0 to 1."""
        return min(1.0, (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps))


class LinearWarmupCosine(LinearWarmup):
    """After the warm-up half a cosine down to `min_lr`."""

    def _after_warmup(self, step: int) -> float:
        return self.min_lr + (self.init_lr - self.min_lr) * 0.5 * (1.0 + math.cos(math.pi * self._share_done(step)))


class LinearWarmupLinear(LinearWarmup):
    """After the warm-up a straight line down to `min_lr`."""

    def _after_warmup(self, step: int) -> float:
        return self.min_lr + (self.init_lr - self.min_lr) * (1.0 - self._share_done(step))


@dataclass(frozen=True)
class LinearWarmupStep(LinearWarmup):
    """After the warm-up the peak times `decay` for each epoch that is done, not below `min_lr`."""

    steps_per_epoch: int
    decay: float

    def _after_warmup(self, step: int) -> float:
        return max(self.min_lr, self.init_lr * self.decay ** (step // self.steps_per_epoch))


def build_schedule(run: RunSettings, *, total_steps: int, steps_per_epoch: int) -> LinearWarmup:
    """The schedule that `run.lr_sched` names, for a run of that length."""
    shape = (run.init_lr, run.min_lr, run.warmup_lr, run.warmup_steps, total_steps)
    if run.lr_sched == "linear_warmup_step_lr":
        return LinearWarmupStep(*shape, steps_per_epoch=steps_per_epoch, decay=run.lr_step_decay)
    curves = {
        "linear_warmup_cosine_lr": LinearWarmupCosine,
        "linear_warmup_linear_lr": LinearWarmupLinear,
        "constant_lr": LinearWarmup,
    }
    return curves[run.lr_sched](*shape)
