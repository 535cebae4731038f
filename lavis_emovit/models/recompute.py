"""Activation checkpointing: layers keep only their input, and the backward pass computes them again.

transformers' own checkpointing works in train mode only. A frozen part is in eval mode, but the gradient passes through
it and its activations are kept too; so layers are wrapped here, in any mode.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


def recompute_layers(part: nn.Module) -> None:
    """Wrap every layer of a part that transformers can checkpoint, in place."""
    for layer in part.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.forward = partial(_recomputed, layer.forward)  # type: ignore[method-assign]


def _recomputed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    # Non-reentrant: inputs may need no gradient, and dropout repeats its random states. The backward pass runs outside
    # of the blocks that are active now.
    return checkpoint(copy_context().run, forward, *args, use_reentrant=False, **kwargs)
