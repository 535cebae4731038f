"""When a run validates, saves and ends, and its learning rate: pure functions of recipe and position, so that nothing
of them is saved."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lavis_emovit.checkpoints.training_state import Position
from lavis_emovit.errors import ConfigError
from lavis_emovit.runners.part_rates import Rates
from lavis_emovit.runners.settings import RunSettings, Stage


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
        """Whether the last `early_stop_patience` validations, all of them in the last stage, were not better than the
        best."""
        patience, best = self.run.early_stop_patience, position.best
        if patience is None or best is None or not self.validates_after(position.step):
            return False
        first = max(best.step, self._last_stage_start) + 1
        return sum(map(self.validates_after, range(first, position.step + 1))) >= patience

    def is_over(self, position: Position) -> bool:
        """Whether the training is over."""
        return position.step >= self.total_steps or self.is_stopped_early(position)

    def epochs_done(self, position: Position) -> int | float:
        """Epochs done; an int for whole epochs."""
        if position.step_in_epoch == 0:
            return position.epoch
        return round(position.epoch + position.step_in_epoch / self.steps_per_epoch, 4)

    def rates(self, step: int) -> Rates:
        """Learning rates of optimizer step `step`, counted from 0; each stage has a schedule of its own.

        The rate of a part is that of the schedule, `warmup_lr` and `min_lr` included, times its share of `init_lr`.
        """
        run = self.run
        if not run.stages:
            whole = learning_rate(run, step, total_steps=self.total_steps, steps_per_epoch=self.steps_per_epoch)
            return Rates(whole, {part: whole * (peak / run.init_lr) for part, peak in run.part_lr.items()})
        start, end, stage = next(one for one in self._stages() if step < one[1])
        whole = learning_rate(
            run,
            step - start,
            total_steps=end - start,
            steps_per_epoch=self.steps_per_epoch,
            warmup_steps=stage.warmup_steps,
        )
        return Rates(None, {part: whole * (peak / run.init_lr) for part, peak in stage.parts.items()})

    def first_step(self, part: str) -> int:
        """The first optimizer step, counted from 0, in which a part learns."""
        return min((start for start, _, stage in self._stages() if part in stage.parts), default=0)

    def check(self) -> None:
        """ConfigError if the run ends before a stage begins."""
        if self.total_steps <= self._last_stage_start:
            raise ConfigError(
                [
                    f"run.max_steps: {self.run.max_steps} steps end before the last stage of "
                    f"run.{'stages' if self.run.stages else 'curriculum'} begins, after step {self._last_stage_start} "
                    f"({self.steps_per_epoch} steps are an epoch); raise it"
                ]
            )

    def _stages(self) -> list[tuple[int, int, Stage]]:
        """First step of each stage and of what follows it; the last one may end early."""
        found, start = [], 0
        for stage in self.run.stages:
            end = start + stage.epochs * self.steps_per_epoch
            found.append((start, min(end, self.total_steps), stage))
            start = end
        return found

    @property
    def _last_stage_start(self) -> int:
        earlier = [sum(stage.epochs for stage in stages[:-1]) for stages in (self.run.stages, self.run.curriculum)]
        return max(earlier) * self.steps_per_epoch


def learning_rate(
    run: RunSettings, step: int, *, total_steps: int, steps_per_epoch: int, warmup_steps: int | None = None
) -> float:
    """Learning rate of optimizer step `step`, counted from 0. `warmup_steps` replaces that of the run.

    LAVIS's schedulers of the same names warm up inside the first epoch only and keep one value for a whole epoch. Here
    everything but `linear_warmup_step_lr` counts optimizer steps, so the curve does not depend on the epoch's length.
    """
    warmup = run.warmup_steps if warmup_steps is None else warmup_steps
    if step < warmup:
        return run.warmup_lr + (run.init_lr - run.warmup_lr) * step / warmup
    done = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    if run.lr_sched == "linear_warmup_cosine_lr":
        return run.min_lr + (run.init_lr - run.min_lr) * 0.5 * (1.0 + math.cos(math.pi * done))
    if run.lr_sched == "linear_warmup_linear_lr":
        return run.min_lr + (run.init_lr - run.min_lr) * (1.0 - done)
    if run.lr_sched == "linear_warmup_step_lr":
        return max(run.min_lr, run.init_lr * run.lr_step_decay ** (step // steps_per_epoch))
    return run.init_lr
