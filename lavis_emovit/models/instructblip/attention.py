"""The cross-attention of the Q-Former: where query tokens look, and keys and values that questions share.

Legend: `H` heads, `Q` query tokens, `P` rows of image features, `D` width of a head, `B` images.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from copy import copy
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.models.instructblip.modeling_instructblip import eager_attention_forward

_SHARED = "emovit_shared_"
_IMAGE_OF_ROW: ContextVar[torch.Tensor | None] = ContextVar("image_of_row", default=None)


@contextmanager
def attention_means(qformer: Any) -> Iterator[list[torch.Tensor]]:
    """Collects float32 [P] of every cross-attention that the Q-Former computes for one image inside the block: the mean
    over heads and query tokens of softmax(q k / sqrt(D)) (Vaswani et al. 2017, equation 1).

    Fast attention returns no weights, so they are computed from the inputs of each layer.
    """
    found: list[torch.Tensor] = []

    def collect(module: Any, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        hidden = inputs[0] if inputs else keywords["hidden_states"]
        heads = module.num_attention_heads
        q_HQD, k_HPD = (
            layer(states)[0].float().unflatten(-1, (heads, -1)).transpose(0, 1)
            for layer, states in ((module.query, hidden), (module.key, keywords["encoder_hidden_states"]))
        )
        scores_HQP = q_HQD @ k_HPD.transpose(1, 2) * q_HQD.shape[-1] ** -0.5
        found.append(scores_HQP.softmax(dim=-1).mean(dim=(0, 1)))

    with ExitStack() as hooks:
        for name, module in qformer.named_modules():
            if name.endswith("crossattention.attention"):
                handle = module.register_forward_pre_hook(collect, with_kwargs=True)
                hooks.callback(handle.remove)
        yield found


@contextmanager
def reading_images(image_of_row: torch.Tensor) -> Iterator[None]:
    """Inside the block, row n of the Q-Former reads the image features at place `image_of_row[n]`, long [N], so keys
    and values are computed once an image, whatever asks about it."""
    token = _IMAGE_OF_ROW.set(image_of_row)
    try:
        yield
    finally:
        _IMAGE_OF_ROW.reset(token)


def share_keys_and_values(qformer: Any) -> None:
    """Let the Q-Former's cross-attention follow `reading_images`, with the attention that it is configured for."""
    for name, module in qformer.named_modules():
        if name.endswith("crossattention.attention"):
            # Self-attention keeps the configuration.
            module.plain_config, module.config = module.config, copy(module.config)
            module.config._attn_implementation = f"{_SHARED}{module.config._attn_implementation}"
            AttentionInterface.register(module.config._attn_implementation, _attention)


class _Plain:
    """A cross-attention with the configuration of before, where flash attention looks for the name of its kernels."""

    def __init__(self, module: Any):
        self._module, self.config = module, module.plain_config

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _attention(module: Any, q_NHQD: Any, k_BHPD: Any, v_BHPD: Any, *args: Any, **kwargs: Any) -> Any:
    image_of_row = _IMAGE_OF_ROW.get()
    if image_of_row is not None:
        # Indexing, not `index_select`, whose gradient on a GPU adds in an order that changes.
        k_BHPD, v_BHPD = k_BHPD[image_of_row], v_BHPD[image_of_row]
    plain = _Plain(module)
    attention = AttentionInterface().get_interface(plain.config._attn_implementation, eager_attention_forward)
    return attention(plain, q_NHQD, k_BHPD, v_BHPD, *args, **kwargs)
