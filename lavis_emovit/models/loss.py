"""The loss of answers: logits are computed at supervised positions only.

Legend: `N` rows, `T` positions, `S` supervised positions of all rows, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from lavis_emovit.models.text import IGNORED


def answer_loss(language_model: Any, labels_NT: torch.Tensor, **inputs: Any) -> torch.Tensor:
    """Cross-entropy summed over all supervised positions of a pass, scalar float32, natural log.

    Args:
        language_model: causal or sequence-to-sequence, of transformers.
        labels_NT: on the CPU, the token that each position (of the decoder) predicts, `IGNORED` at unsupervised ones.
        inputs: of the language model.
    """
    logits_SV, labels_S = _supervised_logits(language_model, labels_NT, inputs)
    return F.cross_entropy(logits_SV, labels_S, reduction="sum")


def answer_losses(
    language_model: Any, labels_NT: torch.Tensor, lengths: Sequence[int], **inputs: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `answer_loss`, and the mean over each answer, float32 [answers], without gradients.

    Args:
        lengths: supervised positions of each answer, in the order of `labels_NT` read row by row.
    """
    logits_SV, labels_S = _supervised_logits(language_model, labels_NT, inputs)
    losses_S = F.cross_entropy(logits_SV, labels_S, reduction="none")
    means = [losses.mean() for losses in losses_S.detach().split(list(lengths))]
    return losses_S.sum(), torch.stack(means)


def answer_log_probs(language_model: Any, labels_NT: torch.Tensor, **inputs: Any) -> torch.Tensor:
    """Log-probabilities summed over the supervised positions of each row, float32 [N]; arguments as `answer_loss`."""
    logits_SV, labels_S = _supervised_logits(language_model, labels_NT, inputs)
    losses_S = F.cross_entropy(logits_SV, labels_S, reduction="none")
    lengths = (labels_NT != IGNORED).sum(dim=1).tolist()
    return -torch.stack([losses.sum() for losses in losses_S.split(lengths)])


def token_log_probs(
    language_model: Any, places: Sequence[tuple[int, int]], tokens: Sequence[int], **inputs: Any
) -> torch.Tensor:
    """Log-probabilities float32 [S] of tokens after places (row, position); logits are computed once for each place."""
    distinct = {place: number for number, place in enumerate(dict.fromkeys(places))}
    logits_MV = _logits_at(language_model, list(distinct), inputs)
    chosen_S = torch.tensor([distinct[place] for place in places], device=logits_MV.device)
    tokens_S = torch.tensor(tokens, device=logits_MV.device)
    return logits_MV[chosen_S, tokens_S] - logits_MV.logsumexp(dim=-1)[chosen_S]


def sampled_log_probs(
    language_model: Any,
    places: Sequence[tuple[int, int]],
    tokens: Sequence[int],
    temperature: float,
    unwritten: Sequence[int],
    **inputs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of tokens after places, and entropies there (without gradients), both float32 [S].

    The logits are divided by the temperature first, and tokens in `unwritten` have probability 0. Natural log.
    """
    logits_SV = _logits_at(language_model, places, inputs) / temperature
    if unwritten:
        logits_SV = logits_SV.index_fill(1, torch.tensor(unwritten, device=logits_SV.device), -torch.inf)
    log_probs_SV, entropies_S = log_probs_and_entropies(logits_SV)
    return log_probs_SV.gather(1, torch.tensor(tokens, device=log_probs_SV.device)[:, None])[:, 0], entropies_S


def log_probs_and_entropies(logits_SV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities [S, V] and entropies [S], the latter without gradients; natural log."""
    log_probs_SV = F.log_softmax(logits_SV, dim=-1)
    with torch.no_grad():
        return log_probs_SV, torch.special.entr(log_probs_SV.exp()).sum(dim=-1)


def _logits_at(language_model: Any, places: Sequence[tuple[int, int]], inputs: dict[str, Any]) -> torch.Tensor:
    """Logits float32 [S, V] at places (row, position)."""
    head = language_model.get_output_embeddings()
    rows, columns = (torch.tensor(part, device=head.weight.device) for part in zip(*places))
    with head_reads(head, rows, columns):
        return language_model(use_cache=False, **inputs).logits.float()


def _supervised_logits(
    language_model: Any, labels_NT: torch.Tensor, inputs: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits float32 [S, V] at the supervised positions, row by row, and their labels [S]."""
    head = language_model.get_output_embeddings()
    device = head.weight.device
    # On the CPU, so that no step waits for the GPU.
    rows, columns = (labels_NT != IGNORED).nonzero(as_tuple=True)
    labels_S = labels_NT[rows, columns].to(device)
    with head_reads(head, rows.to(device), columns.to(device)):
        logits_SV = language_model(use_cache=False, **inputs).logits
    return logits_SV.float(), labels_S


@contextmanager
def head_reads(head: nn.Module, rows_S: torch.Tensor, columns_S: torch.Tensor) -> Iterator[None]:
    """Inside the block, the output head computes logits at S places only, as [S, V].

    The logits of all positions would be the largest tensor of the step (32,000 per position), and most of it is unused.
    """

    def choose(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (arguments[0][rows_S, columns_S], *arguments[1:])

    handle = head.register_forward_pre_hook(choose)
    try:
        yield
    finally:
        handle.remove()
