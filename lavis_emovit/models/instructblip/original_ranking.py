"""LAVIS's own losses of candidates, to compare with results of the original code."""

from __future__ import annotations

import torch

from lavis_emovit.models.scoring import CandidateTokens


def original_losses(
    sums_NC: torch.Tensor, candidates: CandidateTokens, segments: list[tuple[int, int]], num_before: int
) -> torch.Tensor:
    """The loss of a decoder-only model by which LAVIS ranks candidates, float32 [N, C], the smaller the better.

    It is the negative log-likelihood of a candidate's tokens, without an end token, divided by the padded length of its
    row: query tokens and longest prompt of the batch (`num_before`), longest candidate of its segment, minus one. So
    short candidates have an advantage, and segments of different lengths are not comparable.
    """
    lengths_C = torch.cat(
        [torch.full((end - start,), max(map(len, candidates.rows[start:end]))) for start, end in segments]
    )
    return -sums_NC / (num_before + lengths_C - 1).to(sums_NC)


def segments_of(num_candidates: int, n_segments: int) -> list[tuple[int, int]]:
    """Starts and ends of LAVIS's segments: equally long; the last one also takes the remainder."""
    if not 1 <= n_segments <= max(num_candidates, 1):
        raise ValueError(f"n_segments is {n_segments}, expected 1 to {num_candidates}, the number of candidates")
    length = num_candidates // n_segments
    ends = [length * segment for segment in range(1, n_segments)] + [num_candidates]
    return list(zip([0, *ends], ends))
