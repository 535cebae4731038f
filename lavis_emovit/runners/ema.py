"""A moving average of the trained weights, which is evaluated and saved in their place.

average <- d * average + (1 - d) * weights after each optimizer step, with d = min(decay, (1 + step) / (10 + step)), so
that the first steps do not hang on to the untrained weights (the rule of TensorFlow's ExponentialMovingAverage).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch


class WeightAverage:
    """The moving average, in float32, on the device of the weights.

    Args:
        weights: the trained tensors themselves, by name; they are read anew at every update.
        decay: share of the old average that stays, between 0 and 1.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], decay: float):
        self._weights = dict(weights)
        self._decay = decay
        self._average = {name: weight.detach().float().clone() for name, weight in self._weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights as they are after optimizer step `step`, counted from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, average in self._average.items():
            average.lerp_(self._weights[name].float(), 1.0 - decay)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The average itself, not a copy."""
        return self._average

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put back what `state_dict` gave, or begin with other weights of the same names."""
        for name, average in self._average.items():
            average.copy_(state[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the block, the model has the average for its weights; afterwards exactly those that it had."""
        # Values are copied, storages stay: an engine may hold on to them.
        kept = {name: weight.detach().clone() for name, weight in self._weights.items()}
        try:
            self._copy(self._average)
            yield
        finally:
            self._copy(kept)

    @torch.no_grad()
    def _copy(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.copy_(values[name])
