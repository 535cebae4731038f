"""The parts of an image-text model of transformers, found by the names that its modules have there."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from lavis_emovit.errors import ConfigError
from lavis_emovit.models.image_text.packed import PACKED

# Names of a part's modules and parameters, outside of `model.` too. Those of the projector may be inside of the image
# encoder: the longest name decides.
_NAMES = {
    "vision_encoder": ("vision_tower", "visual", "vision_model", "vision_encoder"),
    "projector": (
        "multi_modal_projector", "connector", "visual.merger", "visual.deepstack_merger_list", "image_newline",
        "language_projection", "qformer", "query_tokens",
    ),
    "language_model": ("language_model", "text_model", "lm_head"),
}  # fmt: skip


def part_prefixes(core: nn.Module, name: str) -> dict[str, tuple[str, ...]]:
    """Part -> prefixes of its parameters, the prefix of its main module first.

    Raises:
        ConfigError: a part is missing, or a parameter belongs to none.
    """
    modules, parameters = dict(core.named_modules()), dict(core.named_parameters())
    found: dict[str, tuple[str, ...]] = {}
    for part, names in _NAMES.items():
        places = [place for one in names for place in (f"model.{one}", one) if place in modules or place in parameters]
        found[part] = tuple(f"{place}." if place in modules else place for place in places)
    lost = [one for one in parameters if not any(one.startswith(prefixes) for prefixes in found.values() if prefixes)]
    missing = [part for part, prefixes in found.items() if not prefixes]
    problems = [f"{name}: it has no {part} under a known name" for part in missing]
    if lost:
        problems.append(f"{name}: {lost[0]} and {len(lost) - 1} other parameters belong to no known part")
    if problems:
        raise ConfigError(problems, "the model configuration")
    return found


def join_precisions(core: nn.Module, projector: tuple[str, ...]) -> None:
    """Let the projector take the precision of its weights: trained ones are float32, features of a frozen encoder are
    not. Autocast does the same where it is on."""
    for prefix in projector:
        if not prefix.endswith("."):
            continue
        module = core.get_submodule(prefix.rstrip("."))
        for called in module.children() if isinstance(module, nn.ModuleList) else [module]:
            called.register_forward_pre_hook(_with_own_precision, with_kwargs=True)


def _with_own_precision(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
    weight = next(module.parameters())
    if torch.is_autocast_enabled(weight.device.type):
        return args, kwargs

    def cast(value: Any) -> Any:
        return value.to(weight.dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    return tuple(map(cast, args)), {name: cast(value) for name, value in kwargs.items()}


def has_encoder(config: Any) -> bool:
    """Whether the language model has an encoder, which reads a question by itself."""
    return bool(config.is_encoder_decoder or config.get_text_config().is_encoder_decoder)


def why_not_shared(core: Any) -> str | None:
    """Why texts of a model cannot share their beginning; None if they can."""
    config = core.config
    text = config.get_text_config()
    if config.model_type == "paligemma":
        return "its image tokens see the question"
    kinds = set(getattr(text, "layer_types", None) or ())
    if other := sorted(kinds - {"full_attention", "sliding_attention"}):
        return f"it has layers of {', '.join(other)}"
    if not getattr(core, "_supports_attention_backend", False):
        return "its attention cannot be replaced"
    if text._attn_implementation not in ("sdpa", PACKED):
        return f"model.attention={text._attn_implementation} takes no mask of any pattern"
    return None


def why_not_alone(core: Any) -> str | None:
    """Why the language model cannot be run by itself on embedded inputs; None if it can."""
    if hasattr(getattr(core, "model", None), "get_rope_index"):
        return "its positions have three axes"
    if "token_type_ids" in inspect.signature(core.forward).parameters:
        return "tokens of an image see each other in both directions"
    return None
