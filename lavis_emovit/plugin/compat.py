"""Names that LAVIS 1.0.2 imports from transformers and that newer releases of transformers removed.

Each is added where LAVIS expects it, when that module of transformers is imported: the function itself if transformers
only moved it, otherwise an equivalent from here. Nothing that transformers still has is replaced.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from lavis_emovit.plugin.wrapped_loader import WrappedLoader

PATCHED = ("transformers.modeling_utils", "transformers.pytorch_utils")
TOKENIZERS = "transformers.tokenization_utils_base"
MODEL_PARALLEL = "transformers.utils.model_parallel_utils"

# The dotted names that were added, for `emovit doctor`.
put_back: list[str] = []


class ShimFinder:
    """Meta-path finder that adds the missing names when transformers is imported.

    `report` gets a failed step and its error; the import itself then succeeds without the names.
    """

    def __init__(self, report: Callable[[str, Exception], None]):
        self._report = report

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """A spec with our loader for the modules that lack names, None for any other."""
        if name not in (*PATCHED, TOKENIZERS, MODEL_PARALLEL):
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is None and name == MODEL_PARALLEL:
            return ModuleSpec(name, _ModelParallelUtils())  # type: ignore[arg-type]
        if spec is not None and spec.loader is not None and name != MODEL_PARALLEL:
            spec.loader = WrappedLoader(spec.loader, self._run_and_patch)  # type: ignore[assignment]
        return spec

    def patch(self, module: ModuleType) -> None:
        """Add the names that a module of transformers lacks."""
        try:
            if module.__name__ == TOKENIZERS:
                add_special_token_names(module.PreTrainedTokenizerBase)
                return
            for function in (apply_chunking_to_forward, find_pruneable_heads_and_indices, prune_linear_layer):
                name = function.__name__
                if not hasattr(module, name):
                    pytorch_utils = importlib.import_module("transformers.pytorch_utils")
                    setattr(module, name, getattr(pytorch_utils, name, function))
                    put_back.append(f"{module.__name__}.{name}")
        except Exception as error:
            self._report(f"adding names that {module.__name__} no longer has", error)

    def _run_and_patch(self, module: ModuleType, loader: Any) -> None:
        loader.exec_module(module)
        self.patch(module)


class _ModelParallelUtils:
    """Loader of a module that transformers removed."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return ModuleType(spec.name, "Layer-to-device maps, kept for LAVIS.")

    def exec_module(self, module: ModuleType) -> None:
        for function in (assert_device_map, get_device_map):
            setattr(module, function.__name__, function)
        put_back.append(module.__name__)


def install(report: Callable[[str, Exception], None]) -> None:
    """Add the missing names: now in modules that are loaded, in the others when they are imported."""
    if any(isinstance(finder, ShimFinder) for finder in sys.meta_path):
        return
    finder = ShimFinder(report)
    sys.meta_path.insert(0, finder)
    for name in (*PATCHED, TOKENIZERS):
        if name in sys.modules:
            finder.patch(sys.modules[name])


def add_special_token_names(tokenizer_base: Any) -> None:
    """The old names of a tokenizer's extra special tokens."""
    for name, new in (
        ("additional_special_tokens", lambda self: self.extra_special_tokens),
        ("additional_special_tokens_ids", lambda self: self.convert_tokens_to_ids(self.extra_special_tokens)),
    ):
        if not hasattr(tokenizer_base, name):
            setattr(tokenizer_base, name, property(new))
            put_back.append(f"{TOKENIZERS}.{tokenizer_base.__name__}.{name}")


def apply_chunking_to_forward(forward: Callable[..., Any], chunk_size: int, chunk_dim: int, *tensors: Any) -> Any:
    """`forward` over equal chunks of the tensors along `chunk_dim`, joined again; one call if `chunk_size` is 0."""
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
    """Heads that are not pruned yet, and the positions (long, 1-d) that remain in the joined head dimension.

    `heads` are numbered as before any pruning, `num_heads` is their current number.
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
    """Consecutive layers spread evenly over the devices; the last one takes the remainder."""
    devices = list(devices)
    per_device = -(-num_layers // len(devices))
    layers = list(range(num_layers))
    return {device: layers[i * per_device : (i + 1) * per_device] for i, device in enumerate(devices)}


def assert_device_map(device_map: Mapping[int, Iterable[int]], num_layers: int) -> None:
    """Raise ValueError unless the map names every layer from 0 to `num_layers` - 1 exactly once."""
    named = sorted(layer for layers in device_map.values() for layer in layers)
    if named != list(range(num_layers)):
        raise ValueError(f"the device map must name each of the layers 0 to {num_layers - 1} once, it names {named}")
