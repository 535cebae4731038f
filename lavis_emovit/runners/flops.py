"""Peak speeds of GPUs, for the share of them that a training step uses."""

from __future__ import annotations

import json
from pathlib import Path

PEAKS_PATH = Path(__file__).with_name("gpu_peaks.json")


def peak_flops(device_name: str, *, is_half: bool) -> float | None:
    """Peak of a GPU in operations per second; None if it is not in gpu_peaks.json.

    Args:
        device_name: from `torch.cuda.get_device_name`.
        is_half: bf16 or fp16, else float32.
    """
    for gpu in json.loads(PEAKS_PATH.read_text(encoding="utf-8"))["gpus"]:
        if gpu["name"] in device_name:
            return gpu["half" if is_half else "fp32"] * 1e12
    return None
