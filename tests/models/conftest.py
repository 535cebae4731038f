"""Fixtures of random tiny models, the golden data and the folder of a language model."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import LlamaConfig

sys.path.insert(0, str(Path(__file__).resolve().parent))

from tiny_instructblip import make_parts

from lavis_emovit.models.instructblip.model import EmoVIT
from lavis_emovit.models.instructblip.settings import ModelSettings


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


@pytest.fixture
def clips() -> dict:
    """A training batch of two clips of four frames, with three questions."""
    return {
        "image": torch.randn(2, 3, 4, 16, 16, generator=torch.Generator().manual_seed(3)),
        "image_index": torch.tensor([1, 0, 1]),
        "text_input": ["Which emotion is it?", "Is it dark? Is it dark?", "Why?"],
        "text_output": ["awe", "No.", "Because the girl says that it is dark."],
    }
