"""When a run validates, saves and ends: a pure function of recipe and position, so that nothing of it is saved."""

from __future__ import annotations

from dataclasses import dataclass

from lavis_emovit.checkpoints.training_state import Position
from lavis_emovit.runners.settings import RunSettings


@dataclass(frozen=True)
class Plan:
    """When a run validates, saves and ends.

    Attributes:
        steps_per_epoch: optimizer steps of an epoch.
        total_steps: of the whole run, unless it stops early.
        eval_every_steps: optimizer steps between two validations, or None.
        eval_every_epochs: epochs between two validations, or None.
        save_every_steps: optimizer steps between two saves, or None.
        patience: validations without improvement after which the run ends, or None.
    """

    steps_per_epoch: int
    total_steps: int
    eval_every_steps: int | None = None
    eval_every_epochs: int | None = None
    save_every_steps: int | None = None
    patience: int | None = None

    @classmethod
    def of(cls, run: RunSettings, steps_per_epoch: int) -> Plan:
        """The plan of a recipe."""
        in_epochs = run.max_epoch * steps_per_epoch
        is_validated = run.is_validated
        by_epoch = run.eval_every_epochs or (None if run.eval_every_steps else 1)
        return cls(
            steps_per_epoch=steps_per_epoch,
            total_steps=min(in_epochs, run.max_steps or in_epochs),
            eval_every_steps=run.eval_every_steps if is_validated else None,
            eval_every_epochs=by_epoch if is_validated else None,
            save_every_steps=run.save_every_steps,
            patience=run.early_stop_patience,
        )

    def validates_after(self, step: int) -> bool:
        """Whether the run validates after `step` optimizer steps; always at the end."""
        if step == 0 or not (self.eval_every_steps or self.eval_every_epochs):
            return False
        if step == self.total_steps or (self.eval_every_steps and step % self.eval_every_steps == 0):
            return True
        return self.eval_every_epochs is not None and step % (self.eval_every_epochs * self.steps_per_epoch) == 0

    def saves_after(self, step: int) -> bool:
        """Whether the run saves a checkpoint after `step` optimizer steps; after every validation, too."""
        if step == self.total_steps or step % self.steps_per_epoch == 0 or self.validates_after(step):
            return True
        return self.save_every_steps is not None and step % self.save_every_steps == 0

    def validations_since(self, first: int, last: int) -> int:
        """Number of validations after step `first`, up to step `last`."""
        return sum(self.validates_after(step) for step in range(first + 1, last + 1))

    def is_stopped_early(self, position: Position) -> bool:
        """Whether the last `patience` validations were not better than the best."""
        if self.patience is None or position.best is None or not self.validates_after(position.step):
            return False
        return self.validations_since(position.best.step, position.step) >= self.patience

    def is_over(self, position: Position) -> bool:
        """Whether the training is over."""
        return position.step >= self.total_steps or self.is_stopped_early(position)

    def epochs_done(self, position: Position) -> int | float:
        """Epochs done; an int for whole epochs."""
        if position.step_in_epoch == 0:
            return position.epoch
        return round(position.epoch + position.step_in_epoch / self.steps_per_epoch, 4)
