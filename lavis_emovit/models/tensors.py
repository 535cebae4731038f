"""Precisions by name, safetensors files, and checks that tensors fit a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from lavis_emovit.errors import WeightsError, bullet_list, first_line

QUANTIZED = ("int8", "nf4")
# Quantised layers are replaced after loading; everything around them is bf16.
PRECISIONS = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    **dict.fromkeys(QUANTIZED, torch.bfloat16),
}


def read_tensor_file(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file; WeightsError if it is missing, truncated or damaged."""
    try:
        return load_file(str(file))
    except FileNotFoundError:
        raise WeightsError(f"{file} is missing; download or write it again") from None
    except SafetensorError as error:
        raise WeightsError(
            f"{file} is truncated or damaged ({first_line(error)}); download or write it again"
        ) from error


def check_fit(
    state: Mapping[str, torch.Tensor],
    own: Mapping[str, torch.Tensor],
    source: str,
    needed: Iterable[str],
    target: str = "this model",
    advice: str = "",
) -> None:
    """Raise a WeightsError that lists missing, unknown and wrongly shaped tensors, if there are any.

    Args:
        own: the model's tensors that those of `state` may replace.
        source, target: of `state` and of `own`, for the message.
        needed: names that `state` must have.
        advice: last line of the message.
    """
    problems = [f"missing: {name}" for name in needed if name not in state]
    problems += [f"unknown: {name}" for name in state if name not in own]
    problems += [
        f"shape of {name}: {list(tensor.shape)}, expected {list(own[name].shape)}"
        for name, tensor in state.items()
        if name in own and own[name].shape != tensor.shape
    ]
    if problems:
        end = f"\n{advice}" if advice else ""
        raise WeightsError(f"{source} does not fit {target}:\n{bullet_list(problems, limit=10)}{end}")


def num_elements(parameter: torch.Tensor) -> int:
    """Elements of a parameter; a 4-bit one stores two of them in a byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(torch.Size(state.shape).numel())
