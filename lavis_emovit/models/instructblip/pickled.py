"""Reading `.pth` files without running code that is pickled in them.

`torch.save(state_dict)` is read by torch's own `weights_only` loader. `torch.save(model)`, which EmoVIT's training
script wrote, pickles whole objects: loading it normally imports and runs code that the file names. Here every class and
function in the file, except those that rebuild tensors, is replaced by an inert class that only keeps its arguments;
the tensors are then collected from the tables of the modules.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from lavis_emovit.errors import WeightsError, first_line
from lavis_emovit.files import regular_file

# The only names that are imported: they assemble tensors and containers.
_REBUILDERS = {
    ("collections", "OrderedDict"),
    ("builtins", "set"),
    ("__builtin__", "set"),  # in pickle protocol 2
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch", "Size"),
    ("torch", "device"),
    ("torch.storage", "UntypedStorage"),
    ("torch.nn.parameter", "Parameter"),
}
_WRAPPERS = ("model", "module", "state_dict")  # keys of a state dict


class _Inert:
    """An object of a class that is not loaded; keeps its state and does nothing."""

    def __init__(self, *_: Any, **__: Any):
        self.kept: dict[str, Any] = {}

    def __new__(cls, *_: Any, **__: Any) -> _Inert:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        # Classes with slots have a pair; its first half is the dictionary.
        state = state[0] if isinstance(state, tuple) and state else state
        self.kept = dict(state) if isinstance(state, Mapping) else {}

    def __call__(self, *_: Any, **__: Any) -> _Inert:
        return _Inert()

    # Unpickling fills subclasses of list, dict and set by these.
    def append(self, _: Any) -> None: ...
    def extend(self, _: Any) -> None: ...
    def add(self, _: Any) -> None: ...
    def __setitem__(self, key: Any, value: Any) -> None: ...


class _InertUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _REBUILDERS:
            return super().find_class(module, name)
        if module == "torch" and (name.endswith("Storage") or isinstance(getattr(torch, name, None), torch.dtype)):
            return getattr(torch, name)
        return type(name, (_Inert,), {})


def _load_inert(file: Any, **_: Any) -> Any:
    return _InertUnpickler(file).load()


_INERT_PICKLE = SimpleNamespace(Unpickler=_InertUnpickler, load=_load_inert, __name__="inert_pickle")


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a `.pth` file by name, on the CPU; no code of the file is executed.

    Accepts a state dict, one under the key `model`, `module` or `state_dict`, and a whole pickled module.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except pickle.UnpicklingError:
        content = _read_inert(path)
    except Exception as error:  # torch's readers raise many types on a damaged file
        raise _unreadable(path, error) from error
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), (Mapping, _Inert)):
            content = content[key]
    if isinstance(content, _Inert):
        content = dict(_module_tensors(content))
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} has a {type(content).__name__}, expected a state dict or a module")
    tensors = {str(name): value.detach() for name, value in content.items() if isinstance(value, torch.Tensor)}
    if len(tensors) < len(content):
        others = [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]
        raise WeightsError(
            f"{path} is not a state dict of tensors: {', '.join(others[:5])} are not tensors "
            f"(expected a state dict, or one under the key {', '.join(repr(key) for key in _WRAPPERS)})"
        )
    if not tensors:
        raise WeightsError(f"{path} has no tensors")
    return tensors


def _is_zip(path: Path) -> bool:
    with regular_file(path).open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _read_inert(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about source code of classes that are not loaded
            options: Any = {"weights_only": False, "pickle_module": _INERT_PICKLE, "mmap": _is_zip(path)}
            return torch.load(path, map_location="cpu", **options)
    except Exception as error:  # the file may call methods that inert objects do not have
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> WeightsError:
    # The text of an index or key error is a bare number.
    reason = first_line(error) if not first_line(error).isdigit() else type(error).__name__
    return WeightsError(f"{path} cannot be read as weights ({reason}); it is truncated, damaged, or not of torch.save")


def _module_tensors(module: _Inert, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """The state dict of a pickled `torch.nn.Module`, from its tables."""
    skipped = module.kept.get("_non_persistent_buffers_set") or set()
    for table in ("_parameters", "_buffers"):
        for name, tensor in (module.kept.get(table) or {}).items():
            if isinstance(tensor, torch.Tensor) and name not in skipped:
                yield prefix + name, tensor
    for name, child in (module.kept.get("_modules") or {}).items():
        if isinstance(child, _Inert):
            yield from _module_tensors(child, f"{prefix}{name}.")
