"""From files to the parts of a model: tensors are read once, in the precision they were saved in, and then placed.

Both formats go the same way: `read_weights` gathers tensors under transformers' names, a configuration and tokenizers;
`assemble` puts them into modules. The language model alone is cast while it is loaded (`model.frozen_precision`), so
that 7B parameters never stand in memory as float32; what learns keeps the precision of the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, InstructBlipConfig, InstructBlipForConditionalGeneration
from transformers.utils import logging as transformers_logging

from lavis_emovit.errors import WeightsError
from lavis_emovit.models.instructblip import tokenization
from lavis_emovit.models.instructblip.architecture import LAVIS_EPS_KEY, infer_config
from lavis_emovit.models.instructblip.lavis_format import Translation, from_eva, from_lavis
from lavis_emovit.models.instructblip.pickled import read_state_dict
from lavis_emovit.models.instructblip.settings import ModelSettings
from lavis_emovit.models.instructblip.weights import WeightsSource, find_weights, is_offline, missing_weights_message
from lavis_emovit.models.tensors import PRECISIONS, first_line, read_tensor_file

LLM = "language_model."
# How many rows of the language model's vocabulary are the original's: an exported folder has one more, the placeholder
# that transformers' processor writes where the picture goes. It must not take part in any probability.
LLM_ROWS_KEY = "emovit_llm_vocab_size"
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
QFORMER_TOKENIZER = "bert-base-uncased"
_BUFFERS = ("position_ids", "rotary_emb.inv_freq")


@dataclass
class LoadedParts:
    """What a model is made of."""

    core: InstructBlipForConditionalGeneration
    llm_tokenizer: Any
    qformer_tokenizer: Any


@dataclass
class RawWeights:
    """Tensors under transformers' names in the precision of their files, and what belongs to them."""

    state: dict[str, torch.Tensor]
    config: InstructBlipConfig
    llm_tokenizer: Any
    qformer_tokenizer: Any
    source: str
    # Where the language model comes from if it is not in `state`.
    llm_location: str | None = None
    left_out: list[str] = field(default_factory=list)


def load_parts(settings: ModelSettings) -> LoadedParts:
    """Load modules and tokenizers.

    Raises:
        WeightsError: weights are missing, unreadable or of another shape.
    """
    raw = read_weights(settings)
    parts = LoadedParts(assemble(raw, settings), raw.llm_tokenizer, raw.qformer_tokenizer)
    prepare_tokenizers(parts)
    _check_sizes(settings, parts, raw.source)
    return parts


def read_weights(settings: ModelSettings) -> RawWeights:
    """Gather what the settings name, without casting anything and without building a model.

    Raises:
        WeightsError: files are missing, damaged, or do not belong together.
    """
    source = find_weights(settings)
    if source.kind == "lavis_file":
        return _read_lavis(settings, source)
    folder = _fetch(settings, source) if source.kind == "hub" else Path(source.location)
    if source.kind == "folder" and not source.present:
        reason = "a folder without config.json" if folder.is_dir() else "which does not exist"
        raise WeightsError(missing_weights_message(settings, source, reason))
    try:
        config = InstructBlipConfig.from_pretrained(folder)
        llm_tokenizer = AutoTokenizer.from_pretrained(folder)
        qformer_tokenizer = AutoTokenizer.from_pretrained(folder, subfolder="qformer_tokenizer")
    except (OSError, ValueError) as error:
        reason = f"which could not be loaded ({first_line(error)})"
        raise WeightsError(missing_weights_message(settings, source, reason)) from error
    return RawWeights(read_tensors(folder), config, llm_tokenizer, qformer_tokenizer, source.location)


def _fetch(settings: ModelSettings, source: WeightsSource) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(source.location, allow_patterns=_HUB_FILES, local_files_only=is_offline())
    except Exception as error:  # network, authorisation, no such repository: all end in the same advice
        reason = f"which could not be fetched ({first_line(error)})"
        raise WeightsError(missing_weights_message(settings, source, reason)) from error
    return Path(folder)


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a transformers folder by name, in the precision of its safetensors files.

    Raises:
        WeightsError: a file is missing, cut off or damaged.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        names = ["model.safetensors"]
    state: dict[str, torch.Tensor] = {}
    for name in names:
        if not (folder / name).is_file():
            raise WeightsError(f"{folder} lacks {name}; weights are read from safetensors files only")
        state |= read_tensor_file(folder / name)
    return {key: tensor for key, tensor in state.items() if not key.endswith(_BUFFERS)}


