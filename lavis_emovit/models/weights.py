"""Where a model's weights lie, and how they come into memory; what is missing is named together with where to put it.

Four kinds of source, all given as `model.pretrained` or by the environment variable `EMOVIT_WEIGHTS_<SIZE>` (for
example `EMOVIT_WEIGHTS_VICUNA7B`), which wins:

- `package:<name>`: weights that ship with this package;
- a folder in transformers' InstructBLIP layout (`config.json`, safetensors, tokenizers);
- a LAVIS-format `.pth` file, with `model.llm_model` naming the language model that it was trained with;
- a hub id (`owner/name`), fetched by transformers into its cache unless `EMOVIT_OFFLINE` or `HF_HUB_OFFLINE` is set.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoTokenizer, InstructBlipConfig, InstructBlipForConditionalGeneration
from transformers.utils import logging as transformers_logging

from lavis_emovit.errors import WeightsError
from lavis_emovit.models.lavis_format import convert_lavis_state, read_lavis_file
from lavis_emovit.models.settings import ModelSettings
from lavis_emovit.paths import PACKAGE_ROOT

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PACKAGE_PREFIX = "package:"


@dataclass(frozen=True)
class WeightsSource:
    """One place that weights come from."""

    kind: Literal["folder", "lavis_file", "hub"]
    location: str  # path or hub id
    present: bool  # on this machine, ready to load without a network
    named_by: str  # the key or variable that named it, for messages


@dataclass
class LoadedParts:
    """What a model is made of."""

    core: InstructBlipForConditionalGeneration
    llm_tokenizer: Any
    qformer_tokenizer: Any


def environment_variable(arch: str) -> str:
    """`emovit_vicuna7b` -> `EMOVIT_WEIGHTS_VICUNA7B`."""
    return "EMOVIT_WEIGHTS_" + arch.removeprefix("emovit_").upper()


def is_offline() -> bool:
    """Whether the user forbade network access."""
    return any(
        os.environ.get(name, "0").lower() in {"1", "true", "yes", "on"} for name in ("EMOVIT_OFFLINE", "HF_HUB_OFFLINE")
    )


def find_weights(settings: ModelSettings) -> WeightsSource:
    """Look where the settings and the environment point, without a network and without loading anything."""
    variable = environment_variable(settings.arch)
    value, named_by = settings.pretrained, "model.pretrained"
    if os.environ.get(variable):
        value, named_by = os.environ[variable], variable
    if value.startswith(PACKAGE_PREFIX):
        folder = PACKAGE_ROOT / "models" / "data" / value.removeprefix(PACKAGE_PREFIX)
        return WeightsSource("folder", str(folder), (folder / "config.json").is_file(), named_by)
    path = Path(value).expanduser()
    if path.is_dir():
        return WeightsSource("folder", str(path), (path / "config.json").is_file(), named_by)
    if path.suffix in {".pth", ".pt", ".bin"}:
        return WeightsSource("lavis_file", str(path), path.is_file(), named_by)
    # `weights/name` is a forgotten folder where `weights/` is there, and a hub id where it is not.
    if value.count("/") == 1 and not value.startswith((".", "/", "~")) and not path.parent.is_dir():
        return WeightsSource("hub", value, _in_hub_cache(value), named_by)
    return WeightsSource("folder", str(path), False, named_by)


def _in_hub_cache(repository: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repository, "config.json"), str)


def check_weights(settings: ModelSettings) -> str | None:
    """A look at the weights before anything expensive is done.

    Returns:
        what will have to be fetched from the hub, or None where all is on this machine.

    Raises:
        WeightsError: the weights are not here and cannot be fetched.
    """
    source = find_weights(settings)
    if source.present:
        return None
    if source.kind == "hub" and not is_offline():
        return (
            f"the weights {source.location} of {settings.arch} are not on this machine; they are fetched at first use"
        )
    raise WeightsError(missing_weights_message(settings, source, "which is not on this machine"))


def missing_weights_message(settings: ModelSettings, source: WeightsSource, reason: str) -> str:
    """What to fetch and where to put it."""
    variable = environment_variable(settings.arch)
    return (
        f"no weights for {settings.arch}: {source.named_by} names '{source.location}', {reason}.\n"
        f"Do one of these:\n"
        f"  - on a machine with a network: hf download {_hub_id(settings)} --local-dir ./weights/{settings.arch}\n"
        f"    then here: export {variable}=./weights/{settings.arch}\n"
        f"  - name a local transformers InstructBLIP folder, or a LAVIS .pth file together with model.llm_model, in "
        f"model.pretrained or {variable}\n"
        f"  - for a first look without large weights, use emovit_tiny, which ships with the package"
    )


def _hub_id(settings: ModelSettings) -> str:
    known = {
        "emovit_vicuna7b": "Salesforce/instructblip-vicuna-7b",
        "emovit_vicuna13b": "Salesforce/instructblip-vicuna-13b",
        "emovit_flant5xl": "Salesforce/instructblip-flan-t5-xl",
        "emovit_flant5xxl": "Salesforce/instructblip-flan-t5-xxl",
    }
    return known.get(settings.arch, settings.pretrained)


def load_parts(settings: ModelSettings) -> LoadedParts:
    """Load modules and tokenizers.

    Raises:
        WeightsError: weights are missing, unreadable or of another shape.
    """
    source = find_weights(settings)
    if source.kind == "lavis_file":
        parts = _load_lavis_file(settings, source)
    else:
        parts = _load_transformers(settings, source)
    _prepare_tokenizers(parts)
    _check_sizes(settings, parts, source)
    return parts


def _load_transformers(settings: ModelSettings, source: WeightsSource) -> LoadedParts:
    if source.kind == "folder" and not source.present:
        reason = "a folder without config.json" if Path(source.location).is_dir() else "which does not exist"
        raise WeightsError(missing_weights_message(settings, source, reason))
    offline = is_offline() or source.kind == "folder"
    options: dict[str, Any] = {"local_files_only": offline}
    try:
        core = _load_modules(source, settings, options)
        llm_tokenizer = AutoTokenizer.from_pretrained(source.location, **options)
        qformer_tokenizer = AutoTokenizer.from_pretrained(source.location, subfolder="qformer_tokenizer", **options)
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            missing_weights_message(settings, source, f"which could not be loaded ({first_line})")
        ) from error
    return LoadedParts(core, llm_tokenizer, qformer_tokenizer)


def _load_modules(
    source: WeightsSource, settings: ModelSettings, options: dict[str, Any]
) -> InstructBlipForConditionalGeneration:
    # A progress bar is for weights that take a while, not for those of the package.
    shows_progress = transformers_logging.is_progress_bar_enabled()
    if source.location.startswith(str(PACKAGE_ROOT)):
        transformers_logging.disable_progress_bar()
    try:
        return InstructBlipForConditionalGeneration.from_pretrained(
            source.location,
            dtype=PRECISIONS[settings.frozen_precision],
            attn_implementation=settings.attention,
            **options,
        )
    finally:
        if shows_progress:
            transformers_logging.enable_progress_bar()


def _load_lavis_file(settings: ModelSettings, source: WeightsSource) -> LoadedParts:
    if not source.present:
        raise WeightsError(missing_weights_message(settings, source, "which does not exist"))
    if settings.llm_model is None:
        raise WeightsError(
            f"{source.location} is a LAVIS-format file: it needs model.llm_model, the folder or hub id of the language "
            "model that it was trained with (lmsys/vicuna-7b-v1.1 for EmoVIT's released weights)"
        )
    options: dict[str, Any] = {"local_files_only": is_offline()}
    try:
        text_config = AutoConfig.from_pretrained(settings.llm_model, **options)
        llm_tokenizer = AutoTokenizer.from_pretrained(settings.llm_model, use_fast=False, **options)
        qformer_tokenizer = AutoTokenizer.from_pretrained(settings.qformer_tokenizer or "bert-base-uncased", **options)
    except (OSError, ValueError) as error:
        reason = (
            f"but its language model '{settings.llm_model}' or its Q-Former tokenizer could not be loaded ({error})"
        )
        raise WeightsError(missing_weights_message(settings, source, reason)) from error
    if text_config.model_type == "llama":
        # InstructBLIP's own tokenizer set-up: a new pad token, and one token for begin, end and unknown.
        llm_tokenizer.add_special_tokens({"pad_token": "[PAD]"})
        llm_tokenizer.add_special_tokens({"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>"})
        text_config.vocab_size = max(text_config.vocab_size, len(llm_tokenizer))
    qformer_tokenizer.add_special_tokens({"bos_token": "[DEC]"})

    state = convert_lavis_state(read_lavis_file(Path(source.location)))
    config = _architecture(settings, text_config, len(qformer_tokenizer))
    core = InstructBlipForConditionalGeneration(config)
    # LAVIS's layer norm after the encoder has torch's default epsilon, unlike those inside the encoder.
    core.vision_model.post_layernorm.eps = 1e-5
    _fill(core, state, settings, options)
    return LoadedParts(core, llm_tokenizer, qformer_tokenizer)


def _architecture(settings: ModelSettings, text_config: Any, qformer_vocabulary: int) -> InstructBlipConfig:
    if settings.architecture is not None:
        config = InstructBlipConfig.from_pretrained(settings.architecture)
        config.text_config = text_config
    else:
        # transformers' defaults are ViT-g/14 and BERT-base, as in every published InstructBLIP.
        config = InstructBlipConfig(
            vision_config={"image_size": settings.image_size},
            qformer_config={"vocab_size": qformer_vocabulary},
            text_config=text_config.to_dict(),
            num_query_tokens=settings.num_query_token,
        )
    config._attn_implementation = settings.attention
    return config


def _fill(
    core: InstructBlipForConditionalGeneration,
    state: dict[str, torch.Tensor],
    settings: ModelSettings,
    options: dict[str, Any],
) -> None:
    if not any(name.startswith("language_model.") for name in state):
        language_class = type(core.language_model)
        language_model = language_class.from_pretrained(
            settings.llm_model, dtype=PRECISIONS[settings.frozen_precision], **options
        )
        text_config: Any = core.config.text_config
        language_model.resize_token_embeddings(text_config.vocab_size, mean_resizing=False)
        core.language_model = language_model
    own = dict(core.state_dict())
    wrong = [
        f"{name}: {list(tensor.shape)}, expected {list(own[name].shape)}"
        for name, tensor in state.items()
        if name in own and own[name].shape != tensor.shape
    ]
    unexpected = [name for name in state if name not in own]
    missing = [name for name in own if name not in state and not name.startswith("language_model.")]
    if wrong or unexpected or missing:
        lines = [f"  - shape of {line}" for line in wrong[:5]]
        lines += [f"  - unexpected: {name}" for name in unexpected[:5]]
        lines += [f"  - missing: {name}" for name in missing[:5]]
        raise WeightsError(
            f"the LAVIS file does not fit {settings.arch} ({len(wrong)} wrong shapes, {len(unexpected)} unexpected, "
            f"{len(missing)} missing):\n" + "\n".join(lines)
        )
    core.load_state_dict(state, strict=False)


def _prepare_tokenizers(parts: LoadedParts) -> None:
    # As in InstructBLIP: a question that is too long loses its beginning, not its end.
    for tokenizer in (parts.llm_tokenizer, parts.qformer_tokenizer):
        tokenizer.truncation_side = "left"
    parts.llm_tokenizer.padding_side = "left"
    if parts.llm_tokenizer.eos_token_id is None:
        raise WeightsError("the language model's tokenizer has no end token, so that an answer could never end")
    if parts.llm_tokenizer.pad_token_id is None:
        parts.llm_tokenizer.pad_token = parts.llm_tokenizer.eos_token


def _check_sizes(settings: ModelSettings, parts: LoadedParts, source: WeightsSource) -> None:
    vision_config: Any = parts.core.config.vision_config
    image_size, num_queries = vision_config.image_size, parts.core.query_tokens.shape[1]
    problems = []
    if image_size != settings.image_size:
        problems.append(f"image_size is {image_size}, model.image_size says {settings.image_size}")
    if num_queries != settings.num_query_token:
        problems.append(f"{num_queries} query tokens, model.num_query_token says {settings.num_query_token}")
    embedding: Any = parts.core.get_input_embeddings()
    rows = embedding.weight.shape[0]
    if len(parts.llm_tokenizer) > rows:
        problems.append(f"the tokenizer has {len(parts.llm_tokenizer)} tokens, the language model {rows}")
    if problems:
        raise WeightsError(f"the weights of {source.location} do not fit the configuration: " + "; ".join(problems))
