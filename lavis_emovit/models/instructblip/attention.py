"""Where query tokens look: the cross-attention of the Q-Former, as its layers compute it.

Legend: `H` heads, `Q` query tokens, `P` rows of image features, `D` width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch


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
