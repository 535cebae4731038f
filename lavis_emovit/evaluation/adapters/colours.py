"""A baseline on brightness and colours alone: how much of a benchmark needs no understanding of the image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from lavis_emovit.emotion.labels import LabelSet
from lavis_emovit.evaluation.adapters.base import Baseline, Item, register_adapter
from lavis_emovit.evaluation.adapters.heads import LinearHead, learnable
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings, Kind
from lavis_emovit.images import brightness, colorfulness, decode_image
from lavis_emovit.settings import Settings

_SIDE_PX = 64
_HUES, _STEPS = 12, 4


class ColoursSettings(Settings):
    """`adapter: colours`."""

    adapter: Literal["colours"]


class ColoursBaseline(Baseline):
    """A linear head on `colour_features`."""

    kinds: frozenset[Kind] = frozenset({"emotion", "valence_arousal", "action_units"})
    learns = True

    def __init__(self, settings: ColoursSettings):
        self.settings = settings
        self._head = LinearHead()

    def identity(self) -> dict[str, Any]:
        return {"adapter": "colours", "features": 2 + _HUES + 2 * _STEPS + 6}

    def fit(self, items: Iterable[Item], benchmark: BenchmarkSettings, label_set: LabelSet | None) -> None:
        features, truths = learnable(items, _features)
        self._head.fit(features, truths, label_set.labels if label_set is not None else None)

    def predict(self, items: Sequence[Item]) -> list[dict[str, float]]:
        return self._head.predict(_features([item.shown() for item in items]))


def _features(images: Sequence[bytes]) -> np.ndarray:
    return np.array([colour_features(data) for data in images])


def colour_features(image_bytes: bytes) -> np.ndarray:
    """float64 [28]: brightness, colourfulness; histograms of hue (by saturation), saturation, value; RGB mean, std."""
    small = decode_image(image_bytes, min_side_px=_SIDE_PX).resize((_SIDE_PX, _SIDE_PX))
    hsv = np.asarray(small.convert("HSV"), dtype=np.float64) / 255
    rgb = np.asarray(small, dtype=np.float64) / 255
    hue, saturation, value = (hsv[..., channel].ravel() for channel in range(3))
    hues, _ = np.histogram(hue, bins=_HUES, range=(0, 1), weights=saturation)
    saturations, _ = np.histogram(saturation, bins=_STEPS, range=(0, 1))
    values, _ = np.histogram(value, bins=_STEPS, range=(0, 1))
    histograms = np.concatenate([hues, saturations, values]) / (_SIDE_PX * _SIDE_PX)
    overall = [brightness(small), colorfulness(small)]
    return np.concatenate([overall, histograms, rgb.mean(axis=(0, 1)), rgb.std(axis=(0, 1))])


register_adapter(ColoursSettings, lambda entry, place: ColoursBaseline(entry))
