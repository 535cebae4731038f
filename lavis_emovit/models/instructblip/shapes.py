"""Models of the published shapes without weights, to count the memory of a training step.

Sizes come from the `config.json` of the weights if they are on this machine, otherwise from the key `shapes` of the
model's YAML file.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, InstructBlipConfig

from lavis_emovit.errors import ConfigError
from lavis_emovit.files import load_json, regular_file
from lavis_emovit.models.catalogue import declared_models
from lavis_emovit.models.instructblip.loading import LLM, LoadedParts
from lavis_emovit.models.instructblip.settings import ModelSettings, QFormerSettings
from lavis_emovit.models.instructblip.weights import find_weights
from lavis_emovit.models.quantize import quantized_layers
from lavis_emovit.models.step_memory import (
    StepLoad,
    StepMemory,
    count_step,
    count_weights,
    without_values,
    word_tokenizer,
)
from lavis_emovit.models.tensors import QUANTIZED


def find_config(settings: ModelSettings) -> Any:
    """Sizes of a model's parts, without loading weights.

    Raises:
        ConfigError: neither the weights nor the model's YAML file tell them.
    """
    source = find_weights(settings)
    if source.present and source.kind in ("folder", "hub"):
        return _read_config(source.location if source.kind == "folder" else _cached(source.location))
    declared = declared_models().get(settings.arch)
    shapes = declared.content.get("shapes") if declared is not None else None
    if not isinstance(shapes, dict):
        raise ConfigError(
            [
                f"model.arch: the sizes of {settings.arch} are unknown: there is no config.json in {source.location}, "
                "and the model's YAML file has no key `shapes`; set model.pretrained to an InstructBLIP folder of "
                "transformers"
            ],
            "the model configuration",
        )
    text_config = AutoConfig.for_model(**shapes["text_config"])
    given = {key: shapes[key] for key in ("vision_config", "qformer_config") if key in shapes}
    return InstructBlipConfig(text_config=text_config.to_dict(), num_query_tokens=settings.num_query_token, **given)


def _read_config(folder: str) -> Any:
    return InstructBlipConfig.from_dict(
        load_json(regular_file(Path(folder) / "config.json").read_text(encoding="utf-8"))
    )


def _cached(hub_id: str) -> str:
    from huggingface_hub import try_to_load_from_cache

    return str(Path(str(try_to_load_from_cache(hub_id, "config.json"))).parent)


def step_memory(model_class: Any, settings: QFormerSettings, load: StepLoad, amp: str) -> StepMemory:
    """See `EmotionModel.step_memory`; `model_class` is the family's, with `sizes_json` and `empty_core`."""
    config, precision = model_class.sizes_json(settings), settings.frozen_precision
    if precision not in QUANTIZED:
        return _dry_run(model_class, settings.model_dump_json(), config, load, amp)
    # The same activations: quantised layers compute in bfloat16, and keep no input of their own.
    plain = settings.model_copy(update={"frozen_precision": "bf16"})
    core = model_class.empty_core(config, plain)
    names = {f"{LLM}{name}.weight" for name, _ in quantized_layers(core.language_model, precision)}
    model = _model(model_class, core, plain)
    weights = count_weights(model.core.named_parameters(), model_class.PART_PREFIXES, precision, names)
    return replace(_dry_run(model_class, plain.model_dump_json(), config, load, amp), weights=weights)


@lru_cache(maxsize=64)
def _dry_run(model_class: Any, settings_json: str, config_json: str, load: StepLoad, amp: str) -> StepMemory:
    settings = model_class.settings_class.model_validate_json(settings_json)
    model = _model(model_class, model_class.empty_core(config_json, settings), settings)
    without_values(model.core)
    weights = count_weights(model.core.named_parameters(), model_class.PART_PREFIXES)
    width = model.core.language_model.get_output_embeddings().weight.shape[0]
    return count_step(model, load, amp, weights=weights, logit_width=width)


def _model(model_class: Any, core: Any, settings: QFormerSettings) -> Any:
    with torch.device("meta"):  # adapters too
        return model_class(LoadedParts(core, word_tokenizer(), word_tokenizer()), settings).train()
