"""Answers that read the keys and values of their question attend as if each had a copy of its own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers.integrations.sdpa_attention import repeat_kv

from lavis_emovit.models.image_text.shared_prefix import SharedPrefix


@pytest.mark.parametrize("window", [None, 3, 7, 40])
@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (4, 2), (3, 1)])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_it_is_the_attention_of_copies(heads: int, key_heads: int, window: int | None, scaling: float | None) -> None:
    torch.manual_seed(0)
    num_questions, group, before, written, width = 2, 3, 9, 4, 8
    is_read = torch.ones(num_questions, before, dtype=torch.bool)
    is_read[1, :5] = False  # a shorter question, padded on the left
    layers = {5: (torch.randn(2, key_heads, before, width), torch.randn(2, key_heads, before, width))}
    query = torch.randn(num_questions * group, 1, heads, width).transpose(1, 2)
    key, value = (torch.randn(num_questions * group, key_heads, written, width) for _ in range(2))
    prefix = SharedPrefix(layers, is_read)
    found = prefix.attend(SimpleNamespace(layer_idx=5), query, key, value, window, scaling=scaling)

    keys, values = (torch.cat([a.repeat_interleave(group, 0), b], 2) for a, b in zip(layers[5], (key, value)))
    last = before + written - 1
    seen = torch.cat([is_read.repeat_interleave(group, 0), torch.ones(len(query), written, dtype=torch.bool)], 1)
    if window is not None:
        seen &= torch.arange(last + 1) > last - window
    keys, values = (repeat_kv(one, heads // key_heads) for one in (keys, values))
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, keys, values, attn_mask=seen[:, None, None], scale=scaling
    )
    assert prefix.num_tokens == before and found.shape == (num_questions * group, 1, heads, width)
    torch.testing.assert_close(found, expected.transpose(1, 2))
