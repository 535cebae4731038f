"""Low-rank adapters on the linear layers of a part, through peft, and merging them into the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from lavis_emovit.errors import ConfigError, WeightsError
from lavis_emovit.models.part_names import Prefixes, part_of
from lavis_emovit.models.settings import LoraSettings

INSTALL_LINE = "pip install 'lavis-emovit[lora]' (or: pip install 'peft>=0.15')"
_MARKS = (".lora_A.", ".lora_B.")
# What peft looks for to choose its kind of adapter.
QUANTIZED_FLAGS = ("is_loaded_in_8bit", "is_loaded_in_4bit")


def is_adapter(name: str) -> bool:
    """Whether a parameter belongs to an adapter."""
    return any(mark in name for mark in _MARKS)


def base_name(name: str) -> str:
    """The name that a parameter has without adapters."""
    return name.replace(".base_layer.", ".")


def inject(core: nn.Module, prefixes: Prefixes, settings: LoraSettings, unread: Sequence[str] = ()) -> None:
    """Add adapters to linear layers, in place; the model computes the same until they are trained.

    Args:
        prefixes: part -> prefixes of its parameters.
        unread: prefixes of layers that get none, because nothing reads their output.

    Raises:
        ConfigError: peft is missing, or a part has no linear layer of that name.
    """
    peft = load_peft()
    # Of all parts first, because adapters are linear layers too.
    for targets in find_targets(core, prefixes, settings, unread).values():
        config = peft.LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules=targets,
        )
        # The initial values depend on the recipe only, not on random numbers drawn before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            inject_config(core, config)


def load_peft() -> Any:
    """The package peft; ConfigError if it is missing."""
    try:
        import peft
    except ImportError as error:
        raise ConfigError([f"model.lora: needs the package peft: {INSTALL_LINE}"], "the model configuration") from error
    return peft


def inject_config(core: nn.Module, config: Any) -> None:
    """Add the adapters of a `peft.LoraConfig`, in place."""
    # peft looks for these at the root alone.
    flags = [flag for flag in QUANTIZED_FLAGS if any(getattr(module, flag, False) for module in core.modules())]
    added = [flag for flag in flags if not getattr(core, flag, False)]
    for flag in added:
        setattr(core, flag, True)
    load_peft().inject_adapter_in_model(config, core)
    for name in (*added, "peft_config"):  # the next call must find none
        delattr(core, name)


def find_targets(
    core: nn.Module, prefixes: Prefixes, settings: LoraSettings, unread: Sequence[str] = ()
) -> dict[str, list[str]]:
    """Part -> names of the linear layers that `inject` adapts; ConfigError as there."""
    models: list[Any] = [module for module in core.modules() if hasattr(module, "get_output_embeddings")]
    heads = {model.get_output_embeddings() for model in models}
    found: dict[str, list[str]] = {}
    problems: list[str] = []
    for part in settings.parts:
        modules = {
            name: module
            for name, module in core.named_modules()
            if f"{name}.".startswith(prefixes[part]) and part_of(f"{name}.", prefixes) == part
        }
        linear = [
            name
            for name, module in modules.items()
            if isinstance(module, nn.Linear) and module not in heads and not f"{name}.".startswith(tuple(unread))
        ]
        if settings.target_modules is None:
            found[part] = linear
            continue
        chosen: list[str] = []
        for target in settings.target_modules:
            hits = [name for name in linear if _is_called(name, target)]
            if not hits:
                others = {type(module).__name__ for name, module in modules.items() if _is_called(name, target)}
                kinds = f"; '{target}' is {', '.join(sorted(others))}" if others else ""
                has = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
                problems.append(f"model.lora.target_modules: no linear layer '{target}' in {part}{kinds}; it has {has}")
            chosen += hits
        found[part] = list(dict.fromkeys(chosen))
    if problems:
        raise ConfigError(problems, "the model configuration")
    return found


def merge(core: nn.Module, dtype: torch.dtype | None = None) -> list[str]:
    """Merge all adapters into the weights of their layers, in place; afterwards `core` is a plain model again.

    Args:
        dtype: of the merged weights; None keeps theirs, and half precision rounds the sum.

    Returns:
        names of the modules that had an adapter.

    Raises:
        WeightsError: a weight is quantised, so it cannot hold the sum.
    """
    adapted = _adapted(core)
    for name, module in adapted:
        layer = module.get_base_layer()
        if dtype is not None:
            layer.to(dtype)
        module.merge(safe_merge=True)
        parent, _, own = name.rpartition(".")
        setattr(core.get_submodule(parent), own, layer)
    return [name for name, _ in adapted]


@torch.no_grad()
def merged_tensors(
    core: nn.Module, wanted: Callable[[str], bool] = lambda name: True
) -> Iterator[tuple[str, torch.Tensor]]:
    """The wanted ones of the tensors that `merge` would leave, one at a time, without changing `core`; WeightsError as
    there."""
    adapted = {f"{name}.weight": module for name, module in _adapted(core)}
    for name, tensor in core.state_dict().items():
        if is_adapter(name):
            continue
        name = base_name(name)
        if not wanted(name):
            continue
        if (module := adapted.get(name)) is not None:
            (adapter,) = module.active_adapters
            tensor = tensor + module.get_delta_weight(adapter).to(tensor)
        yield name, tensor


def merged_names(core: nn.Module) -> list[str]:
    """The names of `merged_tensors`, without merging; WeightsError as there."""
    _adapted(core)  # refuses what cannot be merged
    return [base_name(name) for name in core.state_dict() if not is_adapter(name)]


def _adapted(core: nn.Module) -> list[tuple[str, Any]]:
    """The modules with an adapter, by name; WeightsError for one whose weight is quantised."""
    adapted: list[tuple[str, Any]] = [(name, one) for name, one in core.named_modules() if hasattr(one, "lora_A")]
    for name, module in adapted:
        if not module.get_base_layer().weight.is_floating_point():
            raise WeightsError(
                f"{name} is quantised, so adapters cannot be merged into it; load the model with "
                "model.frozen_precision=bf16 or fp32 and merge them there"
            )
    return adapted


def set_dropout_mode(core: nn.Module, training: bool) -> None:
    """Set the mode of the adapters' dropout; dropout of the frozen layers stays off."""
    for name, module in core.named_modules():
        if ".lora_dropout" in name:
            module.train(training)


def _is_called(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
