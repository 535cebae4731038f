"""Activation checkpointing: layers keep their input only and are computed once more in the backward pass.

transformers' own checkpointing acts in train mode alone. A frozen part stays in eval mode, and its activations are kept
all the same, since the gradient goes through it: so layers are wrapped here, whatever their mode.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


def recompute_layers(part: nn.Module) -> int:
    """Wrap every layer of a part that transformers can checkpoint, in place; returns their number."""
    layers = [module for module in part.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        layer.forward = partial(_recomputed, layer.forward)  # type: ignore[method-assign]
    return len(layers)


def _recomputed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    # Non-reentrant: inputs may need no gradient, and random states of dropout come back as they were.
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