def _read_lavis(settings: ModelSettings, source: WeightsSource) -> RawWeights:
    if not source.present:
        raise WeightsError(missing_weights_message(settings, source, "which does not exist"))
    if settings.llm_model is None:
        raise WeightsError(
            f"{source.location} is a LAVIS-format file: it needs model.llm_model, the folder or hub id of the language "
            "model that it was trained with (lmsys/vicuna-7b-v1.1 for EmoVIT's released weights)"
        )
    path = Path(source.location)
    # Before anything is fetched for a file that cannot be used.
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
    config = infer_config(
        state,
        text_config,
        vision_heads=settings.vision_heads,
        qformer_heads=settings.qformer_heads,
        source=str(path),
    )
    brings_llm = any(name.startswith(LLM) for name in state)
    embedding = state.get("language_model.model.embed_tokens.weight", state.get("language_model.shared.weight"))
    llm_config: Any = config.text_config
    llm_config.vocab_size = len(embedding) if embedding is not None else max(llm_config.vocab_size, len(llm_tokenizer))
    return RawWeights(
        state, config, llm_tokenizer, qformer_tokenizer, str(path), None if brings_llm else settings.llm_model,
        translated.left_out,
    )  # fmt: skip


@contextmanager
def _naming(key: str, location: str) -> Iterator[None]:
    """Errors of what is loaded inside name the key and the place."""
    path = Path(location).expanduser()
    looks_local = location.startswith((".", "/", "~")) or path.suffix != "" or location.count("/") > 1
    if looks_local and not path.exists():
        raise WeightsError(f"{key}: nothing at {location}")
    try:
        yield
    except WeightsError:
        raise
    except (OSError, ValueError) as error:
        offline = " (EMOVIT_OFFLINE or HF_HUB_OFFLINE forbids to fetch it)" if is_offline() else ""
        raise WeightsError(
            f"{key}: '{location}' is neither a folder with a tokenizer here nor can it be fetched{offline}: "
            f"{first_line(error)}"
        ) from error


def _add_vision(translated: Translation, settings: ModelSettings, path: Path) -> None:
    """A trimmed file lacks the image encoder, which InstructBLIP never trains: take EVA's own."""
    if any(name.startswith("vision_model.encoder.") for name in translated.state):
        return
    if settings.vision_weights is None:
        raise WeightsError(
            f"{path} is a trimmed file, without the image encoder. Name EVA's file in model.vision_weights "
            "(eva_vit_g.pth, which LAVIS fetches on first use), or set model.pretrained to a complete InstructBLIP "
            "folder and model.finetuned to this file with model.load_finetuned=True"
        )
    vision = Path(settings.vision_weights).expanduser()
    if not vision.is_file():
        raise WeightsError(f"model.vision_weights: no file at {vision}")
    eva = from_eva(read_state_dict(vision))
    if not eva.state:
        raise WeightsError(f"model.vision_weights: {vision} holds no tensor of EVA's image encoder")
    translated.state.update(from_lavis(eva.state, str(vision)).state)
    translated.left_out += eva.left_out


def assemble(raw: RawWeights, settings: ModelSettings) -> InstructBlipForConditionalGeneration:
    """Put tensors into modules; each keeps its precision, but for a language model, which gets the frozen one.

    Raises:
        WeightsError: shapes differ, or tensors are missing or unknown; the text names them.
    """
    config = raw.config
    config._attn_implementation = settings.attention
    with torch.device("meta"):
        core = InstructBlipForConditionalGeneration(config)
    own = {name: tensor for name, tensor in core.state_dict().items() if not name.startswith(LLM)}
    rest = {name: tensor for name, tensor in raw.state.items() if not name.startswith(LLM)}
    compare_shapes(rest, own, raw.source)
    core.load_state_dict(rest, strict=False, assign=True)
    embeddings: Any = core.qformer.embeddings
    positions = torch.arange(embeddings.position_embeddings.num_embeddings)
    embeddings.register_buffer("position_ids", positions[None], persistent=False)  # the one buffer that is not saved
    core.language_model = _load_llm(raw, type(core.language_model), settings)
    _trim_vocabulary(core)
    core.vision_model.post_layernorm.eps = getattr(
        config.vision_config, LAVIS_EPS_KEY, core.vision_model.post_layernorm.eps
    )
    if unfilled := [name for name, tensor in core.state_dict().items() if tensor.is_meta]:
        raise WeightsError(f"{raw.source} left {len(unfilled)} tensors empty, the first: {', '.join(unfilled[:5])}")
    return core


