"""The loss of answers: summed over their tokens, with logits at no other position.

Legend: `N` image-question pairs, `T` positions, `S` supervised positions of the whole batch, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from lavis_emovit.models.instructblip.text import IGNORED


def answer_loss(language_model: Any, labels_NT: torch.Tensor, **inputs: Any) -> torch.Tensor:
    """Cross-entropy summed over the supervised positions of a pass of the language model.

    Args:
        language_model: causal or sequence-to-sequence, of transformers.
        labels_NT: on the CPU, the token that each position has to predict, `IGNORED` where nothing is to be learned.
        inputs: of the language model; its positions (those of the decoder) are the T of the labels.

    Returns:
        scalar float32, natural log.
    """
    head = language_model.get_output_embeddings()
    device = head.weight.device
    # Found on the CPU, so that a GPU need not be waited for.
    rows, columns = (labels_NT != IGNORED).nonzero(as_tuple=True)
    labels_S = labels_NT[rows, columns].to(device)
    with _head_reads(head, rows.to(device), columns.to(device)):
        logits_SV = language_model(use_cache=False, **inputs).logits
    return F.cross_entropy(logits_SV.float(), labels_S, reduction="sum")


@contextmanager
def _head_reads(head: nn.Module, rows_S: torch.Tensor, columns_S: torch.Tensor) -> Iterator[None]:
    """Inside the block, the output head computes logits at these positions only.

    A vocabulary of 32,000 makes the logits of all positions the largest tensor of the step, most of it never looked at.
    """

    def choose(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (arguments[0][rows_S, columns_S], *arguments[1:])

    handle = head.register_forward_pre_hook(choose)
    try:
        yield
    finally:
        handle.remove()
