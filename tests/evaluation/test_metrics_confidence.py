"""Confidence and soft labels.

Properties: AUROC agrees with scikit-learn, AURC with the mean of the risks over all orders of equal confidences; both
are the same for a weighted resample as for its repeated rows; KL and cosine agree with SciPy and a calculation by hand;
an invalid answer has no votes; ties favour no label; errors name the bad row.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance
from sklearn.metrics import roc_auc_score

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics import soft_label_metrics
from lavis_emovit.evaluation.metrics.calibration import (
    calibration,
    confidence_auroc,
    risk_coverage_area,
    risk_coverage_curve,
    softmax,
)
from lavis_emovit.evaluation.metrics.resampling import Resamples
from lavis_emovit.evaluation.predictions import PredictionRow

LABELS = ("anger", "fear", "sadness")


def counted_area(correct) -> float:
    """The definition: the mean share of wrong answers among the n surest, for every n."""
    wrong = [1 - c for c in correct]
    return sum(sum(wrong[:n]) / n for n in range(1, len(wrong) + 1)) / len(wrong)


def random_answers(num: int, ties: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    confidence = generator.uniform(0.3, 1, size=num)
    correct = (generator.random(num) < confidence).astype(float)
    return (np.round(confidence, 1) if ties else confidence), correct


@pytest.mark.parametrize("ties", [False, True])
def test_auroc_agrees_with_scikit_learn_with_and_without_weights(ties):
    confidence, correct = random_answers(300, ties)
    weights = np.random.default_rng(1).integers(0, 4, size=(5, 300)).astype(float)
    found = confidence_auroc(confidence, correct)(weights)
    assert found == pytest.approx([roc_auc_score(correct, confidence, sample_weight=row) for row in weights])
    alone = confidence_auroc(confidence, correct)(np.ones((1, 300)))[0]
    assert alone == pytest.approx(roc_auc_score(correct, confidence))
    assert np.isnan(confidence_auroc(confidence, np.ones(300))(np.ones((1, 300)))[0])


def test_area_under_the_risk_coverage_curve_counted_by_hand():
    # Most confident first: right, wrong, right, wrong. Risks 0, 1/2, 1/3, 2/4.
    confidence, correct = np.array([0.6, 0.9, 0.7, 0.8]), np.array([0.0, 1.0, 1.0, 0.0])
    ones = np.ones((1, 4))
    assert risk_coverage_area(confidence, correct)(ones)[0] == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)
    assert risk_coverage_area(np.ones(4), correct)(ones)[0] == pytest.approx(0.5)
    many, right = random_answers(200, ties=False)
    found = risk_coverage_area(many, right)(np.ones((1, 200)))[0]
    assert found == pytest.approx(counted_area(right[np.argsort(-many)]))


def test_area_for_equal_confidences_is_the_mean_over_all_orders():
    confidence = np.array([0.9, 0.7, 0.7, 0.7, 0.5, 0.5])
    correct = np.array([1.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    orders = itertools.product([correct[:1]], itertools.permutations(correct[1:4]), itertools.permutations(correct[4:]))
    expected = np.mean([counted_area(np.concatenate(order)) for order in orders])
    assert risk_coverage_area(confidence, correct)(np.ones((1, 6)))[0] == pytest.approx(expected)


@pytest.mark.parametrize("measure", [confidence_auroc, risk_coverage_area])
def test_weighted_resample_is_the_same_as_its_repeated_rows(measure):
    confidence, correct = random_answers(40, ties=True, seed=2)
    for weights in np.random.default_rng(3).integers(0, 4, size=(10, 40)):
        picked = np.repeat(np.arange(40), weights)
        written_out = measure(confidence[picked], correct[picked])(np.ones((1, len(picked))))
        assert measure(confidence, correct)(weights[None].astype(float)) == pytest.approx(written_out)


def test_curve_ends_at_the_error_rate_and_starts_with_the_most_confident():
    confidence, correct = random_answers(250, ties=True, seed=4)
    curve = risk_coverage_curve(confidence, correct)
    assert [point.coverage for point in curve][::10] == [0.05, 0.55]
    assert curve[-1].risk == pytest.approx(1 - correct.mean())
    surest = confidence > np.quantile(confidence, 0.75)
    at_that_share = min(curve, key=lambda point: abs(point.coverage - surest.mean()))
    assert at_that_share.risk < curve[-1].risk
    assert risk_coverage_curve(np.array([0.5]), np.array([0.0]))[0].risk == 1


def test_calibration_counts_a_tie_as_a_random_draw_and_intervals_contain_their_values():
    tied = calibration(np.array([[0.4, 0.4, 0.2]] * 2), np.array([0, 2]))
    assert tied.bins[5].accuracy == pytest.approx(0.25)
    assert tied.ece == pytest.approx(0.15)
    generator = np.random.default_rng(5)
    scores = generator.normal(size=(400, 3)) * 2
    probabilities = softmax(scores)
    true = np.array([generator.choice(3, p=row) for row in probabilities])
    found = calibration(probabilities, true, resamples=Resamples(400, num_resamples=300))
    for name in ("ece", "brier", "auroc", "aurc"):
        value, interval = getattr(found, name), getattr(found, f"{name}_interval")
        assert interval.low < value < interval.high, name
    all_right = calibration(np.array([[0.9, 0.1]] * 5), np.zeros(5, dtype=int), resamples=Resamples(5))
    assert (all_right.auroc, all_right.auroc_interval, all_right.aurc) == (None, None, 0.0)


def soft_row(number: int, votes, scores, prediction="fear", **changes) -> PredictionRow:
    return PredictionRow(
        instance_id=f"i{number}",
        record_id=f"r{number}",
        label=None,
        prediction=prediction,
        votes=votes,
        scores=None if scores is None else dict(zip(LABELS, scores)),
        **changes,
    )


def test_soft_labels_agree_with_scipy():
    generator = np.random.default_rng(6)
    votes, scores = generator.dirichlet(np.ones(3), size=50), generator.normal(size=(50, 3))
    rows = [soft_row(n, dict(zip(LABELS, votes[n].tolist())), scores[n].tolist()) for n in range(50)]
    found = soft_label_metrics(rows, LABELS)
    model = softmax(scores)
    assert found.kl == pytest.approx(np.mean([stats.entropy(v, p) for v, p in zip(votes, model)]))
    assert found.cosine == pytest.approx(np.mean([1 - distance.cosine(v, p) for v, p in zip(votes, model)]))
    always = {"kl", "cosine", "top1_in_vote", "top1_has_votes", "vote_of_top1"}
    assert always < set(found.intervals) and "total_variation" in found.intervals
    assert found.total_variation == pytest.approx(np.abs(votes - model).sum(axis=1).mean() / 2)
    assert found.intervals["kl"].low < found.kl < found.intervals["kl"].high


def test_soft_labels_counted_by_hand():
    half = {"anger": 0.5, "fear": 0.5}
    rows = [
        soft_row(0, half, (0.0, 0.0, 0.0)),
        soft_row(1, {"sadness": 0.75, "fear": 0.25}, (0.0, 0.0, math.log(2))),
        soft_row(2, {"sadness": 1.0}, (0.0, 0.0, -1e9), prediction="danger", status="invalid"),
        PredictionRow(instance_id="e", record_id="e", label=None, prediction=None, error="no image"),
    ]
    found = soft_label_metrics(rows, LABELS)
    assert (found.num_samples, found.num_invalid, found.num_errors) == (3, 1, 1)
    # Uniform thirds against halves; quarter, quarter, half against 1/4 and 3/4; a certain vote for what has e^-1e9.
    first = math.log(0.5 / (1 / 3))
    second = 0.25 * math.log(0.25 / 0.25) + 0.75 * math.log(0.75 / 0.5)
    third = 1e9 + math.log(2)
    assert found.kl == pytest.approx((first + second + third) / 3)
    assert found.top1_in_vote == pytest.approx(1 / 3)
    assert found.top1_has_votes == pytest.approx(2 / 3)
    assert found.vote_of_top1 == pytest.approx((0.5 + 0.25) / 3)
    without_scores = soft_label_metrics([row.model_copy(update={"scores": None}) for row in rows], LABELS)
    assert (without_scores.kl, without_scores.cosine) == (None, None)
    assert without_scores.vote_of_top1 == found.vote_of_top1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (soft_row(0, None, None), "'i0' has no votes"),
        (soft_row(0, {"joy": 1.0}, None), "votes for 'joy', which is not in the label set"),
        (soft_row(0, {"fear": 1.0}, None), "'i0' has no scores"),
    ],
)
def test_soft_labels_refuse_bad_rows_by_name(row, message):
    with pytest.raises(DataError, match=message):
        soft_label_metrics([row, soft_row(1, {"fear": 1.0}, (0.0, 0.0, 0.0))], LABELS)
