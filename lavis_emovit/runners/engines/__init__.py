"""Engines: how one optimizer step is carried out."""

from __future__ import annotations

from lavis_emovit.models.protocol import EmotionModel
from lavis_emovit.runners.engines.base import Engine
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.tasks.base import EmotionTask


def build_engine(model: EmotionModel, task: EmotionTask, settings: RunSettings) -> Engine:
    """The engine that `run.engine` names. A process group must be joined before.

    The model moves to the engine's device and may be spread over the ranks. ConfigError if the engine is not installed
    or does not support the settings.
    """
    if settings.engine == "deepspeed":
        from lavis_emovit.runners.engines.deepspeed_engine import DeepSpeedEngine

        return DeepSpeedEngine(model, task, settings)
    from lavis_emovit.runners.engines.torch_engine import TorchEngine

    return TorchEngine(model, task, settings)


def spreads_weights(settings: RunSettings) -> bool:
    """Whether the engine gives each rank a piece of every weight, so that none has to hold the whole model."""
    if settings.engine != "deepspeed":
        return False
    from lavis_emovit.runners.engines.deepspeed_config import read_deepspeed_config

    return read_deepspeed_config(settings.deepspeed_config)["zero_optimization"]["stage"] == 3