def _load_llm(raw: RawWeights, language_class: Any, settings: ModelSettings) -> Any:
    options: dict[str, Any] = {
        "dtype": torch.float32 if "language_model" in settings.trained_parts else PRECISIONS[settings.frozen_precision],
        "attn_implementation": settings.attention,
    }
    text_config: Any = raw.config.text_config
    if raw.llm_location is not None:
        try:
            model = language_class.from_pretrained(raw.llm_location, local_files_only=is_offline(), **options)
        except (OSError, ValueError) as error:
            raise WeightsError(
                f"the language model {raw.llm_location} could not be loaded ({first_line(error)})"
            ) from error
        model.resize_token_embeddings(text_config.vocab_size, mean_resizing=False)
        return model
    state = {name.removeprefix(LLM): tensor for name, tensor in raw.state.items() if name.startswith(LLM)}
    with torch.device("meta"):
        own = language_class(text_config).state_dict()
    # Tied tensors may be saved once for all their names, so that only shapes and unknown names are compared here.
    compare_shapes(state, {name: own[name] for name in own if name in state}, raw.source, prefix=LLM)
    with quiet():
        model, info = language_class.from_pretrained(
            None, config=text_config, state_dict=state, output_loading_info=True, **options
        )
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise WeightsError(
            f"{raw.source} lacks {len(missing)} tensors of the language model, the first: "
            f"{', '.join(LLM + name for name in missing[:5])}"
        )
    return model


def _trim_vocabulary(core: InstructBlipForConditionalGeneration) -> None:
    rows = getattr(core.config, LLM_ROWS_KEY, None)
    embedding: Any = core.get_input_embeddings()
    if rows is not None and rows < embedding.weight.shape[0]:
        core.language_model.resize_token_embeddings(rows, mean_resizing=False)
        text_config: Any = core.config.text_config
        text_config.vocab_size = rows


def compare_shapes(state: dict[str, torch.Tensor], own: dict[str, torch.Tensor], source: str, prefix: str = "") -> None:
    """Refuse tensors that do not fit a model (WeightsError); the text has each kind with its first names."""
    wrong = [
        f"shape of {prefix}{name}: {list(tensor.shape)}, expected {list(own[name].shape)}"
        for name, tensor in state.items()
        if name in own and own[name].shape != tensor.shape
    ]
    unexpected = [f"unexpected: {prefix}{name}" for name in state if name not in own]
    missing = [f"missing: {prefix}{name}" for name in own if name not in state]
    if wrong or unexpected or missing:
        lines = [f"  - {line}" for group in (wrong, unexpected, missing) for line in group[:5]]
        raise WeightsError(
            f"{source} does not fit the model ({len(wrong)} wrong shapes, {len(unexpected)} unexpected, "
            f"{len(missing)} missing):\n" + "\n".join(lines)
        )


def prepare_tokenizers(parts: LoadedParts) -> None:
    """Set sides and pad token as InstructBLIP has them."""
    # A question that is too long loses its beginning, not its end.
    for tokenizer in (parts.llm_tokenizer, parts.qformer_tokenizer):
        tokenizer.truncation_side = "left"
    parts.llm_tokenizer.padding_side = "left"
    if parts.llm_tokenizer.eos_token_id is None:
        raise WeightsError("the language model's tokenizer has no end token, so that an answer could never end")
    if parts.llm_tokenizer.pad_token_id is None:
        parts.llm_tokenizer.pad_token = parts.llm_tokenizer.eos_token


def _check_sizes(settings: ModelSettings, parts: LoadedParts, source: str) -> None:
    vision_config: Any = parts.core.config.vision_config
    patch_size, num_queries = vision_config.patch_size, parts.core.query_tokens.shape[1]
    problems = []
    # Another size than the weights' own is read with interpolated positions.
    if settings.image_size % patch_size:
        problems.append(f"model.image_size is {settings.image_size}, no multiple of the patches' {patch_size} pixels")
    if num_queries != settings.num_query_token:
        problems.append(f"{num_queries} query tokens, model.num_query_token says {settings.num_query_token}")
    embedding: Any = parts.core.get_input_embeddings()
    embeddings: Any = parts.core.qformer.embeddings
    for reader, tokenizer, rows in (
        ("language model", parts.llm_tokenizer, embedding.weight.shape[0]),
        ("Q-Former", parts.qformer_tokenizer, embeddings.word_embeddings.num_embeddings),
    ):
        # Two tokens are in vocabularies and never in a text that is read.
        unread = {tokenization.QFORMER_BEGIN, tokenization.IMAGE_PLACEHOLDER}
        beyond = [token for token, index in tokenizer.get_vocab().items() if index >= rows and token not in unread]
        if beyond:
            problems.append(f"the {reader} has {rows} token embeddings, its tokenizer {len(tokenizer)} tokens")
    if problems:
        raise WeightsError(f"the weights of {source} do not fit the configuration: " + "; ".join(problems))


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bar, which would count tensors that are in memory already."""
    shows = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shows:
            transformers_logging.enable_progress_bar()
