"""The learning rate as a pure function of the step, so that nothing of it is saved."""

from __future__ import annotations

import math

from lavis_emovit.runners.settings import RunSettings


def learning_rate(run: RunSettings, step: int, *, total_steps: int, steps_per_epoch: int) -> float:
    """Learning rate of optimizer step `step`, counted from 0.

    LAVIS's schedulers of the same names warm up inside the first epoch only and keep one value for a whole epoch. Here
    everything but `linear_warmup_step_lr` counts optimizer steps, so the curve does not depend on the epoch's length.
    """
    if step < run.warmup_steps:
        return run.warmup_lr + (run.init_lr - run.warmup_lr) * step / run.warmup_steps
    done = min(1.0, (step - run.warmup_steps) / max(1, total_steps - run.warmup_steps))
    if run.lr_sched == "linear_warmup_cosine_lr":
        return run.min_lr + (run.init_lr - run.min_lr) * 0.5 * (1.0 + math.cos(math.pi * done))
    if run.lr_sched == "linear_warmup_linear_lr":
        return run.min_lr + (run.init_lr - run.min_lr) * (1.0 - done)
    if run.lr_sched == "linear_warmup_step_lr":
        return max(run.min_lr, run.init_lr * run.lr_step_decay ** (step // steps_per_epoch))
    return run.init_lr
