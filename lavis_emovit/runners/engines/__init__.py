"""Engines: how one optimizer step is carried out on the machine at hand."""

from __future__ import annotations

from typing import Any

from lavis_emovit.runners.engines.base import Engine
from lavis_emovit.runners.settings import RunSettings


def build_engine(model: Any, task: Any, settings: RunSettings) -> Engine:
    """The engine that `run.engine` names; the process group, if there is to be one, has been joined.

    Args:
        model: an EmoVIT model, which the engine takes to its device and may spread over the ranks.
        task: an `EmotionInstructionTask`.

    Raises:
        ConfigError: the engine is not installed, or cannot be what the settings ask for.
    """
    if settings.engine == "deepspeed":
        from lavis_emovit.runners.engines.deepspeed_engine import DeepSpeedEngine

        return DeepSpeedEngine(model, task, settings)
    from lavis_emovit.runners.engines.torch_engine import TorchEngine

    return TorchEngine(model, task, settings)
