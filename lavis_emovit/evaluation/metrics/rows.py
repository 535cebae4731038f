"""Prediction rows as arrays of labels, predictions, scores, numbers and groups; errors name the row."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics.resampling import NUM_RESAMPLES, Resamples
from lavis_emovit.evaluation.predictions import PredictionRow

RECORD = "record_id"
"""The group that every row has: its record."""
GROUP = "group"
"""The slice with a row's person or session; intervals resample whole groups if all rows have one."""

_NO_ROWS = "no predictions to measure: the list of rows is empty"


def row_name(row: PredictionRow) -> str:
    return f"prediction of instance '{row.instance_id}'"


def without_errors(rows: Sequence[PredictionRow]) -> list[PredictionRow]:
    """The rows without an `error`. DataError for no rows or only errors."""
    if not rows:
        raise DataError(_NO_ROWS)
    answered = [row for row in rows if row.error is None]
    if not answered:
        raise DataError(f"all {len(rows)} rows are errors, so nothing can be measured; the first is: {rows[0].error}")
    return answered


def count_statuses(rows: Sequence[PredictionRow]) -> dict[str, int]:
    """Status -> how many written answers were read so; empty for scored ones."""
    return dict(sorted(Counter(row.status for row in rows if row.status is not None).items()))


def is_right(row: PredictionRow) -> bool:
    """Whether the answer is the true label, or one of several; an invalid answer is wrong."""
    return row.prediction is not None and row.prediction in (row.labels or (row.label,))


def question_groups(rows: Sequence[PredictionRow], group_by: str | None) -> str | None:
    """What intervals resample: the rows' groups, else images with all of their questions if some have several."""
    several = len({row.question_id for row in rows}) > len({row.record_id for row in rows})
    return group_by or (RECORD if several else None)


def check_labels(labels: Sequence[str]) -> None:
    """Raise DataError for an empty label set or a duplicate label."""
    if not labels:
        raise DataError("the label set is empty")
    if len(set(labels)) != len(labels):
        raise DataError(f"the label set has a duplicate label: {', '.join(labels)}")


def label_indices(rows: Sequence[PredictionRow], labels: Sequence[str]) -> np.ndarray:
    """int64 [N], the index of each row's true label. Raises DataError for no rows, no label, or an unknown one."""
    check_labels(labels)
    if not rows:
        raise DataError(_NO_ROWS)
    for row in rows:
        if row.label is None:
            raise DataError(f"{row_name(row)} has no true label, so nothing can be measured on it")
        if row.label not in labels:
            raise DataError(f"{row_name(row)}: label '{row.label}' is not in the label set ({', '.join(labels)})")
    return _places([row.label for row in rows], labels)


def prediction_indices(rows: Sequence[PredictionRow], labels: Sequence[str]) -> np.ndarray:
    """int64 [N], the index of each row's prediction, C for invalid ones."""
    check_labels(labels)
    return _places([row.prediction for row in rows], labels)


def _places(names: Sequence[str | None], labels: Sequence[str]) -> np.ndarray:
    index_of: dict[str | None, int] = {label: index for index, label in enumerate(labels)}
    return np.array([index_of.get(name, len(labels)) for name in names], dtype=np.int64)


def score_matrix(rows: Sequence[PredictionRow], labels: Sequence[str]) -> np.ndarray:
    """float64 [N, C], the scores in the order of `labels`. Raises DataError for missing, extra or non-finite ones."""
    check_labels(labels)
    scores_NC = np.empty((len(rows), len(labels)))
    for i, row in enumerate(rows):
        if row.scores is None:
            raise DataError(f"{row_name(row)} has no scores; top-k and calibration need one for every label")
        if row.scores.keys() != set(labels):
            missing = [label for label in labels if label not in row.scores]
            extra = sorted(row.scores.keys() - set(labels))
            what = f"no score for '{missing[0]}'" if missing else f"a score for '{extra[0]}', which is not a label"
            raise DataError(f"{row_name(row)} has {what}")
        scores_NC[i] = [row.scores[label] for label in labels]
    not_finite = ~np.isfinite(scores_NC)
    if not_finite.any():
        i, c = np.argwhere(not_finite)[0]
        raise DataError(f"{row_name(rows[i])}: score of '{labels[c]}' is {scores_NC[i, c]}, not a finite number")
    return scores_NC


def vote_matrix(rows: Sequence[PredictionRow], labels: Sequence[str]) -> np.ndarray:
    """float64 [N, C], the annotators' shares, each row adding up to 1. Raises DataError for none or a stray label."""
    check_labels(labels)
    votes_NC = np.zeros((len(rows), len(labels)))
    for i, row in enumerate(rows):
        if row.votes is None:
            raise DataError(f"{row_name(row)} has no votes, so soft labels cannot be measured on it")
        if stray := [label for label in row.votes if label not in labels]:
            raise DataError(f"{row_name(row)}: votes for '{stray[0]}', which is not in the label set ({labels})")
        votes_NC[i] = [row.votes.get(label, 0.0) for label in labels]
    return votes_NC / votes_NC.sum(axis=1, keepdims=True)


def value_arrays(rows: Sequence[PredictionRow], name: str) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Indices of the M rows with a true number `name`; true values [M]; predicted ones [M], NaN if invalid."""
    found = [
        (i, row.true_values[name], None if row.values is None else row.values.get(name))
        for i, row in enumerate(rows)
        if row.true_values is not None and name in row.true_values
    ]
    known, true, predicted = zip(*found) if found else ((), (), ())
    # numpy reads None as NaN.
    return list(known), np.array(true, dtype=np.float64), np.array(predicted, dtype=np.float64)


def resamples_of(rows: Sequence[PredictionRow], group_by: str | None, num_resamples: int = NUM_RESAMPLES) -> Resamples:
    """Resamples of rows, or of whole groups of them, see `group_indices`."""
    return Resamples(len(rows), group_indices(rows, group_by), num_resamples=num_resamples)


def group_indices(rows: Sequence[PredictionRow], group_by: str | None) -> np.ndarray | None:
    """int64 [N], the number of each row's group: a key of its `slices`, or `record_id` (else DataError). None: none."""
    if group_by is None:
        return None
    groups = [row.record_id if group_by == RECORD else (row.slices or {}).get(group_by) for row in rows]
    if None in groups:
        row = rows[groups.index(None)]
        slices = ", ".join(row.slices or {}) or "none"
        raise DataError(f"{row_name(row)} has no '{group_by}', by which rows are resampled (its slices: {slices})")
    # An accented letter may be one character or two.
    names = [unicodedata.normalize("NFC", str(group)) for group in groups]
    return _places(names, list(dict.fromkeys(names)))
