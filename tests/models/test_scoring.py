"""Properties of candidate scores, decoder-only and encoder-decoder alike.

- they equal those of scoring each candidate separately, for several kinds of language models, attention and precision;
- they do not depend on the batch, its order, the other candidates or the pairs of a pass;
- the language model runs once over one row per pair, in which nothing is repeated;
- mean and calibrated scores follow their formulas; the original losses and ranks are those of LAVIS;
- invalid candidates are rejected by name.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BartForConditionalGeneration,
    BloomConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    Qwen2Config,
)

from lavis_emovit.models import scoring
from lavis_emovit.models.scoring import CandidateTokens, candidate_tokens, score_causal, score_seq2seq
from lavis_emovit.models.token_tree import TokenTree

CANDIDATES = ["amusement", "anger", "awe", "sadness", "it is dark", "it is dark, says the girl"]
PREFIX = "Predict emotion: "
# Possible results of a tokenizer: shared beginnings, a row that begins another, one that branches in given tokens.
ROWS = CandidateTokens([[5, 6, 7], [5, 6], [5, 8], [9], [5, 6, 7, 5, 6], [4, 4, 4, 4]], [1, 1, 1, 0, 1, 2])
SIZES = {"vocab_size": 40, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
LANGUAGE_MODELS = {
    "grouped queries": LlamaConfig(**SIZES, intermediate_size=48, num_key_value_heads=2),
    "window that is long enough": MistralConfig(
        **SIZES, intermediate_size=48, num_key_value_heads=2, sliding_window=64
    ),
    "window that is too short": MistralConfig(**SIZES, intermediate_size=48, num_key_value_heads=2, sliding_window=8),
    "biased projections": Qwen2Config(**SIZES, intermediate_size=48, num_key_value_heads=4),
    "learned positions": OPTConfig(
        vocab_size=40, hidden_size=32, word_embed_proj_dim=32, ffn_dim=48, num_attention_heads=4, num_hidden_layers=2
    ),
    "partly rotated": GPTNeoXConfig(**SIZES, intermediate_size=48),
    "no positions": BloomConfig(vocab_size=40, hidden_size=32, n_head=4, n_layer=2),
}


def random_model(config, seed: int = 0, attention: str = "sdpa"):
    torch.manual_seed(seed)
    if isinstance(config, BartConfig):
        model = BartForConditionalGeneration(config)
    else:
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.25)
    return model.eval()


@torch.no_grad()
def plain_scores(language_model, prefix_NQD, prompts, candidates) -> torch.Tensor:
    """Each candidate in a separate pass of transformers, without a mask."""
    table = torch.zeros(len(prompts), len(candidates.rows))
    for pair, prompt in enumerate(prompts):
        for column, (row, num_given) in enumerate(zip(candidates.rows, candidates.num_given)):
            embeds = language_model.get_input_embeddings()(torch.tensor([[*prompt, *row]]))
            inputs = torch.cat([prefix_NQD[pair : pair + 1].to(embeds.dtype), embeds], dim=1)
            log_probs = language_model(inputs_embeds=inputs).logits[0, -len(row) - 1 : -1].float().log_softmax(-1)
            table[pair, column] = log_probs[torch.arange(len(row)), torch.tensor(row)][num_given:].sum()
    return table


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_scores_equal_those_of_plain_rows(name, attention):
    model = random_model(LANGUAGE_MODELS[name], attention=attention if name != "no positions" else "eager")
    prefix, prompts = torch.randn(3, 4, 32), [[1, 11, 12], [1, 13, 14, 15, 16, 17, 18], [1]]
    with torch.no_grad():
        scores = score_causal(model, prefix, prompts, ROWS)
        repeated = scoring._score_repeated(model, prefix, prompts, ROWS)
    expected = plain_scores(model, prefix, prompts, ROWS)
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(repeated, expected, atol=1e-4, rtol=0)
    assert expected.std() > 0.5, "scores that are all alike would prove nothing"
    packed = scoring.takes_packed_rows(model, 16)
    assert packed == (name not in ("window that is too short", "no positions"))


def test_scores_in_half_precision_are_close():
    model = random_model(LANGUAGE_MODELS["grouped queries"]).to(torch.bfloat16)
    prefix, prompts = torch.randn(2, 4, 32), [[1, 11, 12], [1, 13, 14, 15, 16]]
    with torch.no_grad():
        scores = score_causal(model, prefix, prompts, ROWS)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, plain_scores(model, prefix, prompts, ROWS), atol=0.3, rtol=0.02)


def test_encoder_decoder_with_absolute_positions_scores_as_plain_rows():
    sizes = {"encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    config = BartConfig(vocab_size=40, d_model=32, encoder_ffn_dim=48, decoder_ffn_dim=48, **sizes)
    model = random_model(config)
    inputs, mask = torch.randn(2, 5, 32), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    with torch.no_grad():
        scores = score_seq2seq(model, inputs, mask, ROWS)
        for pair, length in enumerate([5, 3]):
            for column, (row, num_given) in enumerate(zip(ROWS.rows, ROWS.num_given)):
                logits = model(inputs_embeds=inputs[pair : pair + 1, :length], labels=torch.tensor([row])).logits[0]
                expected = logits.log_softmax(-1)[torch.arange(len(row)), torch.tensor(row)][num_given:].sum()
                torch.testing.assert_close(scores[pair, column], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_scores_of_the_model_equal_naive_scoring(model, batch, naive_score, prefix):
    scores = model.score_candidates(batch, CANDIDATES, answer_prefix=prefix)
    tokens = candidate_tokens(model.llm_tokenizer, CANDIDATES, prefix)
    assert all(bool(given) == bool(prefix) for given in tokens.num_given)
    for pair, image_index in enumerate(batch["image_index"]):
        for column, (row, num_given) in enumerate(zip(tokens.rows, tokens.num_given)):
            image = batch["image"][image_index]
            expected = naive_score(model, image, batch["text_input"][pair], row, num_given)
            assert scores[pair, column].item() == pytest.approx(expected, abs=1e-4)
    assert scores.std(dim=1).min() > 0.1, "candidates that all score alike would prove nothing"


def test_empty_questions_are_scored_too():
    model, prefix = random_model(LANGUAGE_MODELS["grouped queries"]), torch.randn(2, 4, 32)
    with torch.no_grad():
        scores, repeated = (score(model, prefix, [[], []], ROWS) for score in (score_causal, scoring._score_repeated))
    expected = plain_scores(model, prefix, [[], []], ROWS)
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(repeated, expected, atol=1e-4, rtol=0)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_scores_depend_on_nothing_else(model, batch, data):
    questions = [*batch["text_input"], "Why? " * 9]
    index = [*batch["image_index"].tolist(), 0]
    everything = {"image": batch["image"], "image_index": torch.tensor(index), "prompt": questions}
    normalize = data.draw(st.sampled_from(["sum", "mean", "calibrated"]))
    whole = model.score_candidates(everything, CANDIDATES, PREFIX, normalize)
    pairs = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=6))
    columns = data.draw(st.lists(st.integers(0, len(CANDIDATES) - 1), min_size=1, unique=True))
    size = data.draw(st.integers(1, 4))
    object.__setattr__(model, "settings", model.settings.model_copy(update={"scoring_pairs_per_pass": size}))
    some = {**everything, "image_index": torch.tensor(index)[pairs], "prompt": [questions[pair] for pair in pairs]}
    part = model.score_candidates(some, [CANDIDATES[column] for column in columns], PREFIX, normalize)
    torch.testing.assert_close(part, whole[pairs][:, columns], atol=1e-4, rtol=0)


@pytest.mark.parametrize("most", [1, 5, 12])
def test_long_lists_of_candidates_in_several_passes_score_the_same(model, batch, monkeypatch, most):
    whole = model.score_candidates(batch, CANDIDATES, PREFIX)
    monkeypatch.setattr(scoring, "MAX_CANDIDATE_TOKENS", most)
    tokens = candidate_tokens(model.llm_tokenizer, CANDIDATES, PREFIX)
    groups = tokens.groups(most)
    assert sorted(column for group in groups for column in group) == list(range(len(CANDIDATES)))
    assert all(len(group) == 1 or sum(len(tokens.rows[column]) for column in group) <= most for group in groups)
    torch.testing.assert_close(model.score_candidates(batch, CANDIDATES, PREFIX), whole, atol=1e-4, rtol=0)


def test_one_pass_repeats_nothing(model, batch, monkeypatch):
    decoder = model.core.language_model.get_decoder()
    forward, shapes = decoder.forward, []

    def seen(*args, **inputs):
        read = inputs.get("inputs_embeds") if inputs.get("inputs_embeds") is not None else inputs["input_ids"]
        shapes.append(tuple(read.shape[:2]))
        return forward(*args, **inputs)

    seen.__signature__ = __import__("inspect").signature(forward)
    monkeypatch.setattr(decoder, "forward", seen)
    tokens = candidate_tokens(model.llm_tokenizer, CANDIDATES)
    model.score_candidates(batch, CANDIDATES)
    prompts = [len(row) for row in model._whole_prompts(batch["text_input"])]
    if model.is_seq2seq:
        assert shapes == [(3, sum(len(row) for row in tokens.rows))]
    else:
        inner = {tuple(row[:end]) for row in tokens.rows for end in range(1, len(row))}
        assert shapes == [(3, 3 + max(prompts) + len(inner))]
        assert len(inner) < sum(len(row) - 1 for row in tokens.rows), "nothing shared, nothing shown"


def test_normalized_scores_follow_their_formulas(model, batch, naive_score):
    tokens = candidate_tokens(model.llm_tokenizer, CANDIDATES, PREFIX)
    sums = model.score_candidates(batch, CANDIDATES, PREFIX)
    lengths = torch.tensor([float(len(row) - given) for row, given in zip(tokens.rows, tokens.num_given)])
    torch.testing.assert_close(model.candidate_lengths(CANDIDATES, PREFIX), lengths)
    assert len(set(lengths.tolist())) > 1
    torch.testing.assert_close(model.score_candidates(batch, CANDIDATES, PREFIX, normalize="mean"), sums / lengths)
    calibrated = model.score_candidates(batch, CANDIDATES, PREFIX, normalize="calibrated")
    for pair, question in enumerate(batch["text_input"]):
        for column, (row, given_tokens) in enumerate(zip(tokens.rows, tokens.num_given)):
            free = naive_score(model, torch.zeros(3, 16, 16), question, row, given_tokens)
            assert calibrated[pair, column].item() == pytest.approx(sums[pair, column].item() - free, abs=2e-4)


@pytest.mark.parametrize("segments", [[6], [3, 3], [1, 1, 1, 3]])
def test_original_losses_and_ranks_are_those_of_lavis(model, batch, naive_score, segments):
    losses = model.original_candidate_losses(batch, CANDIDATES, n_segments=len(segments))
    rows = [model.llm_tokenizer(text, add_special_tokens=False)["input_ids"] for text in CANDIDATES]
    longest_prompt = max(len(row) for row in model._whole_prompts(batch["text_input"]))
    start = 0
    for length in segments:
        longest = max(len(row) for row in rows[start : start + length])
        for pair, question in enumerate(batch["text_input"]):
            image = batch["image"][batch["image_index"][pair]]
            for column in range(start, start + length):
                row = [*rows[column], 2] if model.is_seq2seq else rows[column]
                expected = -naive_score(model, image, question, row, 0)
                if not model.is_seq2seq:
                    expected /= 3 + longest_prompt + longest - 1
                assert losses[pair, column].item() == pytest.approx(expected, abs=1e-4)
        start += length
    ranks = model.predict_class(batch, CANDIDATES, n_segments=len(segments), rule="original")
    assert ranks.tolist() == losses.argsort(dim=-1).tolist()


def test_tree_has_each_beginning_once():
    tree = TokenTree([[5, 6, 7], [5, 6], [8], [5, 9]])
    assert (tree.tokens, tree.parents, tree.depths) == ([5, 6, 7, 8, 9], [-1, 0, 1, -1, 0], [1, 2, 3, 1, 2])
    assert tree.paths == [[0, 1, 2], [0, 1], [3], [0, 4]]
    assert tree.inner == [0, 1]
    assert tree.inner_ancestry().tolist() == [[True, False], [True, True]]
    assert tree.walk([5, 6]) == 1 and tree.row_ending_at(1) == 1 and tree.next_tokens(1) == [7]
    assert tree.walk([6]) is None and tree.row_ending_at(0) is None and tree.next_tokens(-1) == [5, 8]


def test_invalid_candidates_are_rejected_by_name(model, batch):
    refusals = [
        ({"candidates": []}, "no candidates"),
        ({"candidates": "awe"}, "candidates should be a list of strings, not 'awe'"),
        ({"candidates": ["awe", 3]}, r"not \['awe', 3\]"),
        ({"candidates": np.array(["awe", "fear"])}, r"not array\("),
        ({"candidates": None}, "not None"),
        ({"candidates": (label for label in ("awe", "fear"))}, "not <generator"),
        ({"candidates": {"awe", "fear"}}, r"not \{"),
        ({"candidates": {"awe": 1, "fear": 2}}, r"not \{"),
        ({"candidates": ["awe", " "]}, "candidate ' ' tokenises to nothing"),
        ({"candidates": ["awe", ""]}, "candidate '' tokenises to nothing"),
        ({"candidates": ["awe", "fear", "awe"]}, "candidate 'awe' is repeated"),
        ({"candidates": ["awe"], "normalize": "median"}, "unknown normalize 'median'"),
    ]
    for wrong, message in refusals:
        with pytest.raises(ValueError, match=message):
            model.score_candidates(batch, **wrong)
        if "normalize" not in wrong:
            for rule in ("mean", "original"):
                with pytest.raises(ValueError, match=message):
                    model.predict_class(batch, wrong["candidates"], rule=rule)
    with pytest.raises(ValueError, match=r"image.*\[2, 3, 8, 8\]"):
        model.score_candidates({**batch, "image": torch.zeros(2, 3, 8, 8)}, ["awe"])
    with pytest.raises(ValueError, match=r"no image.*\[0, 3, 16, 16\]"):
        model.score_candidates({"image": torch.zeros(0, 3, 16, 16), "prompt": "Which?"}, ["awe"])
    with pytest.raises(ValueError, match="samples need 'image'"):
        model.score_candidates({"prompt": "Which?"}, ["awe"])
    with pytest.raises(ValueError, match="no question"):
        model.score_candidates({**batch, "text_input": []}, ["awe"])
    with pytest.raises(ValueError, match="unknown rule 'best'"):
        model.predict_class(batch, ["awe"], rule="best")
    with pytest.raises(ValueError, match="n_segments is 3, expected 1 to 2"):
        model.predict_class(batch, ["awe", "fear"], n_segments=3)
    with pytest.raises(ValueError, match="answer_prefix"):
        model.predict_class({**batch, "answer_prefix": PREFIX}, ["awe"], rule="original")
