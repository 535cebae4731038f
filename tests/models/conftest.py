"""Random models of a few thousand parameters, decoder-only and encoder-decoder, and tokenizers for them."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
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
from lavis_emovit.models.instructblip.model import EmoVIT
from lavis_emovit.models.instructblip.settings import ModelSettings

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


@pytest.fixture
def build_parts():
    """Function (kind, seed=, depth=, num_queries=) -> the parts of a random model."""
    return make_parts


@pytest.fixture(params=["causal", "seq2seq"])
def model(request) -> EmoVIT:
    settings = ModelSettings(arch="emovit_test", pretrained="none", image_size=16, num_query_token=3)
    return EmoVIT(make_parts(request.param), settings).eval()


@pytest.fixture
def batch() -> dict:
    torch.manual_seed(1)
    return {
        "image": torch.randn(2, 3, 16, 16),
        "image_index": torch.tensor([0, 1, 1]),
        "text_input": ["Which emotion is it?", "Which emotion is it: awe or sadness?", "Is it dark?"],
        "text_output": ["Predict emotion: awe", "sadness", "It is dark, says the girl."],
    }


@pytest.fixture
def naive_score():
    """Function (model, image, question, answer_ids, num_shared) -> log-probability of the tokens after the
    shared ones, by a plain pass of transformers' language model."""
    return _naive_score


def _naive_score(model: EmoVIT, image: torch.Tensor, question: str, answer_ids: list[int], num_shared: int) -> float:
    with torch.no_grad():
        prefix = model.query_images(model.encode_images(image[None]), torch.tensor([0]), [question])
        answer = torch.tensor([answer_ids])
        if model.is_seq2seq:
            prompt = torch.tensor([model.llm_tokenizer(question)["input_ids"]])
            inputs = torch.cat([prefix, model.core.get_input_embeddings()(prompt)], dim=1)
            logits = model.core.language_model(inputs_embeds=inputs, labels=answer).logits[0]
        else:
            prompt = torch.tensor([[1, *model.llm_tokenizer(question, add_special_tokens=False)["input_ids"]]])
            ids = torch.cat([prompt, answer], dim=1)
            inputs = torch.cat([prefix, model.core.get_input_embeddings()(ids)], dim=1)
            logits = model.core.language_model(inputs_embeds=inputs).logits[0, -len(answer_ids) - 1 : -1]
        scores = logits.log_softmax(-1)[torch.arange(len(answer_ids)), answer[0]]
    return float(scores[num_shared:].sum())


@pytest.fixture(scope="session")
def make_reference() -> ModuleType:
    """The tool that writes golden data: a model in LAVIS's layout and its outputs."""
    path = Path(__file__).resolve().parents[2] / "tools" / "make_reference.py"
    spec = importlib.util.spec_from_file_location("make_reference", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def llm_folder():
    """Function (folder, reference folder, sizes) -> a language model's folder: configuration and tokenizer."""

    def write(folder: Path, reference: Path, sizes: dict) -> Path:
        LlamaConfig(**sizes).save_pretrained(folder)
        shutil.copy(reference / "tokenizer.model", folder)
        return folder

    return write
