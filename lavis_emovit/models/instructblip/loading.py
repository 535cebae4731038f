"""From files to the modules of a model, for both formats.

`read_weights` collects tensors under transformers' names, in the precision of their files, with a configuration and
tokenizers; `assemble` puts them into modules. They are views on the mapped files. Those that need another precision are
cast one by one, so that a large model is in memory once (see `lavis_emovit.models.mapped_files`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer, InstructBlipConfig, InstructBlipForConditionalGeneration
from transformers.utils import logging as transformers_logging

from lavis_emovit.errors import WeightsError, first_line
from lavis_emovit.files import load_json, read_file
from lavis_emovit.models.instructblip import tokenization
from lavis_emovit.models.instructblip.architecture import LAVIS_EPS_KEY, infer_config
from lavis_emovit.models.instructblip.lavis_format import Translation, from_eva, from_lavis
from lavis_emovit.models.instructblip.pickled import read_state_dict
from lavis_emovit.models.instructblip.settings import ModelSettings, QFormerSettings
from lavis_emovit.models.instructblip.weights import (
    CONVERTER,
    WeightsSource,
    find_weights,
    is_offline,
    missing_weights_message,
)
from lavis_emovit.models.mapped_files import MappedFiles, are_casts_later
from lavis_emovit.models.quantize import float32_modules
from lavis_emovit.models.tensors import PRECISIONS, check_fit, read_tensor_file
from lavis_emovit.paths import expand_home

LLM, VISION = "language_model.", "vision_model."
# Number of rows of the language model's original vocabulary. An exported folder has one more, the placeholder that
# transformers' processor writes in the place of the image. It must not be part of any probability.
LLM_ROWS_KEY = "emovit_llm_vocab_size"
EMBEDDING_ROWS = ("embed_tokens.weight", "shared.weight", "lm_head.weight")
_TENSOR_FILES = "*.safetensors"
_HUB_FILES = ["*.json", _TENSOR_FILES, "*.model", "*.txt", "*.jinja"]
QFORMER_TOKENIZER = "bert-base-uncased"
_BUFFERS = ("position_ids", "rotary_emb.inv_freq")


@dataclass
class LoadedParts:
    """Modules and tokenizers of a model."""

    core: Any  # InstructBlipForConditionalGeneration
    llm_tokenizer: Any
    qformer_tokenizer: Any


@dataclass
class RawWeights:
    """Tensors under transformers' names in the precision of their files, with configuration and tokenizers."""

    state: dict[str, torch.Tensor]
    config: Any  # InstructBlipConfig
    llm_tokenizer: Any
    qformer_tokenizer: Any
    source: str
    llm_location: str | None = None  # of the language model if `state` does not have it
    left_out: list[str] = field(default_factory=list)


def load_parts(settings: ModelSettings) -> LoadedParts:
    """Load modules and tokenizers; WeightsError if weights are missing, unreadable or of another shape."""
    raw = read_weights(settings)
    parts = LoadedParts(assemble(raw, settings), raw.llm_tokenizer, raw.qformer_tokenizer)
    prepare_tokenizers(parts)
    _check_sizes(settings, parts, raw.source)
    return parts


def load_vision(settings: ModelSettings) -> nn.Module:
    """A module with the image encoder alone, as `vision_model`, its tensors as in the module of `load_parts`.

    Files with other tensors alone are neither downloaded nor read.
    """
    raw = read_weights(settings, VISION)
    core = fill_vision(empty_core(raw.config, settings.attention).vision_model, raw.state, raw.source)
    _set_vision_eps(core, raw.config)
    return core


