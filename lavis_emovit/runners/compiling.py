"""torch.compile for the parts of a model that a recipe names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from lavis_emovit.errors import ConfigError


def compile_parts(model: Any, parts: Sequence[str], device: torch.device) -> list[str]:
    """Have the named parts of a model translated when they first run; names of their weights stay as they are.

    Args:
        model: an EmoVIT model.
        parts: of `vision_encoder`, `qformer`, `language_model`.
        device: where they run.

    Returns:
        names of the modules, inside the model.

    Raises:
        ConfigError: the model has no such part, or there is no compiler that works.
    """
    if not parts:
        return []
    modules = {name: module for part in parts for name, module in _modules_of(model, part)}
    _try_compiler(device)
    for module in modules.values():
        # Texts differ in length from batch to batch; a translation for each length would take longer than it saves.
        module.compile(dynamic=True)
    return list(modules)


def _modules_of(model: Any, part: str) -> list[tuple[str, nn.Module]]:
    """What is called of a part: the output head of a language model stays outside, since its input is chosen there."""
    core = getattr(model, "core", None)
    if core is None:
        raise ConfigError([f"run.compile: this model has no part '{part}'; leave run.compile empty"])
    if part == "vision_encoder":
        return [("core.vision_model.encoder", core.vision_model.encoder)]
    if part == "qformer":
        return [("core.qformer", core.qformer)]
    language_model = core.language_model
    if model.is_seq2seq:
        return [(f"core.language_model.{side}", getattr(language_model, side)) for side in ("encoder", "decoder")]
    return [("core.language_model.base_model", language_model.base_model)]


def _try_compiler(device: torch.device) -> None:
    """A missing compiler is known before any data is read, not in the middle of the first step."""
    probe = torch.compile(lambda values: values.sin() + 1)
    try:
        probe(torch.ones(2, device=device))
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            [
                f"run.compile: torch.compile does not work on this machine ({reason}); install what it asks for (a C++ "
                "compiler for CPUs, triton for GPUs), or leave run.compile empty"
            ]
        ) from error
