"""A moving average of the trained weights, which is evaluated and saved instead of them.

average <- d * average + (1 - d) * weights after each optimizer step, with d = min(decay, (1 + step) / (10 + step)), so
that the untrained weights are forgotten quickly (the rule of TensorFlow's ExponentialMovingAverage).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from lavis_emovit.models.trained_parts import values_in_place


class WeightAverage:
    """The moving average, in float32, on the device of the weights.

    Args:
        weights: the trained tensors themselves, by name; read again at every update.
        decay: weight of the old average, between 0 and 1.
        starts: first step of tensors that learn later than others; their d counts from there.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], decay: float, starts: Mapping[str, int] | None = None):
        self._weights = dict(weights)
        self._decay, self._starts = decay, dict(starts or {})
        self._average = {name: weight.detach().float().clone() for name, weight in self._weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after optimizer step `step`, counted from 0."""
        for name, average in self._average.items():
            done = max(0, step - self._starts.get(name, 0))
            decay = min(self._decay, (1 + done) / (10 + done))
            average.lerp_(self._weights[name].float(), 1.0 - decay)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The average itself, not a copy."""
        return self._average

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore what `state_dict` returned."""
        for name, average in self._average.items():
            average.copy_(state[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the block, the weights of the model are the average; afterwards exactly those before."""
        with values_in_place(self._weights, self._average):
            yield