def read_weights(settings: ModelSettings, prefix: str = "") -> RawWeights:
    """Read the weights that the settings name, without casting them and without building a model.

    With `prefix`, only tensors whose names begin with it are needed; a folder's other files are not read.
    """
    source = find_weights(settings)
    if source.kind == "lavis_file":
        return _read_lavis(settings, source)
    folder = _fetch(settings, source, prefix) if source.kind == "hub" else Path(source.location)
    if source.kind == "folder" and not source.present:
        reason = "which has no config.json" if folder.exists() else "which does not exist"
        raise WeightsError(missing_weights_message(settings, source, reason))
    try:
        config = InstructBlipConfig.from_pretrained(folder)
        llm_tokenizer = AutoTokenizer.from_pretrained(folder)
        qformer_tokenizer = AutoTokenizer.from_pretrained(folder, subfolder="qformer_tokenizer")
    except Exception as error:  # a damaged file can raise anything
        reason = f"which could not be loaded ({first_line(error)})"
        raise WeightsError(missing_weights_message(settings, source, reason)) from error
    return RawWeights(read_tensors(folder, prefix), config, llm_tokenizer, qformer_tokenizer, source.location)


def _fetch(settings: ModelSettings, source: WeightsSource, prefix: str) -> Path:
    from huggingface_hub import snapshot_download

    small = [pattern for pattern in _HUB_FILES if pattern != _TENSOR_FILES]
    options: dict[str, Any] = {"local_files_only": is_offline()}
    try:
        folder = snapshot_download(source.location, allow_patterns=small if prefix else _HUB_FILES, **options)
        if prefix:
            names = _tensor_files(Path(folder), prefix)
            folder = snapshot_download(source.location, allow_patterns=[*small, *names], **options)
    except Exception as error:  # network, authorisation, no such repository: the advice is the same
        reason = f"which could not be downloaded ({first_line(error)})"
        raise WeightsError(missing_weights_message(settings, source, reason)) from error
    return Path(folder)


