"""Memory of what is trained, and of the frozen weights beside it, for each way of spreading them over processes.

AdamW keeps two moments in float32 beside float32 weights and their gradients: 16 bytes for each parameter that learns.
ZeRO (Rajbhandari et al. 2020, https://arxiv.org/abs/1910.02054, section 3) spreads moments (stage 1), gradients (stage
2) and weights (stage 3) over the ranks. DeepSpeed steps a copy of its share of the weights, 4 bytes a parameter more,
whatever their precision, and at stages 1 and 2 spreads gradients alike where they are exchanged during the backward
pass, as in the files that come with the package. Activations, buckets and the allocator's reserve come on top.
"""

from __future__ import annotations

from dataclasses import dataclass

_WEIGHT, _COPY, _GRADIENT, _MOMENTS = 4, 4, 4, 8


@dataclass(frozen=True)
class StateBytes:
    """Bytes on one process.

    Attributes:
        device: where the model runs.
        host: in the memory of the machine instead, for offloaded state.
    """

    device: int
    host: int = 0


def state_bytes(
    num_trained: int,
    frozen_bytes: int,
    *,
    stage: int = 0,
    num_ranks: int = 1,
    offload_optimizer: bool = False,
    offload_param: bool = False,
) -> StateBytes:
    """Weights, gradients and moments on one process when all gradients are there.

    Args:
        num_trained: parameters that learn, in float32.
        frozen_bytes: of the frozen weights, in whatever precision.
        stage: ZeRO stage; 0 for DeepSpeed without ZeRO and for the torch engine.
        num_ranks: processes that share the state.
        offload_optimizer: moments, the copy that is stepped and gradients are in the machine's memory.
        offload_param: the shares of the weights are there as well (stage 3).
    """
    if stage == 0:
        return StateBytes((_WEIGHT + _GRADIENT + _MOMENTS) * num_trained + frozen_bytes)
    stepped = (_COPY + _GRADIENT + _MOMENTS) * num_trained // num_ranks
    weights = _WEIGHT * num_trained + frozen_bytes
    if stage == 3:
        weights //= num_ranks
    host = (stepped if offload_optimizer else 0) + (weights if offload_param else 0)
    return StateBytes(stepped + weights - host, host)
