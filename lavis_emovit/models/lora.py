"""Low-rank adapters on the Q-Former or the language model, through peft, and folding them into the weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lavis_emovit.errors import ConfigError, WeightsError
from lavis_emovit.models.instructblip.settings import LoraSettings

INSTALL_LINE = "pip install 'lavis-emovit[lora]' (or: pip install 'peft>=0.15')"
_MARKS = (".lora_A.", ".lora_B.")


def is_adapter(name: str) -> bool:
    """Whether a parameter belongs to an adapter."""
    return any(mark in name for mark in _MARKS)


def base_name(name: str) -> str:
    """The name that a parameter had before adapters were put beside it."""
    return name.replace(".base_layer.", ".")


def inject(core: nn.Module, settings: LoraSettings) -> list[str]:
    """Put adapters beside linear layers, in place; the model computes the same until they have learned.

    Args:
        core: transformers' InstructBLIP modules.

    Returns:
        names of the adapted modules, inside `core`.

    Raises:
        ConfigError: peft is missing, or a target is no linear layer of the part.
    """
    peft = _peft()
    adapted = []
    for part in settings.parts:
        targets = _targets(core, part, settings)
        adapted += [f"{part}.{target}" for target in targets]
        config = peft.LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=targets
        )
        # The first values are a matter of the recipe, not of what was drawn before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            peft.inject_adapter_in_model(config, core.get_submodule(part))
    return adapted


def merge(core: nn.Module, dtype: torch.dtype | None = None) -> list[str]:
    """Fold all adapters into the weights that they stand beside, in place; afterwards `core` is a plain model again.

    Args:
        core: modules with or without adapters.
        dtype: of the weights that an adapter was folded into; left out, they keep theirs, and a weight in half
            precision rounds the sum.

    Returns:
        names of the modules that had an adapter.

    Raises:
        WeightsError: a weight is quantised, so that the sum cannot be kept.
    """
    adapted = [(name, module) for name, module in core.named_modules() if hasattr(module, "lora_A")]
    for name, module in adapted:
        weight = module.get_base_layer().weight
        if not weight.is_floating_point():
            raise WeightsError(
                f"{name} is quantised, adapters cannot be folded into it; load the model with "
                "model.frozen_precision=bf16 or fp32 and fold them in there"
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
    """Train mode for the adapters' own dropout; that of the frozen part stays off."""
    for name, module in core.named_modules():
        if ".lora_dropout" in name:
            module.train(training)


def _targets(core: nn.Module, part: str, settings: LoraSettings) -> list[str]:
    """Names, inside the part, of the linear layers that get an adapter."""
    root: Any = core.get_submodule(part)
    config: Any = core.config
    head = root.get_output_embeddings() if part == "language_model" else None
    # Nothing reads what the last layer of the Q-Former makes of the question's own tokens.
    unread = f"encoder.layer.{config.qformer_config.num_hidden_layers - 1}." if part == "qformer" else None
    linear = [
        name
        for name, module in root.named_modules()
        if isinstance(module, nn.Linear)
        and module is not head
        and not (unread and name.startswith((f"{unread}intermediate.", f"{unread}output.")))
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


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ConfigError([f"model.lora: needs the package peft: {INSTALL_LINE}"], "the model configuration") from error
    return peft
