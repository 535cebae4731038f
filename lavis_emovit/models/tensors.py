"""Precisions by name, reading safetensors files, and counting the elements of parameters."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from lavis_emovit.errors import WeightsError

QUANTIZED = ("int8", "nf4")
# Quantised layers are replaced after loading; everything around them is bf16.
PRECISIONS = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    **dict.fromkeys(QUANTIZED, torch.bfloat16),
}


def read_tensor_file(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file; WeightsError if it is truncated or damaged."""
    try:
        return load_file(str(file))
    except SafetensorError as error:
        raise WeightsError(
            f"{file} is truncated or damaged ({first_line(error)}); download or write it again"
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if it has none."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def num_elements(parameter: torch.Tensor) -> int:
    """Elements of a parameter; a 4-bit one stores two of them in a byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(torch.Size(state.shape).numel())
