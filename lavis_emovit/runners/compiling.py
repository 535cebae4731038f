"""torch.compile for the parts of a model that a recipe names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from lavis_emovit.errors import ConfigError, first_line
from lavis_emovit.models.protocol import EmotionModel


def compile_parts(model: EmotionModel, parts: Sequence[str], device: torch.device) -> list[str]:
    """Let `torch.compile` translate parts of a model when they first run; names of their weights do not change.

    Returns:
        names of the compiled modules, inside the model.

    Raises:
        ConfigError: the model cannot compile such a part, or the machine has no working compiler.
    """
    if not parts:
        return []
    modules: dict[str, nn.Module] = {}
    for part in parts:
        targets = dict(model.compile_targets(part))
        if not targets:
            raise ConfigError([f"run.compile: this model has no part '{part}' to compile; remove it from run.compile"])
        modules |= targets
    _try_compiler(device)
    for module in modules.values():
        # Texts differ in length from batch to batch; a translation for each length would cost more time than it saves.
        module.compile(dynamic=True)
    return list(modules)


def _try_compiler(device: torch.device) -> None:
    """Fail before any data is read, not in the first step, if there is no compiler."""
    probe = torch.compile(lambda values: values.sin() + 1)
    try:
        probe(torch.ones(2, device=device))
    except Exception as error:
        raise ConfigError(
            [
                f"run.compile: torch.compile does not work on this machine ({first_line(error)}); install what it "
                "needs (a C++ compiler for CPUs, triton for GPUs), or leave run.compile empty"
            ]
        ) from error
