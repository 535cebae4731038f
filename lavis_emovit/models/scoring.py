"""Log-likelihood of candidate answers: what they share is computed once, then each candidate's own tokens.

Legend: `N` image-question pairs, `Q` query tokens, `T` text tokens, `C` candidates, `L` tokens of the longest
candidate, `D` width, `V` vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from lavis_emovit.models.text import pad


def candidate_token_ids(tokenizer: Any, candidates: list[str], answer_prefix: str) -> tuple[list[int], list[list[int]]]:
    """Token ids that all answers begin with, and those that are each candidate's own.

    A candidate is tokenised together with the prefix, as in training: a tokenizer may join the space between them to
    either side. What all answers share beyond the prefix stays with the candidates, so that scores do not depend on
    which other candidates are asked for.

    Raises:
        ValueError: no candidates, two equal ones, or one that tokenises to nothing.
    """
    if not candidates:
        raise ValueError("no candidates to score")
    if len(set(candidates)) != len(candidates):
        raise ValueError("two candidates are the same string")
    start = _ids(tokenizer, answer_prefix.rstrip()) if answer_prefix.strip() else []
    rows = [_ids(tokenizer, answer_prefix + candidate) for candidate in candidates]
    num_shared = min([len(start), *(_common_length(start, row) for row in rows)])
    own = [row[num_shared:] for row in rows]
    for candidate, row in zip(candidates, own):
        if not row or not candidate.strip():
            raise ValueError(f"candidate {candidate!r} tokenises to nothing")
    return start[:num_shared], own


def _ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _common_length(first: list[int], second: list[int]) -> int:
    length = 0
    for left, right in zip(first, second):
        if left != right:
            break
        length += 1
    return length


def score_causal(
    language_model: Any,
    prefix_NQD: torch.Tensor,
    embeds_NTD: torch.Tensor,
    mask_NT: torch.Tensor,
    rows: list[list[int]],
) -> torch.Tensor:
    """Score candidates behind `[visual prefix][prompt]` with a decoder-only language model.

    Args:
        language_model: a causal model of transformers.
        prefix_NQD: projected query tokens.
        embeds_NTD: embedded prompts, padded on the right.
        mask_NT: 1 for real prompt tokens.
        rows: own tokens of each of the C candidates.

    Returns:
        float32 [N, C], summed log-probabilities.
    """
    device = embeds_NTD.device
    num_pairs, num_candidates = embeds_NTD.shape[0], len(rows)
    mask = torch.cat([torch.ones(prefix_NQD.shape[:2], dtype=mask_NT.dtype, device=device), mask_NT], dim=1)
    positions = mask.cumsum(dim=1) - 1
    longest = max(len(row) for row in rows)
    prefill = language_model.get_decoder()(
        inputs_embeds=torch.cat([prefix_NQD.to(embeds_NTD.dtype), embeds_NTD], dim=1),
        attention_mask=mask,
        position_ids=positions.clamp(min=0),
        use_cache=longest > 1,
    )
    head = language_model.get_output_embeddings()
    last = mask.sum(dim=1) - 1
    hidden_ND = prefill.last_hidden_state[torch.arange(num_pairs, device=device), last]
    first_NV = F.log_softmax(head(hidden_ND).float(), dim=-1)
    ids_CL, own_mask_CL = (tensor.to(device) for tensor in pad(rows, pad_id=0))
    scores_NC = first_NV[:, ids_CL[:, 0]]
    if longest == 1:
        return scores_NC

    cache = prefill.past_key_values
    cache.batch_repeat_interleave(num_candidates)
    own_mask = own_mask_CL[:, :-1].repeat(num_pairs, 1)
    steps = torch.arange(longest - 1, device=device)
    hidden = language_model.get_decoder()(
        inputs_embeds=language_model.get_input_embeddings()(ids_CL[:, :-1].repeat(num_pairs, 1)),
        attention_mask=torch.cat([mask.repeat_interleave(num_candidates, dim=0), own_mask.to(mask.dtype)], dim=1),
        position_ids=(last + 1).repeat_interleave(num_candidates)[:, None] + steps,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    log_probs = F.log_softmax(head(hidden).float(), dim=-1)
    targets = ids_CL[:, 1:].repeat(num_pairs, 1)
    token_scores = log_probs.gather(-1, targets[..., None])[..., 0] * own_mask_CL[:, 1:].repeat(num_pairs, 1)
    return scores_NC + token_scores.sum(dim=1).view(num_pairs, num_candidates)


def score_seq2seq(
    language_model: Any, inputs_NTD: torch.Tensor, mask_NT: torch.Tensor, shared: list[int], rows: list[list[int]]
) -> torch.Tensor:
    """Score candidates with an encoder-decoder language model; the encoder runs once for all candidates.

    Args:
        language_model: a sequence-to-sequence model of transformers.
        inputs_NTD: embedded encoder inputs, visual prefix and prompt.
        mask_NT: 1 for real positions.
        shared: tokens that every answer begins with, read and not scored.
        rows: own tokens of each of the C candidates.

    Returns:
        float32 [N, C], summed log-probabilities.
    """
    num_pairs, num_candidates = inputs_NTD.shape[0], len(rows)
    encoded = language_model.get_encoder()(inputs_embeds=inputs_NTD, attention_mask=mask_NT)
    encoded.last_hidden_state = encoded.last_hidden_state.repeat_interleave(num_candidates, dim=0)
    ids_CL, mask_CL = (tensor.to(inputs_NTD.device) for tensor in pad([[*shared, *row] for row in rows], pad_id=0))
    labels = ids_CL.repeat(num_pairs, 1)
    logits = language_model(
        encoder_outputs=encoded,
        attention_mask=mask_NT.repeat_interleave(num_candidates, dim=0),
        decoder_input_ids=language_model.prepare_decoder_input_ids_from_labels(labels=labels),
        use_cache=False,
    ).logits
    token_scores = F.log_softmax(logits.float(), dim=-1).gather(-1, labels[..., None])[..., 0]
    scored = mask_CL.clone()
    scored[:, : len(shared)] = 0
    return (token_scores * scored.repeat(num_pairs, 1)).sum(dim=1).view(num_pairs, num_candidates)
