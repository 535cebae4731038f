"""Soft labels: the model's distribution and its answer against the votes of several annotators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lavis_emovit.emotion.label_affect import affect_table
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

_TOP = (2, 3)


class SoftLabelMetrics(Result):
    """Means over all answered rows; an invalid answer has no votes and counts as 0 in the last three.

    Attributes:
        kl: Kullback-Leibler divergence of the model's distribution from the votes, in nats, or None without scores.
        cosine: cosine of the two distributions, in [0, 1], or None without scores.
        total_variation: half the sum of the absolute differences, in [0, 1]: the earth mover's distance with the same
            distance between all labels; None without scores.
        emd_valence: earth mover's distance along the published valence of the labels, in [0, 2]; None without scores,
            or if a label has no published valence.
        votes_in_top: k -> mean share of the votes for the k labels that the model ranks highest; None without scores.
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
    total_variation: float | None = None
    emd_valence: float | None = None
    votes_in_top: dict[int, float] | None = None
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
        probabilities_NC = np.exp(log_probabilities_NC)
        values_N["kl"] = divergence(votes_NC, log_probabilities_NC)
        values_N["cosine"] = cosine(votes_NC, probabilities_NC)
        values_N["total_variation"] = np.abs(votes_NC - probabilities_NC).sum(axis=1) / 2
        if (valence_C := _valence(labels)) is not None:
            values_N["emd_valence"] = earth_movers_distance(votes_NC, probabilities_NC, valence_C)
        for k in (k for k in _TOP if k < len(labels)):
            values_N[f"votes_in_top_{k}"] = votes_in_top(votes_NC, log_probabilities_NC, k)
    features_NF = np.column_stack(list(values_N.values())).astype(np.float64)
    resamples = resamples_of(answered, group_by, num_resamples)
    means_RF = resamples.means(features_NF)
    means: dict[str, Any] = {"kl": None, "cosine": None}
    ranges = {"kl": None, "emd_valence": (0.0, 2.0)}
    intervals = {}
    for f, name in enumerate(values_N):
        means[name] = float(features_NF[:, f].mean())
        interval = resamples.interval(means_RF[:, f], means[name], ranges.get(name, (0.0, 1.0)))
        if interval is not None:
            intervals[name] = interval
    in_top = {int(name.rpartition("_")[2]): means.pop(name) for name in list(means) if name.startswith("votes_in_top")}
    return SoftLabelMetrics(
        num_samples=len(answered),
        num_invalid=int((~is_valid_N).sum()),
        num_errors=len(rows) - len(answered),
        intervals=intervals,
        votes_in_top=in_top or None,
        **means,
    )


def divergence(votes_NC: np.ndarray, log_probabilities_NC: np.ndarray) -> np.ndarray:
    """float64 [N], KL(votes || model) = sum of v (ln v - ln p), in nats, at least 0 (Kullback and Leibler 1951)."""
    has_votes = votes_NC > 0
    log_votes_NC = np.log(np.where(has_votes, votes_NC, 1.0))
    return np.where(has_votes, votes_NC * (log_votes_NC - log_probabilities_NC), 0.0).sum(axis=1).clip(min=0.0)


def earth_movers_distance(votes_NC: np.ndarray, probabilities_NC: np.ndarray, place_C: np.ndarray) -> np.ndarray:
    """float64 [N], the least cost of moving one distribution to the other on a line where label c is at `place_C[c]`.

    On a line it is the area between the two cumulative distributions (Vallender 1974).
    """
    order = np.argsort(place_C, kind="stable")
    apart_NC = np.cumsum((votes_NC - probabilities_NC)[:, order], axis=1)[:, :-1]
    return np.abs(apart_NC) @ np.diff(place_C[order])


def votes_in_top(votes_NC: np.ndarray, scores_NC: np.ndarray, k: int) -> np.ndarray:
    """float64 [N], the share of the votes for the k best scored labels; a tie for the last place counts in part."""
    last_N1 = np.partition(scores_NC, -k, axis=1)[:, -k, None]
    better_NC, tied_NC = scores_NC > last_N1, scores_NC == last_N1
    share_N = (k - better_NC.sum(axis=1)) / tied_NC.sum(axis=1)
    return (votes_NC * better_NC).sum(axis=1) + share_N * (votes_NC * tied_NC).sum(axis=1)


def _valence(labels: Sequence[str]) -> np.ndarray | None:
    """float64 [C], the published valence of each label; None if one has none."""
    known = [affect_table().of(label) for label in labels]
    return np.array([one.valence for one in known if one is not None]) if None not in known else None


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
        less_is_better=frozenset({"kl", "total_variation", "emd_valence", "num_invalid", "num_errors"}),
        measure=_measure,
    )
)
