"""Small states and savers for tests of checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch

from lavis_emovit.checkpoints.checkpoint import CheckpointFacts
from lavis_emovit.checkpoints.saving import CheckpointSaver
from lavis_emovit.checkpoints.training_state import Best, EngineState, Position, TrainingState


def make_state(step: int, best: int | None = None, average: bool = False) -> TrainingState:
    weight = torch.full((64, 8), float(step))
    return TrainingState(
        trained={"weight": weight},
        engine=EngineState({"exp_avg.weight": torch.full((64, 8), -float(step))}, {"adamw_steps": {"weight": step}}),
        position=Position(step=step, epoch=0, step_in_epoch=step, best=Best(best, "accuracy", 0.5) if best else None),
        config_yaml="run: {}\n",
        average={"weight": weight / 2} if average else None,
    )


def make_saver(root: Path, *, keep_last: int = 9, is_async: bool = True) -> CheckpointSaver:
    facts = CheckpointFacts("i" * 64, "c" * 64, "f" * 64, {"python": "3"})
    return CheckpointSaver(root, facts, keep_last=keep_last, is_async=is_async)
