"""Translation between LAVIS's and transformers' names of InstructBLIP's tensors.

The values are the same with one exception: EVA's attention in LAVIS has a query and a value bias, transformers has one
bias for query, key and value. The key's part is zero in every LAVIS model. Other values would not change anything,
because they add the same number to all scores of a query.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count

import torch

from lavis_emovit.errors import WeightsError

# (LAVIS's pattern, transformers' replacement, transformers' pattern, LAVIS's replacement); the first match wins.
_Rule = tuple[re.Pattern[str], str, re.Pattern[str], str]


def _rule(lavis: str, ours: str) -> _Rule:
    """Rule between two dotted names: `#` is a layer number, `*` at the end is the rest."""

    def pattern(name: str) -> re.Pattern[str]:
        return re.compile("^" + re.escape(name).replace(r"\#", r"(\d+)").replace(r"\*", "(.+)") + "$")

    def replacement(name: str) -> str:
        numbers = count(1)
        return re.sub("[#*]", lambda _: rf"\g<{next(numbers)}>", name)

    return pattern(lavis), replacement(ours), pattern(ours), replacement(lavis)


_VISION, _BLOCK = "visual_encoder.", "visual_encoder.blocks.#."
_BERT, _LAYER = "Qformer.bert.", "Qformer.bert.encoder.layer.#."
RULES = tuple(
    _rule(lavis, ours)
    for lavis, ours in (
        (_VISION + "cls_token", "vision_model.embeddings.class_embedding"),
        (_VISION + "pos_embed", "vision_model.embeddings.position_embedding"),
        (_VISION + "patch_embed.proj.*", "vision_model.embeddings.patch_embedding.*"),
        (_BLOCK + "norm1.*", "vision_model.encoder.layers.#.layer_norm1.*"),
        (_BLOCK + "norm2.*", "vision_model.encoder.layers.#.layer_norm2.*"),
        (_BLOCK + "attn.qkv.weight", "vision_model.encoder.layers.#.self_attn.qkv.weight"),
        (_BLOCK + "attn.proj.*", "vision_model.encoder.layers.#.self_attn.projection.*"),
        (_BLOCK + "mlp.*", "vision_model.encoder.layers.#.mlp.*"),
        ("ln_vision.*", "vision_model.post_layernorm.*"),
        ("query_tokens", "query_tokens"),
        (_BERT + "embeddings.LayerNorm.*", "qformer.embeddings.layernorm.*"),
        (_BERT + "embeddings.*", "qformer.embeddings.*"),
        (_LAYER + "attention.self.*", "qformer.encoder.layer.#.attention.attention.*"),
        (_LAYER + "crossattention.self.*", "qformer.encoder.layer.#.crossattention.attention.*"),
        (_BERT + "encoder.*", "qformer.encoder.*"),
        ("llm_proj.*", "language_projection.*"),
        ("llm_model.*", "language_model.*"),
        # The names of LAVIS's Flan-T5 class.
        ("t5_proj.*", "language_projection.*"),
        ("t5_model.*", "language_model.*"),
    )
)
_POSITION_IDS = "Qformer.bert.embeddings.position_ids"
# Buffers that every model computes.
_COMPUTED = re.compile(r"(position_ids|rotary_emb\.inv_freq|masked_bias|\.attn\.bias)$")
# Heads for pre-training, which InstructBLIP and EmoVIT do not have.
_OTHER_HEADS = re.compile(r"^(Qformer\.cls\.|temp$|itm_head\.|vision_proj\.|text_proj\.)")
_VISION_BIAS = re.compile(r"^visual_encoder\.blocks\.(\d+)\.attn\.([qv])_bias$")
_OUR_BIAS = re.compile(r"^vision_model\.encoder\.layers\.(\d+)\.self_attn\.qkv\.bias$")
# EVA's own file: the encoder alone, without a prefix. LAVIS omits its last block and its head.
_EVA_BLOCK = re.compile(r"^blocks\.(\d+)\.")
EVA_BLOCKS_USED = 39


@dataclass
class Translation:
    """Tensors under their new names, and the old names of omitted ones, each with the reason."""

    state: dict[str, torch.Tensor]
    left_out: list[str] = field(default_factory=list)


def from_lavis(state: Mapping[str, torch.Tensor], source: str = "the file") -> Translation:
    """LAVIS's names -> those of transformers' `InstructBlipForConditionalGeneration`; values and precision stay.

    WeightsError for unknown keys or an incomplete attention bias.
    """
    result = Translation({})
    biases: dict[str, dict[str, torch.Tensor]] = {}
    unknown = []
    for name, tensor in state.items():
        if _COMPUTED.search(name):
            result.left_out.append(f"{name} (a buffer that every model computes)")
        elif _OTHER_HEADS.search(name):
            result.left_out.append(f"{name} (a head of the Q-Former's pre-training)")
        elif match := _VISION_BIAS.match(name):
            biases.setdefault(match[1], {})[match[2]] = tensor
        elif (renamed := _rename(name, 0)) is not None:
            result.state[renamed] = tensor
        else:
            unknown.append(name)
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise WeightsError(f"{source} has keys that are not LAVIS InstructBLIP's: {', '.join(unknown[:5])}{more}")
    for layer, bias in biases.items():
        if set(bias) != {"q", "v"}:
            raise WeightsError(f"{source}: visual_encoder.blocks.{layer}.attn has only one of q_bias and v_bias")
        joined = torch.cat([bias["q"], torch.zeros_like(bias["q"]), bias["v"]])
        result.state[f"vision_model.encoder.layers.{layer}.self_attn.qkv.bias"] = joined
    return result


def to_lavis(state: Mapping[str, torch.Tensor], is_seq2seq: bool) -> Translation:
    """transformers' names -> LAVIS's, for its Vicuna or (`is_seq2seq`) Flan-T5 class; WeightsError for unknown keys."""
    result = Translation({})
    unknown = []
    for name, tensor in state.items():
        if match := _OUR_BIAS.match(name):
            query, key, value = tensor.chunk(3)
            block = f"visual_encoder.blocks.{match[1]}.attn."
            result.state[block + "q_bias"], result.state[block + "v_bias"] = query.clone(), value.clone()
            if key.any():
                result.left_out.append(f"{name} (the key's part: LAVIS has no such bias, and no output depends on it)")
        elif (renamed := _rename(name, 2)) is not None:
            if is_seq2seq:
                renamed = re.sub(r"^llm_(proj|model)\.", r"t5_\1.", renamed)
            result.state[renamed] = tensor
        else:
            unknown.append(name)
    if unknown:
        raise WeightsError(f"there are no LAVIS names for {', '.join(unknown[:5])}")
    positions = result.state.get("Qformer.bert.embeddings.position_embeddings.weight")
    if positions is not None:
        result.state[_POSITION_IDS] = torch.arange(len(positions))[None]
    return result


def from_eva(state: Mapping[str, torch.Tensor]) -> Translation:
    """EVA's own image encoder file (`eva_vit_g.pth`) -> LAVIS's names; as in LAVIS, 39 blocks and no head."""
    result = Translation({})
    for name, tensor in state.items():
        block = _EVA_BLOCK.match(name)
        if block and int(block[1]) >= EVA_BLOCKS_USED:
            result.left_out.append(f"{name} (LAVIS uses the first {EVA_BLOCKS_USED} blocks)")
        elif block or name.startswith(("cls_token", "pos_embed", "patch_embed.")):
            result.state["visual_encoder." + name] = tensor
        else:
            result.left_out.append(f"{name} (not part of InstructBLIP's encoder)")
    return result


def _rename(name: str, side: int) -> str | None:
    for rule in RULES:
        pattern: re.Pattern[str] = rule[side]  # type: ignore[assignment]
        if pattern.match(name):
            return pattern.sub(str(rule[side + 1]), name)
    return None
