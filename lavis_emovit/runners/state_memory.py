"""Memory of weights, gradients and optimizer state, without ZeRO and at each of its stages.

AdamW needs 16 bytes for each trained parameter: float32 weight and gradient, and two float32 moments. ZeRO (Rajbhandari
et al. 2020, https://arxiv.org/abs/1910.02054, section 3) partitions moments (stage 1), gradients (stage 2) and weights
(stage 3) over the ranks. DeepSpeed also steps a float32 copy of its partition of the weights, 4 bytes per parameter. It
partitions gradients at stage 1 too if they are reduced during the backward pass, as in the files of this package.
Activations, communication buckets and the allocator's reserve are not included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Bytes for each trained parameter.
WEIGHT, COPY, GRADIENT, MOMENTS = 4, 4, 4, 8


@dataclass(frozen=True)
class StateBytes:
    """Bytes on one process.

    Attributes:
        parts: name -> bytes where the model runs.
        host: in host memory, for offloaded state.
    """

    parts: Mapping[str, int]
    host: int = 0

    @property
    def device(self) -> int:
        return sum(self.parts.values())


def state_bytes(
    num_trained: int,
    frozen_bytes: int,
    *,
    stage: int = 0,
    num_ranks: int = 1,
    offload_optimizer: bool = False,
    offload_param: bool = False,
) -> StateBytes:
    """Weights, gradients and moments of one process after the backward pass.

    Args:
        num_trained: trained parameters, in float32.
        frozen_bytes: size of the frozen weights.
        stage: ZeRO stage; 0 for DeepSpeed without ZeRO and for the torch engine.
        num_ranks: processes that share the state.
        offload_optimizer: moments, stepped copy and gradients are in host memory.
        offload_param: partitioned weights are in host memory too (stage 3).
    """
    num_shards = num_ranks if stage else 1
    optimizer = {"gradients": GRADIENT, "moments": MOMENTS, "stepped copy": COPY if stage else 0}
    parts = {
        "weights": (WEIGHT * num_trained + frozen_bytes) // (num_ranks if stage == 3 else 1),
        **{name: size * num_trained // num_shards for name, size in optimizer.items()},
    }
    moved = [*(optimizer if stage and offload_optimizer else ()), *(["weights"] if offload_param else [])]
    host = sum(parts[name] for name in moved)
    return StateBytes({**parts, **dict.fromkeys(moved, 0)}, host)
