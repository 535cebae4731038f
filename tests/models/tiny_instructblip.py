"""Random InstructBLIP models of a few thousand parameters, decoder-only and encoder-decoder, and their tokenizers."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    LlamaConfig,
    PreTrainedTokenizerFast,
    T5Config,
)

from lavis_emovit.models.instructblip.loading import LoadedParts, prepare_tokenizers

LINES = ["Which emotion is it: amusement, anger, awe, sadness?", "Predict emotion: awe", "It is dark, says the girl."]


def byte_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["[PAD]", "<s>", "</s>", "[UNK]", "[CLS]", "[SEP]"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        LINES * 3, trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="[PAD]", unk_token="[UNK]"
    )


def make_parts(kind: str, seed: int = 0, depth: int = 2, num_queries: int = 3) -> LoadedParts:
    torch.manual_seed(seed)
    llm_tokenizer, qformer_tokenizer = byte_tokenizer(), byte_tokenizer()
    sizes = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": len(llm_tokenizer)}
    if kind == "causal":
        text = LlamaConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, **sizes)
    else:
        text = T5Config(
            d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0, **sizes,
            feed_forward_proj="gated-gelu", tie_word_embeddings=False,
        )  # fmt: skip
    config = InstructBlipConfig(
        vision_config={
            "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": depth, "num_attention_heads": 4,
            "image_size": 16, "patch_size": 8, "initializer_range": 0.1,
        },
        qformer_config={
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": depth, "num_attention_heads": 4,
            "vocab_size": len(qformer_tokenizer), "max_position_embeddings": 128, "initializer_range": 0.2,
        },
        text_config=text.to_dict(),
        num_query_tokens=num_queries,
    )  # fmt: skip
    core = InstructBlipForConditionalGeneration(config)
    # Weights as large as trained ones: with the usual 0.02 all candidates would have the same score.
    with torch.no_grad():
        for parameter in core.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.25)
    parts = LoadedParts(core, llm_tokenizer, qformer_tokenizer)
    prepare_tokenizers(parts)
    return parts
