"""Sizes of a model from the shapes of its tensors, because a LAVIS file has no configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt
from typing import Any

import torch
from transformers import InstructBlipConfig

from lavis_emovit.errors import WeightsError

# Shapes do not show into how many heads a width is split; these are the published models' (ViT-g, BERT-base).
KNOWN_VISION_HEADS = {1408: 16}
KNOWN_QFORMER_HEADS = {768: 12}
# LAVIS's layer norm after the encoder has torch's default epsilon, unlike those inside the encoder.
LAVIS_POST_LAYERNORM_EPS = 1e-5
LAVIS_EPS_KEY = "post_layernorm_eps"  # in vision_config; transformers itself uses layer_norm_eps


def infer_config(
    state: Mapping[str, torch.Tensor],
    text_config: Any,
    vision_heads: int | None,
    qformer_heads: int | None,
    source: str,
) -> Any:
    """Configuration of the model that tensors under transformers' names belong to.

    Args:
        state: image encoder, Q-Former, query tokens and projection, complete.
        vision_heads, qformer_heads: attention heads; None for the width of a published model.
        source: of the tensors, for messages.

    Raises:
        WeightsError: a tensor is missing, or sizes contradict each other or the language model's.
    """

    def shape(name: str) -> tuple[int, ...]:
        if name not in state:
            raise WeightsError(f"{source} has no {name}, which determines the size of the model")
        return tuple(state[name].shape)

    width, _, patch, _ = shape("vision_model.embeddings.patch_embedding.weight")
    positions = shape("vision_model.embeddings.position_embedding")[1] - 1
    if isqrt(positions) ** 2 != positions:
        raise WeightsError(f"{source}: {positions} positions of the image encoder are not a square of patches")
    vocabulary, hidden = shape("qformer.embeddings.word_embeddings.weight")
    num_layers = _num_layers(state, r"^qformer\.encoder\.layer\.(\d+)\.", source)
    crossed = sorted(
        {int(m[1]) for name in state if (m := re.match(r"^qformer\.encoder\.layer\.(\d+)\.crossattention\.", name))}
    )
    frequency = crossed[1] if len(crossed) > 1 else num_layers
    if crossed != list(range(0, num_layers, frequency)):
        raise WeightsError(f"{source}: the Q-Former's cross-attention layers {crossed} are not evenly spaced")
    llm_width = shape("language_projection.weight")[0]
    if llm_width != text_config.hidden_size:
        raise WeightsError(
            f"{source} was made for a language model of width {llm_width}, this one ({text_config.model_type}) has "
            f"width {text_config.hidden_size}: set model.llm_model to the right one"
        )
    num_query_tokens, query_width = shape("query_tokens")[1:]
    if query_width != hidden:
        raise WeightsError(f"{source}: query tokens have width {query_width}, the Q-Former {hidden}")
    return InstructBlipConfig(
        vision_config={
            "hidden_size": width,
            "intermediate_size": shape("vision_model.encoder.layers.0.mlp.fc1.weight")[0],
            "num_hidden_layers": _num_layers(state, r"^vision_model\.encoder\.layers\.(\d+)\.", source),
            "num_attention_heads": _heads(width, vision_heads, KNOWN_VISION_HEADS, "vision_heads", source),
            "image_size": patch * isqrt(positions),
            "patch_size": patch,
            "qkv_bias": "vision_model.encoder.layers.0.self_attn.qkv.bias" in state,
            LAVIS_EPS_KEY: LAVIS_POST_LAYERNORM_EPS,
        },
        qformer_config={
            "hidden_size": hidden,
            "num_hidden_layers": num_layers,
            "num_attention_heads": _heads(hidden, qformer_heads, KNOWN_QFORMER_HEADS, "qformer_heads", source),
            "intermediate_size": shape("qformer.encoder.layer.0.intermediate_query.dense.weight")[0],
            "max_position_embeddings": shape("qformer.embeddings.position_embeddings.weight")[0],
            "vocab_size": vocabulary,
            "cross_attention_frequency": frequency,
            "encoder_hidden_size": width,
        },
        text_config=text_config.to_dict(),
        num_query_tokens=num_query_tokens,
    )


def _num_layers(state: Mapping[str, torch.Tensor], pattern: str, source: str) -> int:
    found = {int(match[1]) for name in state if (match := re.match(pattern, name))}
    if not found or found != set(range(len(found))):
        raise WeightsError(f"{source}: layers {sorted(found)} are not complete ({pattern})")
    return len(found)


def _heads(width: int, given: int | None, known: dict[int, int], key: str, source: str) -> int:
    heads = given or known.get(width)
    if heads is None:
        raise WeightsError(
            f"{source}: the number of attention heads for a width of {width} is not in a LAVIS file; "
            f"set {key} (model.{key} in a recipe, --{key.replace('_', '-')} for emovit convert)"
        )
    if width % heads:
        raise WeightsError(f"{source}: a width of {width} cannot be split into {heads} attention heads ({key})")
    return heads
