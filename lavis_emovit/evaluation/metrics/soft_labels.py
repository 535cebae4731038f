"""Soft labels: the model's distribution and its answer against the votes of several annotators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lavis_emovit.evaluation.metrics.calibration import log_softmax
from lavis_emovit.evaluation.metrics.registry import MeasuredRows, Metric, register_metric
from lavis_emovit.evaluation.metrics.resampling import NUM_RESAMPLES
from lavis_emovit.evaluation.metrics.results import Interval, Result
from lavis_emovit.evaluation.metrics.rows import (
    prediction_indices,
    resamples_of,
    score_matrix,
    vote_matrix,
    without_errors,
)
from lavis_emovit.evaluation.predictions import PredictionRow


class SoftLabelMetrics(Result):
    """Means over all answered rows; an invalid answer has no votes and counts as 0 in the last three.

    Attributes:
        kl: Kullback-Leibler divergence of the model's distribution from the votes, in nats, or None without scores.
        cosine: cosine of the two distributions, in [0, 1], or None without scores.
        top1_in_vote: share of rows whose answer is the label with the most votes, or one of several such labels.
        top1_has_votes: share of rows whose answer has at least one vote.
        vote_of_top1: mean share of annotators who gave the model's answer: the accuracy against a random annotator.
        intervals: name of each of these -> its interval.
    """

    num_samples: int
    num_invalid: int
    num_errors: int
    kl: float | None
    cosine: float | None
    top1_in_vote: float
    top1_has_votes: float
    vote_of_top1: float
    intervals: dict[str, Interval]


def soft_label_metrics(
    rows: Sequence[PredictionRow],
    labels: Sequence[str],
    *,
    num_resamples: int = NUM_RESAMPLES,
    group_by: str | None = None,
) -> SoftLabelMetrics:
    """Measure predictions against votes.

    The model's distribution is the softmax of the scores at temperature 1. Mean log-probabilities of tokens give a
    flatter distribution than sums, so KL and cosine are comparable only between models with the same scoring method.

    Args:
        rows: with `votes`; scores on all of them or on none.
        num_resamples, group_by: as in `classification_metrics`.

    Raises:
        DataError: no answered rows, an unknown label, a row without votes or its group, scores on some rows only.
    """
    answered = without_errors(rows)
    votes_NC = vote_matrix(answered, labels)
    predicted_N = prediction_indices(answered, labels)
    is_valid_N = predicted_N < len(labels)
    share_N = np.where(is_valid_N, votes_NC[np.arange(len(answered)), np.minimum(predicted_N, len(labels) - 1)], 0.0)
    values_N = {
        "top1_in_vote": is_valid_N & (share_N >= votes_NC.max(axis=1) - 1e-9),
        "top1_has_votes": share_N > 0,
        "vote_of_top1": share_N,
    }
    if any(row.scores is not None for row in answered):
        log_probabilities_NC = log_softmax(score_matrix(answered, labels))
        values_N["kl"] = divergence(votes_NC, log_probabilities_NC)
        values_N["cosine"] = cosine(votes_NC, np.exp(log_probabilities_NC))
    features_NF = np.column_stack(list(values_N.values())).astype(np.float64)
    resamples = resamples_of(answered, group_by, num_resamples)
    means_RF = resamples.means(features_NF)
    means: dict[str, Any] = {"kl": None, "cosine": None}
    intervals = {}
    for f, name in enumerate(values_N):
        means[name] = float(features_NF[:, f].mean())
        interval = resamples.interval(means_RF[:, f], means[name], None if name == "kl" else (0.0, 1.0))
        if interval is not None:
            intervals[name] = interval
    return SoftLabelMetrics(
        num_samples=len(answered),
        num_invalid=int((~is_valid_N).sum()),
        num_errors=len(rows) - len(answered),
        intervals=intervals,
        **means,
    )


def divergence(votes_NC: np.ndarray, log_probabilities_NC: np.ndarray) -> np.ndarray:
    """float64 [N], KL(votes || model) = sum of v (ln v - ln p), in nats, at least 0 (Kullback and Leibler 1951)."""
    has_votes = votes_NC > 0
    log_votes_NC = np.log(np.where(has_votes, votes_NC, 1.0))
    return np.where(has_votes, votes_NC * (log_votes_NC - log_probabilities_NC), 0.0).sum(axis=1).clip(min=0.0)


def cosine(votes_NC: np.ndarray, probabilities_NC: np.ndarray) -> np.ndarray:
    """float64 [N], v p / (|v| |p|), in [0, 1] for distributions."""
    lengths_N = np.linalg.norm(votes_NC, axis=1) * np.linalg.norm(probabilities_NC, axis=1)
    return (votes_NC * probabilities_NC).sum(axis=1) / lengths_N


def _measure(measured: MeasuredRows) -> SoftLabelMetrics | None:
    has_votes = all(row.votes is not None for row in measured.rows)
    return soft_label_metrics(measured.rows, measured.labels, group_by=measured.group_by) if has_votes else None


register_metric(
    Metric(
        "soft_labels",
        kinds=("emotion", "explanation"),
        result=SoftLabelMetrics,
        less_is_better=frozenset({"kl", "num_invalid", "num_errors"}),
        measure=_measure,
    )
)
