"""Properties of candidate scores, decoder-only and encoder-decoder alike.

- they equal those of scoring each candidate naively, and depend on neither batch, order nor company;
- what cannot be scored is refused by name.
"""

from __future__ import annotations

import pytest
import torch

from lavis_emovit.models.scoring import candidate_token_ids

CANDIDATES = ["amusement", "anger", "awe", "sadness", "it is dark"]
PREFIX = "Predict emotion: "


@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_scores_equal_naive_scoring(model, batch, naive_score, prefix):
    scores = model.score_candidates(batch, CANDIDATES, answer_prefix=prefix)
    shared, rows = candidate_token_ids(model.llm_tokenizer, CANDIDATES, prefix)
    assert bool(shared) == bool(prefix)
    for pair, image_index in enumerate(batch["image_index"]):
        for column, row in enumerate(rows):
            expected = naive_score(
                model, batch["image"][image_index], batch["text_input"][pair], shared + row, len(shared)
            )
            assert scores[pair, column].item() == pytest.approx(expected, abs=1e-4)
    assert scores.std(dim=1).min() > 0.1, "candidates that all score alike would prove nothing"


def test_scores_do_not_depend_on_company(model, batch):
    together = model.score_candidates(batch, CANDIDATES)
    for pair in range(3):
        alone = {"image": batch["image"][batch["image_index"][pair]][None], "prompt": [batch["text_input"][pair]]}
        torch.testing.assert_close(model.score_candidates(alone, CANDIDATES)[0], together[pair], atol=1e-4, rtol=0)
    order = [3, 0, 2]
    fewer = model.score_candidates(batch, [CANDIDATES[index] for index in order])
    torch.testing.assert_close(fewer, together[:, order], atol=1e-4, rtol=0)


def test_bad_candidates_are_refused_by_name(model, batch):
    with pytest.raises(ValueError, match="no candidates"):
        model.score_candidates(batch, [])
    with pytest.raises(ValueError, match="tokenises to nothing"):
        model.score_candidates(batch, ["awe", " "])
    with pytest.raises(ValueError, match="same string"):
        model.score_candidates(batch, ["awe", "awe"])
