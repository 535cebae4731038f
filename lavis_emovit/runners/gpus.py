"""Published figures of GPUs: peak, memory and bandwidth, from gpu_peaks.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lavis_emovit.errors import UserError
from lavis_emovit.settings import nearest_name

PEAKS_PATH = Path(__file__).with_name("gpu_peaks.json")


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU; see `about` in gpu_peaks.json for units."""

    kind: str
    name: str
    half: float
    fp32: float
    memory_gb: float
    bandwidth_gb_s: float
    link_gb_s: float
    source: str


@cache
def known_gpus() -> tuple[Gpu, ...]:
    """All kinds, in the order in which their names are looked up."""
    return tuple(Gpu(**values) for values in json.loads(PEAKS_PATH.read_text(encoding="utf-8"))["gpus"])


def find_gpu(kind: str) -> Gpu:
    """The GPU of a kind, such as `h100` or `a100-40`; UserError lists all kinds."""
    gpus = {gpu.kind: gpu for gpu in known_gpus()}
    if kind.lower() not in gpus:
        raise UserError(f"--gpu: no kind '{kind}'{nearest_name(kind, list(gpus))}; kinds are {', '.join(gpus)}")
    return gpus[kind.lower()]


def peak_flops(device_name: str, *, is_half: bool) -> float | None:
    """Peak of a GPU, as `torch.cuda.get_device_name` names it, in operations per second of bf16 and fp16 (`is_half`) or
    float32; None if it is not in gpu_peaks.json."""
    for gpu in known_gpus():
        if gpu.name in device_name:
            return (gpu.half if is_half else gpu.fp32) * 1e12
    return None
