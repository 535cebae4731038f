"""When a run validates, saves and ends, and its learning rate: pure functions of recipe and position, so that nothing
of them is saved."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lavis_emovit.checkpoints.training_state import Position
from lavis_emovit.runners.settings import RunSettings


@dataclass(frozen=True)
class Plan:
    """When a run with these settings and this many steps per epoch validates, saves and ends."""

    run: RunSettings
    steps_per_epoch: int

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run, unless it stops early."""
        in_epochs = self.run.max_epoch * self.steps_per_epoch
        return min(in_epochs, self.run.max_steps or in_epochs)

    def validates_after(self, step: int) -> bool:
        """Whether the run validates after `step` optimizer steps; always at the end."""
        every_steps = self.run.eval_every_steps
        every_epochs = self.run.eval_every_epochs or (None if every_steps else 1)
        if step == 0 or not self.run.is_validated:
            return False
        if step == self.total_steps or (every_steps is not None and step % every_steps == 0):
            return True
        return every_epochs is not None and step % (every_epochs * self.steps_per_epoch) == 0

    def saves_after(self, step: int) -> bool:
        """Whether the run saves a checkpoint after `step` optimizer steps; after every validation, too."""
        if step == self.total_steps or step % self.steps_per_epoch == 0 or self.validates_after(step):
            return True
        return self.run.save_every_steps is not None and step % self.run.save_every_steps == 0

    def is_stopped_early(self, position: Position) -> bool:
        """Whether the last `early_stop_patience` validations were not better than the best."""
        patience, best = self.run.early_stop_patience, position.best
        if patience is None or best is None or not self.validates_after(position.step):
            return False
        return sum(map(self.validates_after, range(best.step + 1, position.step + 1))) >= patience

    def is_over(self, position: Position) -> bool:
        """Whether the training is over."""
        return position.step >= self.total_steps or self.is_stopped_early(position)

    def epochs_done(self, position: Position) -> int | float:
        """Epochs done; an int for whole epochs."""
        if position.step_in_epoch == 0:
            return position.epoch
        return round(position.epoch + position.step_in_epoch / self.steps_per_epoch, 4)


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
