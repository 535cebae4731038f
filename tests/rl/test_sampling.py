"""Properties of sampled answers and of the log-probabilities of their tokens, in all families.

- the log-probability of each token is that of a plain pass over its prefix, at any temperature, in any grouping;
- answers of a group are drawn from the model's own distribution, as TRL's own path draws them (10,000 samples), and
  the same seed gives the same answers;
- an image is encoded once for a group; no answer contains a token that stands for an image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
import torch
from canned import canned_model
from small_folder import load, make_batch, write_folder
from tiny_batches import SHARING, batch_of, model_of
from tiny_families import FAMILIES
from tiny_instructblip import make_parts

from lavis_emovit.models.instructblip.model import EmoVIT
from lavis_emovit.models.instructblip.settings import ModelSettings

IMAGE_TEXT = ("llava15", "qwen25vl", "smolvlm", "paligemma2")


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, dict[str, Any]]]:
    """Function (family) -> a model and a batch with several questions about an image."""
    root = tmp_path_factory.mktemp("sampling")

    def make(name: str) -> tuple[Any, dict[str, Any]]:
        if name == "small":
            return load(write_folder(root / name)).train(False), make_batch()
        if name in ("causal", "seq2seq"):
            settings = ModelSettings(
                arch="emovit_tiny", model_type="tiny", pretrained="", image_size=16, max_txt_len=64,
                frozen_precision="fp32",
            )  # fmt: skip
            batch = {**make_batch(), "image": torch.randn(2, 3, 16, 16)}
            return EmoVIT(make_parts("causal" if name == "causal" else "t5"), settings).train(False), batch
        if not (root / name).exists():
            FAMILIES[name](root / name)
        model = model_of(root / name)
        return model.train(False), batch_of(model)

    return make


@pytest.mark.parametrize("family", ["small", "causal", "seq2seq", *IMAGE_TEXT])
def test_log_probs_are_those_of_whole_answers(family: str, build: Callable[[str], Any]) -> None:
    """Their sum is what `answer_log_probs` finds for the same text; temperatures and entropies by hand."""
    model, batch = build(family)
    texts = [text or "awe" for text in batch["text_output"]]
    samples = {**batch, "text_output": texts}
    index = [place for _ in range(2) for place in reversed(range(len(texts)))]
    if hasattr(model, "chat"):
        encoded = [model._encode(question, text)[1] for question, text in zip(batch["text_input"], texts)]
    else:
        encoded = model.llm_tokenizer(texts, add_special_tokens=False)["input_ids"]
        encoded = [[*row, model.llm_tokenizer.eos_token_id] for row in encoded]
    answers = [encoded[place] for place in index]
    log_probs, entropies = model.written_log_probs(batch, answers, index)
    lengths = torch.tensor([len(row) for row in answers])
    assert log_probs.shape == entropies.shape == (len(answers), int(lengths.max()))
    written = torch.arange(log_probs.shape[1]) < lengths[:, None]
    assert not log_probs[~written].any() and (log_probs[written] < 0).all() and (entropies[written] > 0).all()
    if not model._unwritten_ids():
        whole = model.answer_log_probs(samples)
        assert torch.allclose(log_probs.sum(1), whole[index], atol=1e-4)
        assert log_probs.requires_grad and not entropies.requires_grad
    # Nearly certain, the likeliest token has everything; and nearly even, all tokens have the same share.
    cold, flat = (model.written_log_probs(batch, answers, index, heat) for heat in (1e-3, 1e6))
    assert (cold[1][written] < 0.7).all()
    language_model = model.core if hasattr(model, "chat") else model.core.language_model
    vocabulary = language_model.get_output_embeddings().weight.shape[0] - len(model._unwritten_ids())
    assert torch.allclose(flat[0][written], -torch.tensor(float(vocabulary)).log(), atol=1e-3)
    assert torch.allclose(flat[1][written], torch.tensor(float(vocabulary)).log(), atol=1e-3)


@pytest.mark.parametrize("family", ["small", "causal", "seq2seq", *IMAGE_TEXT])
def test_sampled_answers_have_their_log_probs(family: str, build: Callable[[str], Any]) -> None:
    """Where the first token is drawn from few, its frequency is its probability."""
    model, batch = build(family)
    torch.manual_seed(0)
    rows = model.sample_answers(batch, 4, max_new_tokens=5, temperature=1.5)
    torch.manual_seed(0)
    assert model.sample_answers(batch, 4, max_new_tokens=5, temperature=1.5) == rows
    assert len(rows) == 4 * len(batch["text_input"]) and all(1 <= len(row) <= 5 for row in rows)
    ends = set(model._end_ids())
    assert all(len(row) == 5 or row[-1] in ends for row in rows)
    assert not any(token in ends for row in rows for token in row[:-1])
    assert not any(token in model._unwritten_ids() for row in rows for token in row)
    index = [place // 4 for place in range(len(rows))]
    log_probs, _ = model.written_log_probs(batch, rows, index, 1.5)
    assert torch.isfinite(log_probs).all()


@pytest.mark.parametrize("family", ["small", "causal", "llava15"])
def test_an_image_is_encoded_once_for_a_group(
    family: str, build: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = build(family)
    seen: list[int] = []
    if family == "llava15":
        model._part("vision_encoder").register_forward_hook(lambda *_: seen.append(1))
    else:
        encode = model.encode_images
        monkeypatch.setattr(model, "encode_images", lambda image: seen.append(1) or encode(image))
    passes: list[tuple[int, int]] = []
    head = model._part("language_model").get_input_embeddings()
    head.register_forward_hook(lambda module, inputs, output: passes.append(tuple(inputs[0].shape)))
    model.sample_answers(batch, 8, max_new_tokens=3)
    assert len(seen) == 1
    if family in SHARING:
        # The image and all questions in one row; then only the last token of each question, for each answer.
        assert passes[0][0] == 1 and passes[1] == (8 * len(batch["text_input"]), 1)


def test_the_distribution_is_that_of_trls_own_path(tmp_path: Path) -> None:
    """10,000 answers of each; both are also compared with the exact probabilities."""
    import transformers
    from datasets import Dataset
    from PIL import Image
    from trl import GRPOConfig, GRPOTrainer

    folder = FAMILIES["llava15"](tmp_path / "llava15")
    model = model_of(folder)
    model.train(False)
    processor, _ = model.processors()
    image = Image.new("RGB", (32, 32), (200, 40, 90))
    batch = {"image": processor.stack([processor(image)]), "text_input": ["How?"]}
    heat = 0.5  # so that few answers have most of the probability
    torch.manual_seed(0)
    ours: Counter[int] = Counter()
    for _ in range(10):
        ours.update(row[0] for row in model.sample_answers(batch, 1000, max_new_tokens=1, temperature=heat))

    core = transformers.LlavaForConditionalGeneration.from_pretrained(folder)
    question = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "How?"}]}]
    trainer = GRPOTrainer(
        model=core, reward_funcs=[lambda **_: []], processing_class=transformers.AutoProcessor.from_pretrained(folder),
        train_dataset=Dataset.from_dict({"prompt": ["How?"]}),
        args=GRPOConfig(
            output_dir=str(tmp_path), num_generations=1000, per_device_train_batch_size=1000, temperature=heat,
            max_completion_length=1, use_cpu=True, bf16=False, report_to=[], gradient_checkpointing=False,
        ),
    )  # fmt: skip
    ids, _, fields = trainer._tokenize_prompts([question] * 1000)
    theirs: Counter[int] = Counter()
    for _ in range(10):
        theirs.update(row[0] for row in trainer._generate_single_turn(ids, None, fields, 1000)[0])
    assert ours.total() == theirs.total() == 10_000 and len(ours) > 5

    tokens = [token for token in range(len(model.llm_tokenizer)) if token not in model._unwritten_ids()]
    log_probs, _ = model.written_log_probs(batch, [[token] for token in tokens], [0] * len(tokens), heat)
    exact = log_probs[:, 0].exp().tolist()
    common = [place for place, share in enumerate(exact) if share > 5e-3]

    def binned(counts: Counter[int]) -> list[int]:
        own = [counts[tokens[place]] for place in common]
        return [*own, counts.total() - sum(own)]

    expected = [exact[place] for place in common]
    expected = [10_000 * share for share in (*expected, 1 - sum(expected))]
    for counts in (ours, theirs):
        assert scipy.stats.chisquare(binned(counts), expected).pvalue > 1e-3
    assert scipy.stats.chi2_contingency([binned(ours), binned(theirs)]).pvalue > 1e-3


def test_answers_follow_the_exact_probabilities() -> None:
    """The same for InstructBLIP: 10,000 answers of two tokens to two questions."""
    words = ["awe", "fear", "sadness"]
    model = canned_model(words)
    model.train(False)
    batch = {"image": torch.randn(2, 3, 16, 16), "text_input": ["Which?", "Why?\0Why?\0Why?"]}
    torch.manual_seed(0)
    counts: list[Counter[tuple[int, ...]]] = [Counter(), Counter()]
    for _ in range(10):
        for place, row in enumerate(model.sample_answers(batch, 500, max_new_tokens=2)):
            counts[place // 500][tuple(row)] += 1
    for question, found in enumerate(counts):
        rows = list(found)
        log_probs, _ = model.written_log_probs(batch, [list(row) for row in rows], [question] * len(rows))
        shares = log_probs.sum(1).exp().tolist()
        kept = [place for place, share in enumerate(shares) if share > 2e-3]
        observed = [found[rows[place]] for place in kept]
        expected = [found.total() * shares[place] for place in kept]
        rest = found.total() - sum(observed), found.total() - sum(expected)
        assert found.total() == 5000 and len(kept) > 5
        assert scipy.stats.chisquare([*observed, rest[0]], [*expected, rest[1]]).pvalue > 1e-3
