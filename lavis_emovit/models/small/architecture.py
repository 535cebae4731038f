"""The modules of the small model, in the layout of transformers' InstructBLIP, and their folder on disk.

A folder has `config.json`, `model.safetensors` and the two tokenizers. Its tensors are float32, so that a model that is
loaded for answers is a view on the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.models.instructblip.configuration_instructblip import InstructBlipQFormerConfig
from transformers.models.instructblip.modeling_instructblip import InstructBlipQFormerModel

from lavis_emovit.errors import WeightsError, first_line
from lavis_emovit.files import load_json, read_file
from lavis_emovit.models.instructblip.loading import (
    LoadedParts,
    check_vocabularies,
    fill_all_but_llm,
    fill_llm,
    fill_vision,
    prepare_tokenizers,
    quiet,
)
from lavis_emovit.models.small import vision
from lavis_emovit.models.small.settings import ModelSettings
from lavis_emovit.models.tensors import read_tensor_file

CONFIG_NAME, WEIGHTS_NAME = "config.json", "model.safetensors"
LLM_TOKENIZER, QFORMER_TOKENIZER = "tokenizer", "qformer_tokenizer"


class SmallConfig:
    """Sizes of the parts, under the names of transformers' `InstructBlipConfig`.

    Args:
        values: `num_query_tokens`, `qformer_config` and `text_config`, as in `config.json`.
    """

    use_decoder_only_language_model = True

    def __init__(self, values: dict[str, Any], attention: str = "sdpa"):
        self.num_query_tokens: int = values["num_query_tokens"]
        self.qformer_config = InstructBlipQFormerConfig(**values["qformer_config"])
        self.text_config = LlamaConfig(**values["text_config"])
        for part in (self.qformer_config, self.text_config):
            part._attn_implementation = attention


class SmallCore(nn.Module):
    """Image encoder, Q-Former, projection and language model; `language_model` is added by the loader."""

    def __init__(self, config: SmallConfig):
        super().__init__()
        self.config = config
        self.vision_model = vision.ImageEncoder()
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, config.qformer_config.hidden_size))
        # What a linear model would use: the mean of the cells, for the query tokens that read no names.
        self.query_tokens_of_image = nn.Linear(
            vision.GRID_WIDTH,
            (config.num_query_tokens - vision.NUM_WORDS) * config.qformer_config.hidden_size,
            bias=False,
        )
        self.qformer = InstructBlipQFormerModel(config.qformer_config)
        self.language_projection = nn.Linear(config.qformer_config.hidden_size, config.text_config.hidden_size)
        self.language_model: Any = None

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()


def read_config(folder: Path) -> dict[str, Any]:
    """The content of `config.json`; WeightsError if it is missing or not that of a small model."""
    path = folder / CONFIG_NAME
    try:
        values = load_json(read_file(path))
        SmallConfig(values)
        if "vision_config" in values:
            raise ValueError("it has a vision_config, as transformers' InstructBLIP has")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is not the configuration of a small model ({first_line(error)})") from error
    return values


def empty_core(values: dict[str, Any], attention: str) -> SmallCore:
    """The modules without values and without a language model."""
    with torch.device("meta"):
        return SmallCore(SmallConfig(values, attention))


def load_vision(folder: Path, settings: ModelSettings) -> nn.Module:
    """A module with the image encoder alone, as `vision_model`, its tensors as in the module of `load_folder`."""
    vision_model = empty_core(read_config(folder), settings.attention).vision_model
    return fill_vision(vision_model, read_tensor_file(folder / WEIGHTS_NAME), str(folder))


def load_folder(folder: Path, settings: ModelSettings) -> LoadedParts:
    """Modules and tokenizers of a folder; WeightsError if something is missing, damaged or of another shape."""
    core = empty_core(read_config(folder), settings.attention)
    state = read_tensor_file(folder / WEIGHTS_NAME)
    source = str(folder)
    fill_all_but_llm(core, state, source)
    core.language_model = fill_llm(state, core.config.text_config, LlamaForCausalLM, settings, source)
    try:
        with quiet():
            tokenizers = [AutoTokenizer.from_pretrained(folder / name) for name in (LLM_TOKENIZER, QFORMER_TOKENIZER)]
    except Exception as error:  # a damaged file can raise anything
        raise WeightsError(f"the tokenizers in {folder} could not be loaded ({first_line(error)})") from error
    loaded = LoadedParts(core, *tokenizers)
    prepare_tokenizers(loaded)
    check_vocabularies(settings, loaded, source)
    return loaded
