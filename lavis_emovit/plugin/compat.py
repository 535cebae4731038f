"""Names that LAVIS 1.0.2 imports from transformers and that newer releases of transformers dropped.

Each is put back where LAVIS looks for it: the function itself where transformers only moved it, else an equivalent from
here. Nothing that transformers still has is replaced.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any


def apply() -> list[str]:
    """Put the missing names back.

    Returns:
        the dotted names that were missing, for `emovit doctor`.
    """
    put_back = []
    pytorch_utils = importlib.import_module("transformers.pytorch_utils")
    modeling_utils = importlib.import_module("transformers.modeling_utils")
    for function in (apply_chunking_to_forward, find_pruneable_heads_and_indices, prune_linear_layer):
        name = function.__name__
        for module in (pytorch_utils, modeling_utils):
            if not hasattr(module, name):
                setattr(module, name, getattr(pytorch_utils, name, function))
                put_back.append(f"{module.__name__}.{name}")
    if _add_module("transformers.utils.model_parallel_utils", (assert_device_map, get_device_map)):
        put_back.append("transformers.utils.model_parallel_utils")
    return put_back


def _add_module(name: str, functions: Iterable[Callable[..., Any]]) -> bool:
    try:
        importlib.import_module(name)
        return False
    except ModuleNotFoundError:
        module = ModuleType(name, "Layer-to-device maps, kept for LAVIS.")
        for function in functions:
            setattr(module, function.__name__, function)
        sys.modules[name] = module
        return True


def apply_chunking_to_forward(forward: Callable[..., Any], chunk_size: int, chunk_dim: int, *tensors: Any) -> Any:
    """`forward` over equal chunks of the tensors along `chunk_dim`, joined again; one call where `chunk_size` is 0."""
    if chunk_size <= 0:
        return forward(*tensors)
    import torch

    lengths = {tensor.shape[chunk_dim] for tensor in tensors}
    if len(lengths) != 1:
        raise ValueError(f"the tensors differ in dimension {chunk_dim}: {sorted(lengths)}")
    if lengths.pop() % chunk_size:
        raise ValueError(f"dimension {chunk_dim} is not a multiple of the chunk size {chunk_size}")
    chunks = zip(*(tensor.split(chunk_size, dim=chunk_dim) for tensor in tensors))
    return torch.cat([forward(*chunk) for chunk in chunks], dim=chunk_dim)


def find_pruneable_heads_and_indices(
    heads: Iterable[int], num_heads: int, head_size: int, already_pruned_heads: Iterable[int]
) -> tuple[set[int], Any]:
    """Heads that are still there to prune, and the positions (long, 1-d) that stay in the joined head dimension.

    `heads` count from before any pruning, `num_heads` is what is left now.
    """
    import torch

    pruned = set(already_pruned_heads)
    to_prune = set(heads) - pruned
    keep = torch.ones(num_heads, head_size, dtype=torch.bool)
    for head in to_prune:
        keep[head - sum(1 for other in pruned if other < head)] = False
    return to_prune, keep.flatten().nonzero().flatten()


def prune_linear_layer(layer: Any, index: Any, dim: int = 0) -> Any:
    """A linear layer with the rows (`dim` 0, outputs) or columns (`dim` 1, inputs) `index` of `layer` only."""
    import torch

    weight = layer.weight.detach().index_select(dim, index.to(layer.weight.device))
    pruned = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=layer.bias is not None).to(weight)
    with torch.no_grad():
        pruned.weight.copy_(weight)
        if layer.bias is not None:
            pruned.bias.copy_(layer.bias if dim == 1 else layer.bias[index.to(layer.bias.device)])
    return pruned


def get_device_map(num_layers: int, devices: Iterable[int]) -> dict[int, list[int]]:
    """Consecutive layers spread evenly over the devices, the last one taking what is left."""
    devices = list(devices)
    per_device = -(-num_layers // len(devices))
    layers = list(range(num_layers))
    return {device: layers[i * per_device : (i + 1) * per_device] for i, device in enumerate(devices)}


def assert_device_map(device_map: Mapping[int, Iterable[int]], num_layers: int) -> None:
    """Raise ValueError unless the map names every layer from 0 to `num_layers` - 1 exactly once."""
    named = sorted(layer for layers in device_map.values() for layer in layers)
    if named != list(range(num_layers)):
        raise ValueError(f"the device map must name each of the layers 0 to {num_layers - 1} once, it names {named}")