def _tensor_files(folder: Path, prefix: str = "") -> list[str]:
    """Names of the safetensors files with tensors whose names begin with `prefix`."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return ["model.safetensors"]
    try:
        weight_map = load_json(read_file(index))["weight_map"]
        return sorted({file for name, file in weight_map.items() if name.startswith(prefix)})
    except (ValueError, LookupError, TypeError, AttributeError):
        raise WeightsError(f"{index}: not an index with a weight_map; download or write it again") from None


def read_tensors(folder: Path, prefix: str = "") -> dict[str, torch.Tensor]:
    """All tensors of a transformers folder by name, in the precision of its safetensors files.

    With `prefix`, those of the files that have a tensor whose name begins with it.
    """
    state: dict[str, torch.Tensor] = {}
    for name in _tensor_files(folder, prefix):
        if not (folder / name).is_file():
            raise WeightsError(f"{folder} has no {name}; weights are read from safetensors files only")
        state |= read_tensor_file(folder / name)
    return {key: tensor for key, tensor in state.items() if not key.endswith(_BUFFERS)}


def _read_lavis(settings: ModelSettings, source: WeightsSource) -> RawWeights:
    if not source.present:
        raise WeightsError(missing_weights_message(settings, source, "which does not exist"))
    if settings.llm_model is None:
        raise WeightsError(
            f"{source.location} is a LAVIS-format file: set model.llm_model to the folder or hub id of the language "
            "model that it was trained with (lmsys/vicuna-7b-v1.1 for EmoVIT's released weights)"
        )
    path = Path(source.location)
    # Before anything is downloaded for a file that cannot be used.
    translated = from_lavis(read_state_dict(path), str(path))
    _add_vision(translated, settings, path)
    state = translated.state
    options: dict[str, Any] = {"local_files_only": is_offline()}
    with _naming("model.llm_model", settings.llm_model):
        text_config = AutoConfig.from_pretrained(settings.llm_model, **options)
        llm_tokenizer = tokenization.load_llm_tokenizer(settings.llm_model, **options)
    words = settings.qformer_tokenizer or QFORMER_TOKENIZER
    with _naming("model.qformer_tokenizer", words):
        qformer_tokenizer = tokenization.load_qformer_tokenizer(words, **options)
    tokenization.add_original_tokens(llm_tokenizer, qformer_tokenizer, text_config.model_type == "llama")
    config = infer_config(state, text_config, settings.vision_heads, settings.qformer_heads, str(path))
    has_llm = any(name.startswith(LLM) for name in state)
    embedding = state.get("language_model.model.embed_tokens.weight", state.get("language_model.shared.weight"))
    num_tokens = len(embedding) if embedding is not None else max(text_config.vocab_size, len(llm_tokenizer))
    config.text_config.vocab_size = num_tokens
    llm = None if has_llm else settings.llm_model
    return RawWeights(state, config, llm_tokenizer, qformer_tokenizer, str(path), llm, translated.left_out)


@contextmanager
def _naming(key: str, location: str) -> Iterator[None]:
    """Errors inside the block name the key and the location."""
    path = expand_home(location)
    looks_local = location.startswith((".", "/", "~")) or path.suffix != "" or location.count("/") > 1
    if looks_local and not path.exists():
        raise WeightsError(f"{key}: nothing at {location}")
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:  # a damaged file can raise anything
        offline = " (EMOVIT_OFFLINE or HF_HUB_OFFLINE is set)" if is_offline() else ""
        raise WeightsError(
            f"{key}: '{location}' is not a folder with a tokenizer and cannot be downloaded{offline}: "
            f"{first_line(error)}"
        ) from error


def _add_vision(translated: Translation, settings: ModelSettings, path: Path) -> None:
    """Add EVA's image encoder to a trimmed file, which has none because InstructBLIP never trains it."""
    if any(name.startswith("vision_model.encoder.") for name in translated.state):
        return
    if settings.vision_weights is None:
        also = (
            ", or set model.pretrained to a complete InstructBLIP folder and model.finetuned to this file with "
            "model.load_finetuned=True"
        )
        also = "" if settings.arch == CONVERTER else also
        raise WeightsError(
            f"{path} is a trimmed file, without the image encoder. Set model.vision_weights to EVA's file "
            f"(eva_vit_g.pth, which LAVIS downloads on first use){also}"
        )
    vision = expand_home(settings.vision_weights)
    if not vision.is_file():
        raise WeightsError(f"model.vision_weights: no file at {vision}")
    eva = from_eva(read_state_dict(vision))
    if not eva.state:
        raise WeightsError(f"model.vision_weights: {vision} has no tensor of EVA's image encoder")
    translated.state.update(from_lavis(eva.state, str(vision)).state)
    translated.left_out += eva.left_out


def assemble(raw: RawWeights, settings: ModelSettings) -> Any:
    """Put tensors into modules; each keeps its precision, except a language model's, which gets the frozen one.

    Uses up `raw.state`. WeightsError names tensors that are missing, unknown or of another shape.
    """
    config = raw.config
    _trim_vocabulary(raw)
    core = empty_core(config, settings.attention)
    fill_all_but_llm(core, raw.state, raw.source)
    core.language_model = _load_llm(raw, type(core.language_model), settings)
    _set_vision_eps(core, config)
    if unfilled := [name for name, tensor in core.state_dict().items() if tensor.is_meta]:
        raise WeightsError(
            f"{raw.source} has no values for {len(unfilled)} tensors, the first: {', '.join(unfilled[:5])}"
        )
    return core


def empty_core(config: Any, attention: str) -> Any:
    """The modules without values, on the meta device."""
    config._attn_implementation = attention
    with torch.device("meta"):
        return InstructBlipForConditionalGeneration(config)


def fill_all_but_llm(core: Any, state: dict[str, torch.Tensor], source: str) -> None:
    """Move the tensors of `state` into the modules, except the language model's, which stay there."""
    fill(core, {name: state.pop(name) for name in list(state) if not name.startswith(LLM)}, source)
    words = core.qformer.embeddings
    positions = torch.arange(words.position_embeddings.num_embeddings)
    words.register_buffer("position_ids", positions[None], persistent=False)  # not in the files


