"""Weights of cross-attention as transformers computes them with its plain implementation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def eager_weights(model: Any, call: Callable[[], object]) -> torch.Tensor:
    """Mean over layers, heads and query tokens of the weights in a call about one image, [rows of features]."""
    found, handles = [], []
    for name, module in model.core.qformer.named_modules():
        if name.endswith("crossattention.attention"):
            module.config._attn_implementation = "eager"
            handles.append(module.register_forward_hook(lambda module, inputs, output: found.append(output[1])))
    call()
    for handle in handles:
        handle.remove()
    assert found
    return torch.stack([weights[0].mean(dim=(0, 1)) for weights in found]).mean(dim=0)
