"""Tokenizers that agree with InstructBLIP's original code, from the published files.

The original code uses sentencepiece itself. The fast tokenizers that transformers builds from the same file treat runs
of spaces, the ends of a text and normalisation differently, which changes every loss. The tokenizers built here follow
the rules in the sentencepiece file.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lavis_emovit.errors import WeightsError
from lavis_emovit.files import read_file, regular_file
from lavis_emovit.paths import expand_home

SPACE = "▁"  # how sentencepiece writes a space
SENTENCEPIECE_FILE = "tokenizer.model"
WORDPIECE_FILE = "vocab.txt"
# InstructBLIP adds a pad token to Llama, and uses one token as begin, end and unknown token.
LLAMA_PAD = "[PAD]"
LLAMA_END = "</s>"
QFORMER_BEGIN = "[DEC]"
IMAGE_PLACEHOLDER = "<image>"  # transformers' processor writes it in the place of the image


def load_llm_tokenizer(location: str, **options: Any) -> Any:
    """Tokenizer of a language model's folder or hub id; a sentencepiece file in a folder is followed exactly."""
    file = expand_home(location) / SENTENCEPIECE_FILE
    if file.is_file() and not (file.parent / "tokenizer.json").is_file():
        return sentencepiece_tokenizer(file)
    return AutoTokenizer.from_pretrained(location, **options)


def load_qformer_tokenizer(location: str, **options: Any) -> Any:
    """Tokenizer of the Q-Former: a `vocab.txt`, a folder with one, any tokenizer folder, or a hub id."""
    path = expand_home(location)
    if path.is_file():
        return wordpiece_tokenizer(path)
    if (path / WORDPIECE_FILE).is_file() and not (path / "tokenizer.json").is_file():
        return wordpiece_tokenizer(path / WORDPIECE_FILE)
    return AutoTokenizer.from_pretrained(location, **options)


def add_original_tokens(llm_tokenizer: Any, qformer_tokenizer: Any, is_llama: bool) -> None:
    """Add the special tokens that InstructBLIP's code adds after loading; ids of all others stay."""
    if is_llama:
        llm_tokenizer.add_special_tokens({"pad_token": LLAMA_PAD})
        llm_tokenizer.add_special_tokens({"bos_token": LLAMA_END, "eos_token": LLAMA_END, "unk_token": LLAMA_END})
        backend = llm_tokenizer.backend_tokenizer
        backend.post_processor = _begin_with(LLAMA_END, llm_tokenizer.bos_token_id)
    qformer_tokenizer.add_special_tokens({"bos_token": QFORMER_BEGIN})


def begin_with_bos(tokenizer: Any) -> None:
    """Let a tokenizer write its begin token, which our own code adds itself (see `encode_prompts`)."""
    if tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] != tokenizer.bos_token_id:
        tokenizer.backend_tokenizer.post_processor = _begin_with(tokenizer.bos_token, tokenizer.bos_token_id)


def sentencepiece_tokenizer(file: Path) -> PreTrainedTokenizerFast:
    """Fast tokenizer with the pieces, merges and normalisation of a sentencepiece BPE model with byte fallback."""
    layout: Any = import_module("sentencepiece.sentencepiece_model_pb2")
    proto = layout.ModelProto()
    try:
        proto.ParseFromString(read_file(file))
    except Exception as error:  # protobuf's DecodeError has no stable import path
        raise WeightsError(f"{file} cannot be read as a sentencepiece model ({error})") from error
    if proto.trainer_spec.model_type != layout.TrainerSpec.BPE or not proto.pieces:
        raise WeightsError(f"{file} is not a sentencepiece model of the BPE kind, as Llama's is")
    vocabulary = {piece.piece: index for index, piece in enumerate(proto.pieces)}
    unknown = proto.pieces[proto.trainer_spec.unk_id].piece
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=_merges(proto, layout, vocabulary),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=proto.trainer_spec.byte_fallback,
        )
    )
    tokenizer.normalizer = _normalizer(proto.normalizer_spec)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    types = layout.ModelProto.SentencePiece
    special = [piece.piece for piece in proto.pieces if piece.type in (types.CONTROL, types.UNKNOWN)]
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False, special=True) for piece in special])
    begin, end = (_piece(proto, index) for index in (proto.trainer_spec.bos_id, proto.trainer_spec.eos_id))
    if begin is not None:
        tokenizer.post_processor = _begin_with(begin, vocabulary[begin])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=begin, eos_token=end, unk_token=unknown)


def _piece(proto: Any, index: int) -> str | None:
    return proto.pieces[index].piece if 0 <= index < len(proto.pieces) else None


def _merges(proto: Any, layout: Any, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Pairs in the order in which sentencepiece joins them: highest score first."""
    ordinary = [piece for piece in proto.pieces if piece.type == layout.ModelProto.SentencePiece.NORMAL]
    found = []
    for piece in sorted(ordinary, key=lambda piece: -piece.score):
        text = piece.piece
        pairs = [(text[:cut], text[cut:]) for cut in range(1, len(text))]
        pairs = [pair for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary]
        found += sorted(pairs, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
    return found


def _normalizer(spec: Any) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    if spec.escape_whitespaces:
        steps.append(normalizers.Replace(" ", SPACE))
    return normalizers.Sequence(steps)


def _begin_with(token: str, token_id: int) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(
        single=[token, "$A"], pair=[token, "$A", token, "$B"], special_tokens=[(token, token_id)]
    )


def wordpiece_tokenizer(file: Path) -> PreTrainedTokenizerFast:
    """BERT's uncased tokenizer from its vocabulary file, one piece per line; WeightsError for other files."""
    try:
        pieces = regular_file(file).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{file} cannot be read as a word-piece vocabulary ({error})") from error
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    special = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
    if missing := [token for token in special.values() if token not in vocabulary]:
        raise WeightsError(f"{file} is not a BERT vocabulary: {', '.join(missing)} missing")
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    if "[MASK]" in vocabulary:
        special["mask_token"] = "[MASK]"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
