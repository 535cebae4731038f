"""Writing weights: a transformers folder, a LAVIS `.pth`, or trained tensors alone.

Every tensor keeps its values and its precision. A file or folder appears under its name only when it is complete, and
what was written is read back and compared.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, GenerationConfig, InstructBlipProcessor
from transformers.models.blip.image_processing_blip import BlipImageProcessor

from lavis_emovit.errors import WeightsError, first_line
from lavis_emovit.files import atomic_folder, atomic_path, atomic_writer, obey_umask
from lavis_emovit.images import CLIP_MEAN, CLIP_STD
from lavis_emovit.models.instructblip.lavis_format import to_lavis
from lavis_emovit.models.instructblip.loading import (
    EMBEDDING_ROWS,
    LLM,
    LLM_ROWS_KEY,
    RawWeights,
    quiet,
    read_tensors,
    resize_vocabulary,
)
from lavis_emovit.models.instructblip.parts import part_of
from lavis_emovit.models.instructblip.pickled import read_state_dict
from lavis_emovit.models.instructblip.tokenization import IMAGE_PLACEHOLDER, begin_with_bos
from lavis_emovit.models.instructblip.weights import is_offline


def save_transformers(raw: RawWeights, folder: Path, shard_size: str = "5GB") -> list[str]:
    """Write a folder that `InstructBlipForConditionalGeneration` and `InstructBlipProcessor` load.

    transformers writes a placeholder token in the place of the image. If the vocabulary has none, it is added at the
    end: a row of embeddings that is never read, and a row of the output head equal to the pad token's. Our own loader
    removes both, so no probability changes.

    Returns:
        what was added, for the report.
    """
    state = {**raw.state, **_language_model(raw)}
    config = copy.deepcopy(raw.config)
    text_config = config.text_config
    tokenizer, qformer_tokenizer = copy.deepcopy(raw.llm_tokenizer), copy.deepcopy(raw.qformer_tokenizer)
    for one in (tokenizer, qformer_tokenizer):
        for loading_option in ("is_local", "local_files_only"):
            one.init_kwargs.pop(loading_option, None)
    # Decoder-only models continue the text behind its last token, so padding comes first.
    tokenizer.padding_side = "left" if config.use_decoder_only_language_model else "right"
    tokenizer.init_kwargs["padding_side"] = tokenizer.padding_side  # only these are saved
    if config.use_decoder_only_language_model:
        begin_with_bos(tokenizer)
    size = config.vision_config.image_size
    processor = InstructBlipProcessor(
        BlipImageProcessor(size={"height": size, "width": size}, image_mean=list(CLIP_MEAN), image_std=list(CLIP_STD)),
        tokenizer,
        qformer_tokenizer,
        num_query_tokens=config.num_query_tokens,
    )
    added = []
    config.image_token_index = tokenizer.convert_tokens_to_ids(IMAGE_PLACEHOLDER)
    rows = _vocabulary_rows(state)
    if config.image_token_index >= rows:
        setattr(config, LLM_ROWS_KEY, rows)
        token = config.image_token_index
        state |= _with_placeholder(state, token + 1, tokenizer.pad_token_id)
        added.append(f"{IMAGE_PLACEHOLDER} as token {token}, {token + 1 - rows} rows")
    text_config.vocab_size = _vocabulary_rows(state)
    for key in ("pad_token_id", "eos_token_id", "bos_token_id"):
        if getattr(tokenizer, key) is not None:
            setattr(text_config, key, getattr(tokenizer, key))
    config.architectures = ["InstructBlipForConditionalGeneration"]
    precisions = {tensor.dtype for tensor in state.values()}
    config.dtype = next(iter(precisions)) if len(precisions) == 1 else torch.float32

    with atomic_folder(folder) as unfinished:
        config.save_pretrained(unfinished)
        GenerationConfig.from_model_config(text_config).save_pretrained(unfinished)
        processor.save_pretrained(unfinished)
        tensors = {name: tensor.contiguous() for name, tensor in state.items()}
        save_torch_state_dict(tensors, unfinished, max_shard_size=shard_size)
        for file in unfinished.glob("*.safetensors"):
            obey_umask(file)
        _compare(read_tensors(unfinished), state, folder)
    return added


def save_lavis(raw: RawWeights, path: Path, trimmed: bool = False) -> list[str]:
    """Write `{"model": state dict}` under LAVIS's names, as its `load_checkpoint` reads it.

    Args:
        trimmed: omit the image encoder and the language model, which LAVIS loads itself, as in its published files.

    Returns:
        what was omitted, for the report.
    """
    is_seq2seq = not raw.config.use_decoder_only_language_model
    rows = getattr(raw.config, LLM_ROWS_KEY, None)
    state = {
        name: tensor[:rows] if rows is not None and name.startswith(LLM) and name.endswith(EMBEDDING_ROWS) else tensor
        for name, tensor in raw.state.items()
        if not trimmed or part_of(name) not in ("vision_encoder", "language_model")
    }
    translated = to_lavis(state, is_seq2seq)
    if trimmed:
        translated.left_out += ["the image encoder and the language model (trimmed)"]
    elif raw.llm_location is not None:
        translated.left_out += [f"the language model, which is in {raw.llm_location}"]
    with atomic_writer(path, "wb") as file:
        torch.save({"model": {name: tensor.clone() for name, tensor in translated.state.items()}}, file)
    written = read_state_dict(path)
    _compare(written, translated.state, path)
    return translated.left_out


def save_trained(raw: RawWeights, path: Path, parts: Sequence[str]) -> list[str]:
    """Write the tensors of some parts as one safetensors file, which `model.finetuned` loads over the same base.

    Returns the parts that were omitted, for the report.
    """
    chosen = {name: tensor.contiguous() for name, tensor in raw.state.items() if part_of(name) in parts}
    if not chosen:
        raise WeightsError(f"{raw.source} has no tensor of {', '.join(parts)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        save_file(chosen, str(temporary), metadata={"format": "pt", "trained_parts": json.dumps(list(parts))})
        obey_umask(temporary)
    return [f"{part} (not requested)" for part in sorted({part_of(name) for name in raw.state} - set(parts))]


def _language_model(raw: RawWeights) -> dict[str, torch.Tensor]:
    """The language model's tensors if they are in a separate folder, in that folder's precision."""
    if raw.llm_location is None:
        return {}
    kind: Any = AutoModelForCausalLM if raw.config.use_decoder_only_language_model else AutoModelForSeq2SeqLM
    try:
        with quiet():
            model = kind.from_pretrained(raw.llm_location, dtype="auto", local_files_only=is_offline())
    except Exception as error:  # a damaged file can raise anything
        raise WeightsError(
            f"the language model {raw.llm_location} could not be loaded ({first_line(error)})"
        ) from error
    rows = raw.config.text_config.vocab_size
    if model.get_input_embeddings().weight.shape[0] < rows:
        resize_vocabulary(model, rows)
    return {LLM + name: tensor for name, tensor in model.state_dict().items()}


def _vocabulary_rows(state: Mapping[str, torch.Tensor]) -> int:
    for name in ("model.embed_tokens.weight", "shared.weight"):
        if LLM + name in state:
            return len(state[LLM + name])
    raise WeightsError("the language model has no known table of token embeddings (Llama's or T5's)")


def _with_placeholder(state: Mapping[str, torch.Tensor], rows: int, pad_id: int) -> dict[str, torch.Tensor]:
    longer = {}
    for name, tensor in state.items():
        if name.startswith(LLM) and name.endswith(EMBEDDING_ROWS):
            # Equal to the pad token's: never likelier than it, so the same tokens are generated as before.
            longer[name] = torch.cat([tensor, tensor[pad_id : pad_id + 1].expand(rows - len(tensor), -1)])
    return longer


def _compare(written: Mapping[str, torch.Tensor], meant: Mapping[str, torch.Tensor], target: Path) -> None:
    # Tied tensors are written under one of their names.
    tied = {tensor.data_ptr() for name, tensor in meant.items() if name in written}
    for name, tensor in meant.items():
        if name not in written and tensor.data_ptr() in tied:
            continue
        if name not in written or written[name].dtype != tensor.dtype or not _same_bits(written[name], tensor):
            raise WeightsError(f"{target}: {name} reads back differently; is the disk full or failing?")


def _same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    # NaN is equal to itself here.
    if first.shape != second.shape:
        return False
    flat = (tensor.contiguous().view(-1).view(torch.uint8) for tensor in (first, second))
    return torch.equal(*flat)
