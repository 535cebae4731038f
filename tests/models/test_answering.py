"""Properties of answers, decoder-only and encoder-decoder alike.

- candidates are ranked by their mean log-likelihood per token;
- generation does not depend on what else is in the batch;
- bad questions are refused by name.
"""

from __future__ import annotations

import pytest

CANDIDATES = ["amusement", "anger", "awe", "sadness", "it is dark"]


def test_predict_class_ranks_by_mean_token_score(model, batch):
    scores = model.score_candidates(batch, CANDIDATES) / model.candidate_lengths(CANDIDATES)
    ranks = model.predict_class(batch, CANDIDATES)
    assert ranks[:, 0].tolist() == scores.argmax(dim=1).tolist()
    assert sorted(ranks[0].tolist()) == list(range(len(CANDIDATES)))
    best = model.predict_answers(batch, inference_method="rank", answer_list=CANDIDATES)
    assert best == [CANDIDATES[index] for index in ranks[:, 0]]


def test_generation_does_not_depend_on_the_batch(model, batch):
    together = model.generate(batch, max_length=8)
    assert len(together) == 3
    for pair in range(3):
        alone = {"image": batch["image"][batch["image_index"][pair]][None], "prompt": batch["text_input"][pair]}
        assert model.generate(alone, max_length=8) == [together[pair]]


def test_bad_questions_are_refused_by_name(model, batch):
    with pytest.raises(ValueError, match="no question"):
        model.generate({"image": batch["image"], "prompt": []})
    with pytest.raises(ValueError, match="2 questions for 3"):
        model.generate({**batch, "prompt": ["a", "b"]})
