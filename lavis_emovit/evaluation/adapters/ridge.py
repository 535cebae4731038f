"""Ridge regression on frozen features, with the penalty chosen on the training data alone.

Features `X` [N, D] get unit length and targets `Y` [N, T] are centred; W = (X'X + a I)^-1 X'Y (Hoerl and Kennard 1970).
For values the features are centred as well, which is ridge regression with an intercept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics.calibration import log_softmax
from lavis_emovit.evaluation.truths import Truth

PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
NUM_FOLDS = 5
_SHARPNESS = np.geomspace(1.0, 100.0, 41)
_LEAST_LOG = -30.0  # log-probability of a label that training does not have


class RidgeProbe:
    """A linear map from features to the labels of an image, or to its values.

    Labels are one target each, 1 or 0, and the largest output is the answer. The penalty of `PENALTIES` with the best
    accuracy (for values, the least squared error) over `NUM_FOLDS` folds of the training split is taken, the larger one
    of two that are equal. Images of a person (`groups`) are in one fold. A softmax makes the outputs probabilities; its
    sharpness is the one with the best likelihood on the same folds.
    """

    def __init__(self, seed: int = 0):
        self._seed = seed
        self._labels: list[str] = []
        self._maps: dict[tuple[str, ...], _Map] = {}
        self._sharpness = 1.0

    @property
    def penalties(self) -> list[float]:
        """The penalty of each fit: one for labels, one for values that the same images have."""
        return [fit.penalty for fit in self._maps.values()]

    def fit(
        self,
        features_ND: np.ndarray,
        truths: Sequence[Truth],
        labels: Sequence[str] | None,
        groups: Sequence[str | None] = (),
    ) -> None:
        """Learn labels if they are given, otherwise the named values. DataError if there is nothing to learn from."""
        if not len(features_ND):
            raise DataError("the training split has no record with a truth to learn from")
        self._labels, self._maps = list(labels or ()), {}
        units = [group if group is not None else f"record {n}" for n, group in enumerate(groups)] or None
        if labels is not None:
            place = {label: number for number, label in enumerate(labels)}
            chosen_N = np.array([place[truth.label or ""] for truth in truths])
            folds_N = _folds(chosen_N, units, self._seed)
            fit, outputs = _fitted(features_ND, np.eye(len(labels))[chosen_N], folds_N, by_accuracy=True)
            self._maps[tuple(labels)] = fit
            self._sharpness = _sharpness(outputs, chosen_N) if outputs is not None else 1.0
            self._never = np.bincount(chosen_N, minlength=len(labels)) == 0
            return
        names = sorted({name for truth in truths for name in truth.values or {}})
        known_KN = np.array([[name in (truth.values or {}) for truth in truths] for name in names])
        # Values that the same images have are one fit.
        for pattern_N in np.unique(known_KN, axis=0):
            together = tuple(name for name, known_N in zip(names, known_KN) if (known_N == pattern_N).all())
            rows = np.flatnonzero(pattern_N)
            targets = np.array([[(truths[int(n)].values or {})[name] for name in together] for n in rows])
            folds = _folds(np.zeros(len(rows), int), [units[n] for n in rows] if units else None, self._seed)
            self._maps[together], _ = _fitted(features_ND[rows], targets, folds, by_accuracy=False)

    def predict(self, features_ND: np.ndarray) -> list[dict[str, float]]:
        """Label -> log-probability (labels that training does not have are very unlikely), or name -> value."""
        found: list[dict[str, float]] = [{} for _ in range(len(features_ND))]
        for names, fit in self._maps.items():
            outputs = fit(_unit_length(features_ND))
            if self._labels:
                outputs[:, self._never] = -np.inf
                outputs = np.maximum(log_softmax(self._sharpness * outputs), _LEAST_LOG)
            for row, values in zip(found, outputs.tolist()):
                row.update(zip(names, values))
        return found


@dataclass(frozen=True)
class _Map:
    """Features of unit length [N, D] -> outputs [N, T]."""

    weights: np.ndarray  # [D, T]
    middle: np.ndarray  # [D]
    offsets: np.ndarray  # [T]
    penalty: float

    def __call__(self, features_ND: np.ndarray) -> np.ndarray:
        return features_ND @ self.weights + (self.offsets - self.middle @ self.weights)


def _fitted(
    features_ND: np.ndarray, targets_NT: np.ndarray, folds_N: np.ndarray, *, by_accuracy: bool
) -> tuple[_Map, np.ndarray | None]:
    """The map with the best penalty, and the outputs for each row by the fit that has not seen it (None: no folds)."""
    features_ND = _unit_length(features_ND)
    centre = not by_accuracy
    best, outputs = PENALTIES.index(1.0), np.zeros((len(PENALTIES), *targets_NT.shape))
    folds = np.unique(folds_N)
    if len(folds) > 1:
        for fold in folds:
            seen_N = folds_N != fold
            for number, fit in enumerate(_maps(features_ND[seen_N], targets_NT[seen_N], centre)):
                outputs[number][~seen_N] = fit(features_ND[~seen_N])
        right_N = targets_NT.argmax(axis=1)
        scores = (
            [float((found.argmax(axis=1) == right_N).mean()) for found in outputs]
            if by_accuracy
            else [-float(((found - targets_NT) ** 2).mean()) for found in outputs]
        )
        best = max(range(len(PENALTIES)), key=lambda number: (scores[number], number))
    fit = _maps(features_ND, targets_NT, centre)[best]
    return fit, outputs[best] if len(folds) > 1 else None


def _maps(features_ND: np.ndarray, targets_NT: np.ndarray, centre: bool) -> list[_Map]:
    """The map for each penalty, from one decomposition."""
    offsets_T, middle = targets_NT.mean(axis=0), features_ND.mean(axis=0) * centre
    targets_NT = targets_NT - offsets_T
    if centre:  # else without a copy, because the features may fill gigabytes
        features_ND = features_ND - middle
    is_wide = features_ND.shape[0] < features_ND.shape[1]
    values, vectors = np.linalg.eigh(features_ND @ features_ND.T if is_wide else features_ND.T @ features_ND)
    values = np.maximum(values, 0.0)
    projected = vectors.T @ (targets_NT if is_wide else features_ND.T @ targets_NT)
    maps = []
    for penalty in PENALTIES:
        solved = vectors @ (projected / (values + penalty)[:, None])
        maps.append(_Map(features_ND.T @ solved if is_wide else solved, middle, offsets_T, penalty))
    return maps


def _unit_length(features_ND: np.ndarray) -> np.ndarray:
    features_ND = np.asarray(features_ND, dtype=np.float64)
    return features_ND / np.maximum(np.linalg.norm(features_ND, axis=1, keepdims=True), 1e-12)


def _folds(classes_N: np.ndarray, units: Sequence[str] | None, seed: int) -> np.ndarray:
    """int [N], the fold of each row, the same for rows of a unit; classes are dealt evenly. One fold for one unit."""
    first_of: dict[str, int] = {}
    for row, unit in enumerate(units or map(str, range(len(classes_N)))):
        first_of.setdefault(unit, row)
    rows = np.array(list(first_of.values()))
    shuffled = np.random.default_rng(seed).permutation(len(rows))
    dealt = shuffled[np.argsort(classes_N[rows[shuffled]], kind="stable")]
    fold_of_unit = np.empty(len(rows), int)
    fold_of_unit[dealt] = np.arange(len(rows)) % NUM_FOLDS
    if units is None:
        return fold_of_unit
    place = {unit: number for number, unit in enumerate(first_of)}
    return np.array([fold_of_unit[place[unit]] for unit in units])


def _sharpness(outputs_NC: np.ndarray, chosen_N: np.ndarray) -> float:
    """The factor of the outputs whose softmax gives the true labels the highest mean log-probability."""
    rows = np.arange(len(chosen_N))
    scores = [log_softmax(factor * outputs_NC)[rows, chosen_N].mean() for factor in _SHARPNESS]
    return float(_SHARPNESS[int(np.argmax(scores))])
