"""The frozen language model in 8 or 4 bits, through bitsandbytes."""

from __future__ import annotations

import logging
import math
from functools import cache
from typing import Any

import torch
from torch import nn

from lavis_emovit.errors import ConfigError
from lavis_emovit.models.mapped_files import MappedFiles

INSTALL_LINE = "pip install 'lavis-emovit[quantize]' (or: pip install 'bitsandbytes>=0.49')"
NF4_BLOCK = 64


def quantize_language_model(language_model: Any, precision: str, compute_dtype: torch.dtype) -> None:
    """Replace the linear layers of a frozen language model by quantised ones, in place.

    int8 is LLM.int8() (Dettmers et al. 2022, https://arxiv.org/abs/2208.07339), nf4 the 4-bit format of QLoRA (Dettmers
    et al. 2023, https://arxiv.org/abs/2305.14314). These stay as they are: the output head, the embeddings, what
    transformers keeps in full precision (T5's `wo`), and for nf4 layers whose input width is not a multiple of 64.

    Args:
        precision: `int8` or `nf4`.
        compute_dtype: of activations, for nf4.

    Raises:
        ConfigError: bitsandbytes is missing, or does not support the model's device.
    """
    try:
        import bitsandbytes as library
    except ImportError as error:
        problem = f"model.frozen_precision: int8 and nf4 need the package bitsandbytes: {INSTALL_LINE}"
        raise ConfigError([problem], "the model configuration") from error
    device = next(language_model.parameters()).device
    supported = getattr(library, "supported_torch_devices", {"cuda"})
    if device.type not in supported:
        problem = (
            f"model.frozen_precision: bitsandbytes {library.__version__} does not quantise on {device.type}, only on "
            f"{', '.join(sorted(supported))}; set model.frozen_precision=bf16 or upgrade: {INSTALL_LINE}"
        )
        raise ConfigError([problem], "the model configuration")
    if precision == "int8":
        _quiet_casts()
    layers, files = quantized_layers(language_model, precision), MappedFiles()
    for name, layer in layers:
        parent, _, own = name.rpartition(".")
        make = _int8_layer if precision == "int8" else _nf4_layer
        setattr(language_model.get_submodule(parent), own, make(library, layer, compute_dtype).to(device))
        files.give_back(layer.weight.data)
    # peft chooses its kind of adapter by these.
    setattr(language_model, "is_loaded_in_8bit" if precision == "int8" else "is_loaded_in_4bit", True)


def quantized_layers(language_model: Any, precision: str) -> list[tuple[str, nn.Linear]]:
    """Names and modules of the layers that `quantize_language_model` replaces."""
    kept = set(float32_modules(language_model))
    head = language_model.get_output_embeddings()
    return [
        (name, module)
        for name, module in language_model.named_modules()
        if isinstance(module, nn.Linear)
        and module is not head
        and not kept & set(name.split("."))
        # 4-bit kernels process a row in blocks; the widths of published models are multiples of a block.
        and not (precision == "nf4" and module.in_features % NF4_BLOCK)
    ]


def quantized_bytes(weight: torch.Tensor, precision: str) -> int:
    """Bytes of a layer's weight [out, in] with the numbers that scale it, as bitsandbytes stores it.

    int8: a byte for each weight, and a float32 scale for each row. nf4: half a byte for each weight, and a scale of
    one byte for each block of 64; these scales have a float32 scale for each block of 256, an offset, and two tables
    (QLoRA's double quantisation).
    """
    if precision == "int8":
        return weight.numel() + 4 * weight.shape[0]
    blocks = math.ceil(weight.numel() / NF4_BLOCK)
    return math.ceil(weight.numel() / 2) + blocks + 4 * math.ceil(blocks / 256) + 4 + 4 * (16 + 256)


def float32_modules(language_model: Any) -> tuple[str, ...]:
    """Names of modules that overflow in float16 (T5's `wo`), as transformers lists them."""
    return tuple(getattr(language_model, "_keep_in_fp32_modules", None) or ())


def _int8_layer(library: Any, layer: nn.Linear, compute_dtype: torch.dtype) -> nn.Module:
    made = library.nn.Linear8bitLt(
        layer.in_features, layer.out_features, bias=layer.bias is not None, has_fp16_weights=False, threshold=6.0
    )
    made.weight = library.nn.Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
    made.bias = layer.bias
    return made


def _nf4_layer(library: Any, layer: nn.Linear, compute_dtype: torch.dtype) -> nn.Module:
    has_bias, sizes = layer.bias is not None, (layer.in_features, layer.out_features)
    made = library.nn.Linear4bit(*sizes, bias=has_bias, compute_dtype=compute_dtype, quant_type="nf4")
    # On CPUs, bitsandbytes would repack the weights at the first call without gradients, and compute none from then on.
    made.support_avx512bf16_for_cpu = False
    made.weight = library.nn.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4")
    made.bias = layer.bias
    return made


@cache
def _quiet_casts() -> None:
    """bitsandbytes logs at every call of every layer that it casts bfloat16 to float16; log each message once."""
    seen: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return message not in seen and not seen.add(message)  # type: ignore[func-returns-value]

    logging.getLogger("bitsandbytes.autograd._functions").addFilter(is_new)
