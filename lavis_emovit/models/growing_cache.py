"""Keys and values of tokens that are read already, with room for those that follow.

transformers' own cache concatenates: every new token copies all keys and values before it, once a layer. With a long
prompt that takes most of the time of an answer. Here a token is written behind the others.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import DynamicCache, GenerationMixin
from transformers.cache_utils import DynamicLayer

# What transformers calls the cache.
_KNOWN = inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters
CACHE_KEY = "cache" if "cache" in _KNOWN else "past_key_values"
# How many tokens are made room for at once.
_ROOM = 64


class _GrowingLayer(DynamicLayer):
    """A layer whose `keys` and `values` [B, H, T, D] are the first T places of longer tensors.

    Args:
        num_before: tokens before them, whose keys and values are elsewhere.
    """

    def __init__(self, num_before: int) -> None:
        super().__init__()
        self._num_before = num_before
        self._whole: tuple[torch.Tensor, torch.Tensor] | None = None
        self._read: torch.Tensor | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All keys and values with those of new tokens behind them."""
        if self.keys is None or self.values is None:
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
            self.is_initialized, self.device, self.dtype = True, key_states.device, key_states.dtype
        begin = self.keys.shape[2]
        end = begin + key_states.shape[2]
        # Other tensors are in their place after beams were reordered or rows repeated.
        if self._whole is None or self.keys is not self._read or end > self._whole[0].shape[2]:
            self._whole = _with_room(self.keys, end), _with_room(self.values, end)
        for whole, states in zip(self._whole, (key_states, value_states)):
            whole[:, :, begin:end] = states
        self.keys, self.values = (whole[:, :, :end] for whole in self._whole)
        self._read = self.keys
        return self.keys, self.values

    def get_seq_length(self, *args: Any) -> int:
        return self._num_before + (0 if self.keys is None else self.keys.shape[2])


def growing_cache(config: Any, num_before: int = 0) -> DynamicCache:
    """A cache of a language model, empty but for `num_before` tokens whose keys and values the attention has elsewhere.

    Without such tokens, layers with a window are those of transformers, which drop what is outside of it.
    """
    cache = DynamicCache(config=config.get_text_config())
    cache.layers = [
        _GrowingLayer(num_before) if num_before or type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


def _with_room(states: torch.Tensor, num_tokens: int) -> torch.Tensor:
    whole = states.new_empty(*states.shape[:2], num_tokens + _ROOM, states.shape[3])
    whole[:, :, : states.shape[2]] = states
    return whole
