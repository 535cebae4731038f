"""Properties of answers that are written row by row, in one batch, decoder-only and encoder-decoder alike.

- greedy answers are those of `generate`, whatever the length and sampling of the other rows;
- a seed decides a sampled answer, whatever else is in the batch, and leaves torch's generators unchanged;
- log-probabilities are those that scoring gives the same tokens, and of the likeliest tokens the chosen one is first;
- a row ends at its own length, at its end token, or when its writer says so, and is told nothing afterwards;
- draws follow temperature and `top_p`; numbers of prompt tokens are those that the language model reads.
"""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from tiny_batches import batch_of, model_of, picture_of
from tiny_families import make_llava15

from lavis_emovit.models.row_writing import RowChoice, RowSettings


class Rows:
    """A writer that keeps what it gets."""

    def __init__(self, *, most: int = 99, **settings):
        self.settings = RowSettings(**{"max_tokens": 8, **settings})
        self.most = most
        self.tokens, self.reasons = [], []

    @property
    def ids(self):
        return [token.token_id for token in self.tokens]

    def add(self, token):
        assert not self.reasons and len(self.tokens) < self.most
        self.tokens.append(token)
        return len(self.tokens) < self.most

    def end(self, reason):
        self.reasons.append(reason)


def written(model, samples, *rows, min_length=0):
    model.write_rows(samples, rows, min_length)
    return rows


def one(batch, pair):
    return {"image": batch["image"][batch["image_index"][pair]][None], "prompt": batch["text_input"][pair]}


def test_greedy_rows_are_those_of_generate_in_mixed_batches(model, batch):
    _, ids = model.generate(batch, max_length=8, return_ids=True)
    first, second, third = written(
        model, batch, Rows(max_tokens=3), Rows(), Rows(temperature=1.5, seed=1), min_length=1
    )
    assert first.ids == ids[0][:3] and second.ids == ids[1]
    assert first.reasons == (["length"] if len(ids[0]) >= 3 else ["stop"])
    assert 1 <= len(third.ids) <= 8 and third.reasons


def test_a_seed_decides_a_row_whatever_else_is_in_the_batch(model, batch):
    state = torch.get_rng_state()
    _, among, _ = written(model, batch, Rows(), Rows(temperature=1.0, seed=7), Rows(temperature=1.0))
    (alone,) = written(model, one(batch, 1), Rows(temperature=1.0, seed=7))
    assert among.ids == alone.ids
    others = [written(model, one(batch, 1), Rows(temperature=1.0, seed=seed))[0].ids for seed in range(8)]
    assert len({tuple(row) for row in others}) > 4
    unseeded = [written(model, one(batch, 1), Rows(temperature=1.0))[0].ids for _ in range(8)]
    assert len({tuple(row) for row in unseeded}) > 4
    assert torch.equal(state, torch.get_rng_state())


def test_log_probabilities_are_those_of_scoring(model, batch, naive_score):
    rows = written(
        model, batch, *(Rows(num_likeliest=4, temperature=1.0, seed=pair, max_tokens=4) for pair in range(3))
    )
    for pair, row in enumerate(rows):
        image = batch["image"][batch["image_index"][pair]]
        for step, token in enumerate(row.tokens):
            expected = naive_score(model, image, batch["text_input"][pair], row.ids[: step + 1], step)
            assert token.log_probability == pytest.approx(expected, abs=1e-4)
            assert len(token.likeliest) == 4 and sorted(token.likeliest, key=lambda one: -one[1]) == [*token.likeliest]
            assert dict(token.likeliest).get(token.token_id, token.log_probability) == token.log_probability
    (greedy,) = written(model, one(batch, 0), Rows(num_likeliest=1))
    assert [token.likeliest for token in greedy.tokens] == [((t.token_id, t.log_probability),) for t in greedy.tokens]


def test_a_row_ends_when_its_writer_says_so(model, batch):
    rows = written(model, batch, Rows(most=2), Rows(max_tokens=6), Rows(max_tokens=1), min_length=6)
    assert [len(row.ids) for row in rows] == [2, 6, 1]
    assert [row.reasons for row in rows] == [[], ["length"], ["length"]]


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    """A model that penalises the repetition of its answer by a processor of logits of its own."""
    folder = make_llava15(tmp_path_factory.mktemp("rows") / "llava15")
    return model_of(folder, generation={"repetition_penalty": 5.0})


def test_settings_of_the_model_count(llava, model, batch):
    samples = batch_of(llava)
    _, ids = llava.generate(samples, max_length=6, return_ids=True)
    rows = written(llava, samples, *(Rows(max_tokens=6) for _ in ids), min_length=1)
    assert [row.ids for row in rows] == ids
    assert llava.generate(samples, max_length=6, repetition_penalty=1.0, return_ids=True)[1] != ids
    with pytest.raises(ValueError, match="3 questions need as many writers, not 1"):
        model.write_rows(batch, [Rows()])


def test_draws_follow_temperature_and_top_p():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, -torch.inf]])
    drawn = Counter()
    for seed in range(3000):
        row = Rows(temperature=2.0, top_p=0.8, seed=seed)
        forced = RowChoice([row], end_ids=[4])(torch.zeros(1, 0), logits)
        assert forced.argmax() == row.ids[0] and forced.max() == 0 and forced.sum() == -torch.inf
        drawn.update(row.ids)
    # exp(1), exp(0.5) and exp(0), whose sum is 0.89 of that of all; the third one is needed to reach 0.8.
    shares = [2.71828, 1.64872, 1.0]
    assert sorted(drawn) == [0, 1, 2]
    assert [drawn[token] / 3000 for token in range(3)] == pytest.approx([s / sum(shares) for s in shares], abs=0.03)


def test_prompt_tokens_are_those_that_the_language_model_reads(model, batch, llava):
    read = []

    def note(module, arguments, keywords):
        read.append(keywords["inputs_embeds"].shape[1])

    part = model.core.language_model.encoder if model.is_seq2seq else model.core.language_model
    for pair in range(3):
        with part.register_forward_pre_hook(note, with_kwargs=True):
            model.generate(one(batch, pair), max_length=1)
        assert model.num_prompt_tokens(one(batch, pair)) == [read[-1]]
    samples = batch_of(llava)
    counts = llava.num_prompt_tokens(samples)
    assert len(counts) == len(samples["text_input"])
    # As transformers' own processor counts them.
    for number, question, count in zip(samples["image_index"].tolist(), samples["text_input"], counts):
        text = llava.chat._render(llava.chat._as_written(question))
        ids = llava.chat.processor(images=[[picture_of(number)]], text=[text])["input_ids"]
        assert count == len(ids[0])
