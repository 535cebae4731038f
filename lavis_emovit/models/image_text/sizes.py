"""Image-text models without weights: what is wrong with their settings, and the memory of a training step."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException

from lavis_emovit.errors import ConfigError
from lavis_emovit.models.image_text.settings import ModelSettings
from lavis_emovit.models.image_text.weights import find_weights, load_fault
from lavis_emovit.models.quantize import quantized_layers
from lavis_emovit.models.step_memory import StepLoad, StepMemory, count_step, count_weights, without_values
from lavis_emovit.models.tensors import QUANTIZED


def empty_core(settings: ModelSettings) -> Any:
    """The module without values; ConfigError if its configuration cannot be used."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    try:
        config = AutoConfig.from_pretrained(settings.pretrained, revision=settings.revision)
        with torch.device("meta"):
            return AutoModelForImageTextToText.from_config(config, attn_implementation=settings.attention)
    except Exception as error:  # a damaged file can raise anything
        raise ConfigError([f"model.pretrained: {load_fault(settings, error)}"], "the model configuration") from error


def step_memory(model_class: Any, settings: ModelSettings, load: StepLoad, amp: str) -> StepMemory | None:
    """See `EmotionModel.step_memory`; images have `max_side_px` on both sides.

    None for a model with tensors whose sizes depend on values, as Qwen3-VL's deepstack layers have them.

    Raises:
        ConfigError: the sizes are not on this machine.
    """
    if not find_weights(settings).is_present:
        raise ConfigError(
            [
                f"model.pretrained: the sizes of {settings.pretrained} are not on this machine; get them without the "
                f"weights: hf download {settings.pretrained} --exclude '*.safetensors' '*.bin'"
            ],
            "the model configuration",
        )
    try:
        return _dry_run(model_class, settings.model_dump_json(), load, amp)
    except DynamicOutputShapeException:
        return None


@lru_cache(maxsize=64)
def _dry_run(model_class: Any, settings_json: str, load: StepLoad, amp: str) -> StepMemory:
    settings = model_class.settings_class.model_validate_json(settings_json)
    precision, quantized = settings.frozen_precision, set()
    if precision in QUANTIZED:
        # The same activations: quantised layers compute in bfloat16, and keep no input of their own.
        settings = settings.model_copy(update={"frozen_precision": "bf16"})
    model = model_class.empty(settings).train()
    if precision in QUANTIZED:
        place = model.PART_PREFIXES["language_model"][0]
        layers = quantized_layers(model._part("language_model"), precision)
        quantized = {f"{place}{name}.weight" for name, _ in layers}
    without_values(model.core)
    weights = count_weights(model.core.named_parameters(), model.PART_PREFIXES, precision, quantized)
    width = model.core.get_output_embeddings().weight.shape[0]
    return count_step(model, load, amp, weights=weights, logit_width=width)
