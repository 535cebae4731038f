"""Linear heads on image features: logistic regression for labels, ridge regression for values."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.adapters.base import Item
from lavis_emovit.evaluation.truths import Truth

logger = logging.getLogger(__name__)

IMAGES_PER_PASS = 32
"""Images that an image encoder gets at once."""

_TINY = 1e-12


def encoded(items: Sequence[Item], features_of: Callable[[Sequence[bytes]], np.ndarray]) -> np.ndarray:
    """Features [N, D] of N items, of which at least one; an image that cannot be decoded raises DataError."""
    images = [item.shown() for item in items]
    starts = range(0, len(images), IMAGES_PER_PASS)
    return np.concatenate([features_of(images[start : start + IMAGES_PER_PASS]) for start in starts])


def learnable(
    items: Iterable[Item], features_of: Callable[[Sequence[bytes]], np.ndarray], at_once: int = 1
) -> tuple[np.ndarray, list[Truth]]:
    """Features [N, D] and N truths of the images that can be decoded; the others are reported and skipped.

    `features_of` gets `at_once` images in one call.
    """
    features, kept = decodable(items, features_of, at_once)
    return features, [item.truth for item in kept]


def decodable(
    items: Iterable[Item], features_of: Callable[[Sequence[bytes]], np.ndarray], at_once: int = 1
) -> tuple[np.ndarray, list[Item]]:
    """The same with the items, without their encoded images."""
    features: list[np.ndarray] = []
    items_N: list[Item] = []
    faulty: list[str] = []
    source = iter(items)
    while part := list(islice(source, at_once)):
        try:
            found = [(features_of([item.shown() for item in part]), part)]
        except DataError:
            found = []
            for item in part:
                try:
                    found.append((features_of([item.shown()]), [item]))
                except DataError as error:
                    faulty.append(f"'{item.record.id}': {error}")
        for rows, kept in found:
            features.append(rows)
            items_N += [replace(item, image_bytes=b"") for item in kept]
    if faulty:
        logger.warning("%d training images cannot be decoded and are skipped; the first: %s", len(faulty), faulty[0])
    return np.concatenate(features) if features else np.zeros((0, 1)), items_N


class LinearHead:
    """Standardised features, then a linear model of scikit-learn with its standard settings (C = 1, alpha = 1).

    Values of action units are intensities. The fit of a unit skips images without a value for it.
    """

    def __init__(self) -> None:
        self._labels: list[str] = []
        self._models: dict[str, Any] = {}

    def fit(self, features_ND: np.ndarray, truths: Sequence[Truth], labels: Sequence[str] | None) -> None:
        """Learn labels if they are given, otherwise the named values. DataError if there is nothing to learn from."""
        if not len(features_ND):
            raise DataError("the training split has no record with a truth to learn from")
        if labels is not None:
            self._labels = list(labels)
            self._models = {"": _fitted(features_ND, [truth.label or "" for truth in truths])}
            return
        self._labels, self._models = [], {}
        for name in sorted({name for truth in truths for name in truth.values or {}}):
            known = [number for number, truth in enumerate(truths) if name in (truth.values or {})]
            self._models[name] = _fitted(features_ND[known], [(truths[number].values or {})[name] for number in known])

    def predict(self, features_ND: np.ndarray) -> list[dict[str, float]]:
        """Label -> log-probability (labels never seen in training are very unlikely), or name -> value."""
        if self._labels:
            model = self._models[""]
            probabilities = np.full((len(features_ND), len(self._labels)), _TINY)
            if isinstance(model, str):
                probabilities[:, self._labels.index(model)] = 1.0
            else:
                columns = [self._labels.index(label) for label in model.classes_]
                probabilities[:, columns] = np.maximum(model.predict_proba(features_ND), _TINY)
            return [dict(zip(self._labels, np.log(row).tolist())) for row in probabilities]
        predicted = {name: model.predict(features_ND) for name, model in self._models.items()}
        return [{name: float(values[row]) for name, values in predicted.items()} for row in range(len(features_ND))]


def _fitted(features_ND: np.ndarray, targets: list[Any]) -> Any:
    """A classifier of labels or a regressor of numbers; the label itself if there is only one."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    has_labels = isinstance(targets[0], str)
    if has_labels and len(set(targets)) == 1:
        return targets[0]
    head = LogisticRegression(max_iter=2000) if has_labels else Ridge()
    return make_pipeline(StandardScaler(), head).fit(features_ND, targets)
