"""Low-rank adapters on the linear layers of a part, through peft, and merging them into the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lavis_emovit.errors import ConfigError, WeightsError
from lavis_emovit.models.settings import LoraSettings

INSTALL_LINE = "pip install 'lavis-emovit[lora]' (or: pip install 'peft>=0.15')"
_MARKS = (".lora_A.", ".lora_B.")
Prefixes = Mapping[str, tuple[str, ...]]


def is_adapter(name: str) -> bool:
    """Whether a parameter belongs to an adapter."""
    return any(mark in name for mark in _MARKS)


def base_name(name: str) -> str:
    """The name that a parameter has without adapters."""
    return name.replace(".base_layer.", ".")


def inject(core: nn.Module, prefixes: Prefixes, settings: LoraSettings, unread: Sequence[str] = ()) -> None:
    """Add adapters to linear layers, in place; the model computes the same until they are trained.

    Args:
        prefixes: part -> prefixes of its parameters; the module of the first one gets adapters.
        unread: prefixes of layers that get none, because nothing reads their output.

    Raises:
        ConfigError: peft is missing, or the part has no linear layer of that name.
    """
    try:
        import peft
    except ImportError as error:
        raise ConfigError([f"model.lora: needs the package peft: {INSTALL_LINE}"], "the model configuration") from error
    for part in settings.parts:
        prefix = prefixes[part][0]
        targets = _targets(core, part, prefix, settings, unread)
        config = peft.LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,  # type: ignore[arg-type]
            lora_dropout=settings.dropout,
            target_modules=targets,
        )
        # The initial values depend on the recipe only, not on random numbers drawn before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            peft.inject_adapter_in_model(config, core.get_submodule(prefix.rstrip(".")))


def merge(core: nn.Module, dtype: torch.dtype | None = None) -> list[str]:
    """Merge all adapters into the weights of their layers, in place; afterwards `core` is a plain model again.

    Args:
        dtype: of the merged weights; None keeps theirs, and half precision rounds the sum.

    Returns:
        names of the modules that had an adapter.

    Raises:
        WeightsError: a weight is quantised, so it cannot hold the sum.
    """
    adapted = [(name, module) for name, module in core.named_modules() if hasattr(module, "lora_A")]
    for name, module in adapted:
        weight = module.get_base_layer().weight
        if not weight.is_floating_point():
            raise WeightsError(
                f"{name} is quantised, so adapters cannot be merged into it; load the model with "
                "model.frozen_precision=bf16 or fp32 and merge them there"
            )
    for name, module in adapted:
        layer = module.get_base_layer()
        if dtype is not None:
            layer.to(dtype)
        module.merge(safe_merge=True)
        parent, _, own = name.rpartition(".")
        setattr(core.get_submodule(parent), own, layer)
    return [name for name, _ in adapted]


def set_dropout_mode(core: nn.Module, training: bool) -> None:
    """Set the mode of the adapters' dropout; dropout of the frozen layers stays off."""
    for name, module in core.named_modules():
        if ".lora_dropout" in name:
            module.train(training)


def _targets(core: nn.Module, part: str, prefix: str, settings: LoraSettings, unread: Sequence[str]) -> list[str]:
    """Names, inside the part, of the linear layers that get an adapter."""
    root: Any = core.get_submodule(prefix.rstrip("."))
    head = root.get_output_embeddings() if part == "language_model" else None
    linear = [
        name
        for name, module in root.named_modules()
        if isinstance(module, nn.Linear) and module is not head and not f"{prefix}{name}.".startswith(tuple(unread))
    ]
    if settings.target_modules is None:
        return linear
    chosen, problems = [], []
    for target in settings.target_modules:
        hits = [name for name in linear if name == target or name.endswith(f".{target}")]
        if not hits:
            found = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
            problems.append(f"model.lora.target_modules: no linear layer '{target}' in {part}; it has {found}")
        chosen += hits
    if problems:
        raise ConfigError(problems, "the model configuration")
    return list(dict.fromkeys(chosen))