def fill_vision(vision_model: nn.Module, state: Mapping[str, torch.Tensor], source: str) -> nn.Module:
    """A module with nothing but the image encoder, as `vision_model`, and its tensors of `state`."""
    core = nn.Module()
    core.vision_model = vision_model
    fill(core, {name: tensor for name, tensor in state.items() if name.startswith(VISION)}, source)
    return core


def fill(core: nn.Module, state: dict[str, torch.Tensor], source: str) -> None:
    """Put tensors in the place of all those of the modules except the language model's."""
    own = {name: tensor for name, tensor in core.state_dict().items() if not name.startswith(LLM)}
    check_fit(state, own, source, needed=own)
    core.load_state_dict(state, strict=False, assign=True)


def _set_vision_eps(core: Any, config: Any) -> None:
    norm = core.vision_model.post_layernorm
    norm.eps = getattr(config.vision_config, LAVIS_EPS_KEY, norm.eps)


def _load_llm(raw: RawWeights, language_class: Any, settings: ModelSettings) -> Any:
    text_config = raw.config.text_config
    if raw.llm_location is None:
        state = {name: raw.state.pop(name) for name in list(raw.state)}
        return fill_llm(state, text_config, language_class, settings, raw.source)
    try:
        options = _llm_options(settings)
        model = language_class.from_pretrained(raw.llm_location, local_files_only=is_offline(), **options)
    except Exception as error:  # a damaged file can raise anything
        raise WeightsError(
            f"the language model {raw.llm_location} could not be loaded ({first_line(error)})"
        ) from error
    resize_vocabulary(model, text_config.vocab_size)
    return model


def _llm_options(settings: QFormerSettings) -> dict[str, Any]:
    is_trained = "language_model" in settings.trained_parts
    dtype = torch.float32 if is_trained else PRECISIONS[settings.frozen_precision]
    return {"dtype": dtype, "attn_implementation": settings.attention}


def fill_llm(
    state: dict[str, torch.Tensor], text_config: Any, language_class: Any, settings: QFormerSettings, source: str
) -> Any:
    """A language model with the tensors of `state`, which is used up; their names begin with `LLM`."""
    options = _llm_options(settings)
    dtype, is_trained = options["dtype"], "language_model" in settings.trained_parts
    state = {name.removeprefix(LLM): state.pop(name) for name in list(state)}
    with torch.device("meta"):
        own = language_class(text_config).state_dict()
    # Tied tensors may be saved under one of their names, so missing names are checked after tying.
    check_fit(state, own, source, needed=(), target="the language model")
    precisions = {tensor.dtype for tensor in state.values() if tensor.is_floating_point()}
    if are_casts_later() and len(precisions) == 1 and not is_trained and settings.lora is None:
        # Adapters take the precision of the weights under them.
        (options["dtype"],) = precisions
    else:
        # transformers would cast all of them before it lets go of the first one.
        _cast_one_by_one(state, dtype, float32_modules(language_class) if dtype == torch.float16 else ())
    with quiet():
        model, info = language_class.from_pretrained(
            None, config=text_config, state_dict=state, output_loading_info=True, **options
        )
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise WeightsError(
            f"{source} is missing {len(missing)} tensors of the language model, the first: "
            f"{', '.join(LLM + name for name in missing[:5])}"
        )
    return model


def resize_vocabulary(language_model: Any, rows: int) -> None:
    """Give a language model `rows` token embeddings; an output head that differs from them keeps its values."""
    config, head = language_model.config, language_model.get_output_embeddings()
    is_tied = config.tie_word_embeddings
    # transformers 5 declares the head of every T5 tied, and ties it on each resize: Flan-T5's own head would be lost.
    config.tie_word_embeddings = is_tied and head.weight is language_model.get_input_embeddings().weight
    try:
        language_model.resize_token_embeddings(rows, mean_resizing=False)
    finally:
        config.tie_word_embeddings = is_tied


