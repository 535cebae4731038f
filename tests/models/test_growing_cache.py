"""The cache with room for tokens that follow holds what transformers' own cache does, after any of its operations."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache, LlamaConfig

from lavis_emovit.models import growing_cache as module
from lavis_emovit.models.growing_cache import growing_cache

CONFIG = LlamaConfig(num_hidden_layers=2, hidden_size=8, num_attention_heads=2)


def states(rows: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, 2, tokens, 4), torch.randn(rows, 2, tokens, 4)


@pytest.mark.parametrize("room", [1, 3, 64])
def test_it_holds_what_transformers_own_holds(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROOM", room)
    torch.manual_seed(0)
    ours, theirs = growing_cache(CONFIG), DynamicCache(config=CONFIG)
    changes = {
        2: lambda cache: cache.batch_repeat_interleave(3),
        4: lambda cache: cache.reorder_cache(torch.tensor([1, 1, 0, 5, 3, 4])),
        6: lambda cache: cache.crop(-2),
        8: lambda cache: cache.batch_select_indices(torch.tensor([0, 4])),
    }
    for step in range(10):
        if step in changes:
            for cache in (ours, theirs):
                changes[step](cache)
        rows = 2 if step in (0, 1, 8, 9) else 6
        for layer in range(2):
            new = states(rows, 5 if step == 0 else 1)
            found, expected = ours.update(*new, layer), theirs.update(*new, layer)
            assert all(map(torch.equal, found, expected)), step
        assert ours.get_seq_length() == theirs.get_seq_length()


def test_tokens_are_written_in_place() -> None:
    cache = growing_cache(CONFIG)
    keys, _ = cache.update(*states(2, 5), 0)
    later, _ = cache.update(*states(2, 1), 0)
    assert later.data_ptr() == keys.data_ptr() and later.shape[2] == 6


def test_tokens_before_it_count() -> None:
    cache = growing_cache(CONFIG, num_before=7)
    assert cache.get_seq_length() == 7
    keys, _ = cache.update(*states(2, 1), 0)
    assert keys.shape[2] == 1 and cache.get_seq_length() == 8
