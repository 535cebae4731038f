"""Weights that stay in their files: which tensors are views on a mapped file, and giving their pages back.

Tensors of safetensors and `.pth` files are views on mapped files. The kernel reads a page when it is used first, drops
it when memory is short, and shares it between the processes of a machine. So a frozen weight in its file's precision
needs no memory of its own. A weight that is cast or trained does; the pages of its file are then given back at once, so
that loading never holds both of more than a few megabytes.
"""

from __future__ import annotations

import ctypes
import mmap
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch

_MAPS = Path("/proc/self/maps")
# Values that are cast at once, so that large tables do not add to the peak.
_PIECE = 2**22
_casts_later: ContextVar[bool] = ContextVar("casts_later", default=False)


@contextmanager
def casts_later() -> Iterator[None]:
    """Frozen weights of a model that is loaded inside the block stay in the precision of their files.

    For an engine that spreads weights over ranks: no rank ever holds all of them in the precision that it needs. The
    engine calls `settle` for each parameter; until then `wanted_dtype` is its precision.
    """
    token = _casts_later.set(True)
    try:
        yield
    finally:
        _casts_later.reset(token)


def are_casts_later() -> bool:
    """Whether this is inside `casts_later`."""
    return _casts_later.get()


def wanted_dtype(parameter: torch.Tensor) -> torch.dtype:
    """The precision in which a parameter is used."""
    return getattr(parameter, "_wanted_dtype", parameter.dtype)


class MappedFiles:
    """The mapped files of this process, as they are now. Empty where the system does not list them (not Linux)."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for line in _MAPS.read_text(encoding="utf-8", errors="replace").splitlines() if _MAPS.is_file() else ():
            span, _, _, _, inode, *_ = line.split()
            # Anonymous memory has no inode. Giving back its pages would set them to zero.
            if inode != "0":
                start, end = (int(address, 16) for address in span.split("-"))
                self._starts.append(start)
                self._ends.append(end)

    def hold(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is a view on a mapped file."""
        start, end = _span(tensor)
        place = bisect_right(self._starts, start) - 1
        return tensor.device.type == "cpu" and start < end and place >= 0 and end <= self._ends[place]

    def give_back(self, tensor: torch.Tensor) -> None:
        """Drop the pages that are in a tensor alone, and that nobody changed; they are read again if they are used."""
        if not self.hold(tensor):
            return
        start, end = _span(tensor)
        start, end = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
        if start < end:
            # It only advises: after a failure the pages are in memory for longer.
            ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)

    def cast_later(self, parameter: torch.Tensor, dtype: torch.dtype) -> None:
        """Leave a parameter as it is until `settle`."""
        if self.hold(parameter):
            parameter._wanted_dtype = dtype  # type: ignore[attr-defined]
        else:
            parameter.data = self.cast(parameter.data, dtype)

    def settle(self, parameter: torch.Tensor) -> None:
        """Give a parameter values of its own, in the precision in which it is used."""
        parameter.data = self.cast(parameter.data, wanted_dtype(parameter), own=True)

    def cast(self, tensor: torch.Tensor, dtype: torch.dtype, *, own: bool = False) -> torch.Tensor:
        """A tensor in another precision, without the pages of its file; with `own`, never a view on a file."""
        if not self.hold(tensor):
            return tensor.to(dtype)
        if tensor.dtype == dtype and not own:
            return tensor
        made = torch.empty_like(tensor, dtype=dtype)
        for piece, target in zip(tensor.view(-1).split(_PIECE), made.view(-1).split(_PIECE)):
            target.copy_(piece)
            self.give_back(piece)
        return made


def _span(tensor: torch.Tensor) -> tuple[int, int]:
    """First address of a tensor's values, and the one after its last; the same twice if they have gaps."""
    start = tensor.data_ptr() if tensor.device.type == "cpu" else 0
    return start, start + (tensor.nbytes if tensor.is_contiguous() else 0)
