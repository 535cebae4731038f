"""The parts of transformers' `InstructBlipForConditionalGeneration`: prefixes, unused parameters, compiling."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lavis_emovit.models import part_names
from lavis_emovit.models.lora import base_name, is_adapter

PART_PREFIXES = {
    "qformer": ("qformer.",),
    "query_tokens": ("query_tokens",),
    "language_projection": ("language_projection.",),
    "vision_layernorm": ("vision_model.post_layernorm.",),
    "vision_encoder": ("vision_model.",),
    "language_model": ("language_model.",),
}
FRAMES = "qformer.frames."  # `FrameReader`, which LAVIS and transformers do not have
# A LAVIS file may lack these, because LAVIS loads them from elsewhere.
OPTIONAL = ("vision_encoder", "language_model")


def part_of(name: str) -> str:
    """The part that a parameter belongs to."""
    return part_names.part_of(name, PART_PREFIXES)


def without_adapters(core: nn.Module) -> dict[str, torch.Tensor]:
    """All parameters by the names that they have in a model without adapters."""
    return {base_name(name): parameter for name, parameter in core.named_parameters() if not is_adapter(name)}


def unread_layers(core: Any) -> tuple[str, ...]:
    """Prefixes of layers whose output nothing reads: the feed-forward layer for text in the Q-Former's last layer,
    of which only the output of the query tokens is used."""
    last = f"qformer.encoder.layer.{core.config.qformer_config.num_hidden_layers - 1}."
    return f"{last}intermediate.", f"{last}output."


def unused_parameters(core: nn.Module, qformer_reads_text: bool) -> list[str]:
    """Parameters that no computation uses: those for the question if the Q-Former does not read it."""
    if qformer_reads_text:
        return []
    return [name for name in map(base_name, dict(core.named_parameters())) if _is_for_question(name)]


def dead_parameters(core: nn.Module, qformer_reads_text: bool) -> list[str]:
    """Parameters whose gradient is zero for any data, up to rounding.

    - `unread_layers`: the gradient is exactly zero. The original code trains them too, with the same effect.
    - Biases of the Q-Former's keys: they add the same number to all scores of a query, which the softmax cancels.
    - `unused_parameters`: they have no gradient at all, so they are frozen.

    All others have a gradient in every step, so data-parallel training does not have to search for unused ones.
    """
    unread = unread_layers(core)
    unused = set(unused_parameters(core, qformer_reads_text))
    return [
        name
        for name, _ in core.named_parameters()
        if base_name(name) in unused
        or name.startswith(unread)
        or (name.startswith("qformer.") and base_name(name).endswith(".attention.key.bias"))
    ]


def _is_for_question(name: str) -> bool:
    if name.startswith(("qformer.embeddings.word_embeddings.", "qformer.embeddings.position_embeddings.")):
        return True
    part = name.split(".")
    return part[:3] == ["qformer", "encoder", "layer"] and part[4] in ("intermediate", "output")


def compile_targets(core: Any, part: str) -> list[tuple[str, nn.Module]]:
    """Names and modules that `torch.compile` translates for a part; empty for parts that are not worth it."""
    if part == "vision_encoder":
        return [("core.vision_model.encoder", core.vision_model.encoder)]
    if part == "qformer":
        return [("core.qformer", core.qformer)]
    if part != "language_model":
        return []
    language_model = core.language_model
    # Without the output head, whose input is chosen outside.
    if core.config.use_decoder_only_language_model:
        return [("core.language_model.base_model", language_model.base_model)]
    return [(f"core.language_model.{side}", getattr(language_model, side)) for side in ("encoder", "decoder")]
