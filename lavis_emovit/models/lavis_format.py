"""LAVIS-format checkpoints: reading them without running pickled code, and their key names in transformers' layout."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch

from lavis_emovit.errors import WeightsError

# (pattern of LAVIS's key, transformers' key); the first that matches wins.
RENAMES = (
    (r"^visual_encoder\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^visual_encoder\.pos_embed$", "vision_model.embeddings.position_embedding"),
    (r"^visual_encoder\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual_encoder\.blocks\.(\d+)\.norm([12])\.", r"vision_model.encoder.layers.\1.layer_norm\2."),
    (r"^visual_encoder\.blocks\.(\d+)\.attn\.qkv\.", r"vision_model.encoder.layers.\1.self_attn.qkv."),
    (r"^visual_encoder\.blocks\.(\d+)\.attn\.proj\.", r"vision_model.encoder.layers.\1.self_attn.projection."),
    (r"^visual_encoder\.blocks\.(\d+)\.mlp\.", r"vision_model.encoder.layers.\1.mlp."),
    (r"^ln_vision\.", "vision_model.post_layernorm."),
    (r"^query_tokens$", "query_tokens"),
    (r"^Qformer\.bert\.embeddings\.LayerNorm\.", "qformer.embeddings.layernorm."),
    (r"^Qformer\.bert\.embeddings\.", "qformer.embeddings."),
    (
        r"^Qformer\.bert\.encoder\.layer\.(\d+)\.(attention|crossattention)\.self\.",
        r"qformer.encoder.layer.\1.\2.attention.",
    ),
    (r"^Qformer\.bert\.encoder\.", "qformer.encoder."),
    (r"^(?:llm_proj|t5_proj)\.", "language_projection."),
    (r"^(?:llm_model|t5_model)\.", "language_model."),
)
# In the files, of no use: buffers that are computed, and the head of the Q-Former's own pre-training.
IGNORED_KEYS = re.compile(
    r"(position_ids$|rotary_emb\.inv_freq$|^Qformer\.cls\.|^temp$|^itm_head\.|^vision_proj\.|^text_proj\.)"
)
_BIAS = re.compile(r"^visual_encoder\.blocks\.(\d+)\.attn\.([qv])_bias$")


def read_lavis_file(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a `.pth` file, as tensors on the CPU; nothing pickled is executed.

    Raises:
        WeightsError: the file is truncated, is no checkpoint, or needs pickled code to be read.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise WeightsError(
            f"{path} cannot be read as a state dict ({str(error).splitlines()[0]}). It is cut off, or a whole pickled "
            "module, which is not loaded because that would run the code inside it."
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise WeightsError(f"{path} holds no state dict of tensors (expected one, or one under the key 'model')")
    return dict(content)


def convert_lavis_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """LAVIS's names and shapes -> those of transformers' `InstructBlipForConditionalGeneration`.

    EVA's attention has a query and a value bias; transformers keeps one bias for all three, zero for the key.

    Raises:
        WeightsError: keys that no rule knows; the text lists them.
    """
    converted: dict[str, torch.Tensor] = {}
    biases: dict[str, dict[str, torch.Tensor]] = {}
    unknown = []
    for name, tensor in state.items():
        if IGNORED_KEYS.search(name):
            continue
        if match := _BIAS.match(name):
            biases.setdefault(match[1], {})[match[2]] = tensor
            continue
        for pattern, target in RENAMES:
            renamed, hits = re.subn(pattern, target, name)
            if hits:
                converted[renamed] = tensor
                break
        else:
            unknown.append(name)
    if unknown:
        raise WeightsError(f"{len(unknown)} keys are not LAVIS InstructBLIP keys, the first: {', '.join(unknown[:5])}")
    for layer, bias in biases.items():
        if set(bias) != {"q", "v"}:
            raise WeightsError(f"visual_encoder.blocks.{layer}.attn has only one of q_bias and v_bias")
        joined = torch.cat([bias["q"], torch.zeros_like(bias["q"]), bias["v"]])
        converted[f"vision_model.encoder.layers.{layer}.self_attn.qkv.bias"] = joined
    return converted
