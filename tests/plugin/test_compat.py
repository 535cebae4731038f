"""The shims for names that transformers dropped compute what the originals computed.

Golden values: transformers' own functions if it still has them, otherwise a calculation by hand.
"""

from __future__ import annotations

import pytest
import torch
from transformers import pytorch_utils

from lavis_emovit.plugin import compat


def test_chunks_give_the_result_of_one_call():
    layer = torch.nn.Linear(4, 3)
    left, right = torch.randn(2, 6, 4), torch.randn(2, 6, 4)
    calls = []

    def forward(a, b):
        calls.append(a.shape[1])
        return layer(a + b)

    whole = compat.apply_chunking_to_forward(forward, 0, 1, left, right)
    chunked = compat.apply_chunking_to_forward(forward, 2, 1, left, right)
    assert calls == [6, 2, 2, 2]
    torch.testing.assert_close(chunked, whole)
    torch.testing.assert_close(chunked, pytorch_utils.apply_chunking_to_forward(forward, 2, 1, left, right))


def test_chunks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="not a multiple of the chunk size 4"):
        compat.apply_chunking_to_forward(lambda x: x, 4, 1, torch.zeros(1, 6))
    with pytest.raises(ValueError, match="differ in dimension 1"):
        compat.apply_chunking_to_forward(lambda x, y: x, 2, 1, torch.zeros(1, 6), torch.zeros(1, 4))


def test_heads_are_numbered_before_any_pruning():
    # Four heads of two dimensions, head 1 pruned: positions 0-1 are head 0, 2-3 head 2, 4-5 head 3.
    heads, index = compat.find_pruneable_heads_and_indices([1, 2], 3, 2, {1})
    assert heads == {2}
    assert index.tolist() == [0, 1, 4, 5]
    assert index.dtype == torch.int64


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("bias", [True, False])
def test_pruned_layer(dim, bias):
    layer = torch.nn.Linear(4, 4, bias=bias)
    index = torch.tensor([0, 3])
    ours, golden = compat.prune_linear_layer(layer, index, dim), pytorch_utils.prune_linear_layer(layer, index, dim)
    assert (ours.in_features, ours.out_features) == (golden.weight.shape[1], golden.weight.shape[0])
    torch.testing.assert_close(dict(ours.named_parameters()), dict(golden.named_parameters()))
    assert all(parameter.requires_grad for parameter in ours.parameters())


def test_device_map():
    assert compat.get_device_map(5, [0, 1]) == {0: [0, 1, 2], 1: [3, 4]}
    compat.assert_device_map({0: [0, 1, 2], 1: [3, 4]}, 5)
    for wrong in ({0: [0, 1], 1: [3, 4]}, {0: [0, 1, 2], 1: [2, 3, 4]}, {0: [0, 1, 2, 3, 4, 5]}):
        with pytest.raises(ValueError, match="0 to 4 once"):
            compat.assert_device_map(wrong, 5)
