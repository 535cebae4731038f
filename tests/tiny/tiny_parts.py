"""Parts that the tiny families share: sizes, tokenizers of the published kinds, and random weights.

A tokenizer is built by the class that the published model names, with a vocabulary trained on a few sentences: Llama
and Gemma mark spaces and fall back to bytes, Qwen and GPT-2 work on bytes. Weights are scaled by the width that they
read, so that images and questions change the logits at any size.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache

import torch
import transformers
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

SENTENCES = (
    "What emotion does this image show?",
    "Which emotion do people feel when they see this image?",
    "Why would it make people feel sad?\n\nThe sky is dark and the street is empty.\n",
    "Predict emotion: amusement, anger, awe, contentment, disgust, excitement, fear, sadness",
    "A child laughs on the beach.\nThe warm light makes the scene calm.\n\n\nQuestion: Answer:",
    "USER: ASSISTANT: user assistant model system",
) * 3

LINEAR = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.Conv3d)


@dataclass(frozen=True)
class Sizes:
    """Sizes of a model; a benchmark builds larger ones.

    Args:
        width: hidden size of the language model, a multiple of `4 * heads`.
        layers: layers of the language model.
        heads: attention heads of the language model.
        kv_heads: heads of keys and values, where the family has fewer of them.
        mlp: hidden size of the feed-forward part, as a multiple of the width.
        vocab: rows of the embedding; never fewer than the tokenizer has tokens.
        vision_width: hidden size of the vision tower.
        vision_layers: layers of the vision tower.
        vision_heads: attention heads of the vision tower.
        image_px: side of the image, or of one tile.
        patch_px: side of a patch.
        vision_window: side of a window of the vision tower, in patches; the published Qwen2.5-VL has 8.
        window: tokens that a layer with a sliding window sees.
        context: longest sequence.
    """

    width: int = 32
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    mlp: int = 2
    vocab: int = 512
    vision_width: int = 32
    vision_layers: int = 2
    vision_heads: int = 2
    image_px: int = 16
    patch_px: int = 8
    vision_window: int = 4
    window: int = 8
    context: int = 2048

    def vision(self, **more: object) -> dict:
        """The keys that most vision towers share."""
        return {
            "hidden_size": self.vision_width, "intermediate_size": self.vision_width * 2,
            "num_hidden_layers": self.vision_layers, "num_attention_heads": self.vision_heads,
            "image_size": self.image_px, "patch_size": self.patch_px, **more,
        }  # fmt: skip

    def text(self, tokenizer: transformers.PreTrainedTokenizerBase, **more: object) -> dict:
        """The keys that most language models share, with the special tokens of the tokenizer."""
        return {
            "vocab_size": max(self.vocab, len(tokenizer)), "hidden_size": self.width,
            "intermediate_size": self.width * self.mlp, "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads,
            "max_position_embeddings": self.context, "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, **more,
        }  # fmt: skip


@lru_cache
def _pieces(of_bytes: bool) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    tokenizer = Tokenizer(models.BPE())
    newlines = pre_tokenizers.Split(Regex("\n+"), "isolated")
    if of_bytes:
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        alphabet = [chr(code) for code in range(33, 127)] + ["▁", "\n"]
        words = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([newlines, words])
    tokenizer.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return tuple(sorted(tokenizer.get_vocab(), key=tokenizer.token_to_id)), tuple(map(tuple, merges))


def make_tokenizer(kind: str, first: list[str], **options: object) -> transformers.PreTrainedTokenizerBase:
    """A tokenizer of a published class.

    Args:
        kind: class of transformers, such as `LlamaTokenizer`.
        first: tokens that come first in the vocabulary, such as padding, begin and end.
        options: options of the class, such as its special tokens.
    """
    of_bytes = kind in ("Qwen2Tokenizer", "GPT2Tokenizer")
    pieces, merges = _pieces(of_bytes)
    fallback = [] if of_bytes else [f"<0x{byte:02X}>" for byte in range(256)]
    vocab = {token: number for number, token in enumerate([*first, *fallback, *pieces])}
    return getattr(transformers, kind)(vocab=vocab, merges=list(merges), **options)


def fill(model: torch.nn.Module, seed: int) -> None:
    """Give each weight a spread by the width that it reads, so that every input reaches the logits."""
    generator = torch.Generator().manual_seed(seed)
    # Tied embeddings of full size would answer with the last token again and again.
    read, written = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if name == "bias" or "Position" in type(module).__name__:
                    spread = 0.1
                elif "norm" in type(module).__name__.lower():
                    parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
                    continue
                elif parameter is read is written:
                    spread = 0.5 / parameter.shape[1] ** 0.5
                elif isinstance(module, LINEAR):
                    spread = 1.5 / parameter[0].numel() ** 0.5
                elif "projection" in name:
                    spread = 1.5 / parameter.shape[0] ** 0.5
                else:
                    spread = 1.0
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