def _cast_one_by_one(state: dict[str, torch.Tensor], dtype: torch.dtype, in_float32: Collection[str]) -> None:
    """Cast floating-point tensors in place of the given ones; those of `in_float32` modules to float32."""
    files, made = MappedFiles(), dict[tuple[int, torch.Size], torch.Tensor]()
    for name in list(state):
        tensor = state.pop(name)
        # Tied tensors stay one: a `.pth` file has them under several names.
        key = tensor.data_ptr(), tensor.shape
        if key not in made:
            wanted = dtype if set(in_float32).isdisjoint(name.split(".")) else torch.float32
            made[key] = files.cast(tensor, wanted) if tensor.is_floating_point() else tensor
        state[name] = made[key]


def _trim_vocabulary(raw: RawWeights) -> None:
    """Drop the rows of an exported folder's placeholder, which is not part of the original vocabulary."""
    rows = getattr(raw.config, LLM_ROWS_KEY, None)
    if rows is None or rows >= raw.config.text_config.vocab_size:
        return
    raw.config.text_config.vocab_size = rows
    for name, tensor in raw.state.items():
        if name.startswith(LLM) and name.endswith(EMBEDDING_ROWS):
            raw.state[name] = tensor[:rows]


def prepare_tokenizers(parts: LoadedParts) -> None:
    """Set sides and pad token as in InstructBLIP."""
    # A question that is too long loses its beginning.
    for tokenizer in (parts.llm_tokenizer, parts.qformer_tokenizer):
        tokenizer.truncation_side = "left"
    parts.llm_tokenizer.padding_side = "left"
    if parts.llm_tokenizer.eos_token_id is None:
        raise WeightsError("the language model's tokenizer has no end token, so no answer could end")
    if parts.llm_tokenizer.pad_token_id is None:
        parts.llm_tokenizer.pad_token = parts.llm_tokenizer.eos_token


def _check_sizes(settings: ModelSettings, parts: LoadedParts, source: str) -> None:
    patch_size, problems = parts.core.config.vision_config.patch_size, []
    if settings.image_size % patch_size:
        problems.append(f"model.image_size is {settings.image_size}, no multiple of the patches' {patch_size} pixels")
    check_vocabularies(settings, parts, source, problems)


def check_vocabularies(
    settings: QFormerSettings, parts: LoadedParts, source: str, problems: Iterable[str] = ()
) -> None:
    """WeightsError if query tokens or tokenizers do not fit the modules, or with the problems found before."""
    problems, num_queries = list(problems), parts.core.query_tokens.shape[1]
    if num_queries != settings.num_query_token:
        problems.append(f"{num_queries} query tokens, model.num_query_token is {settings.num_query_token}")
    for reader, tokenizer, rows in (
        ("language model", parts.llm_tokenizer, parts.core.get_input_embeddings().weight.shape[0]),
        ("Q-Former", parts.qformer_tokenizer, parts.core.qformer.embeddings.word_embeddings.num_embeddings),
    ):
        # Two tokens of the vocabularies never occur in a text.
        unread = {tokenization.QFORMER_BEGIN, tokenization.IMAGE_PLACEHOLDER}
        beyond = [token for token, index in tokenizer.get_vocab().items() if index >= rows and token not in unread]
        if beyond:
            problems.append(f"the {reader} has {rows} token embeddings, its tokenizer {len(tokenizer)} tokens")
    if problems:
        raise WeightsError(f"the weights of {source} do not fit the configuration: " + "; ".join(problems))


@contextmanager
def quiet() -> Iterator[None]:
    """Switch off transformers' progress bar, which would count tensors that are already in memory."""
    shows = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shows:
            transformers_logging.enable_progress_bar()
