"""From strings to token tensors, the way InstructBLIP reads them.

Legend: `N` image-question pairs, `Q` query tokens, `T` text tokens.

The language model reads `[Q query tokens][question][answer][end]`: the answer right behind the question, padding last.
The loss counts answer tokens only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

IGNORED = -100


@dataclass(frozen=True)
class TokenBatch:
    """Token ids of N texts padded on the right, with the mask of real tokens and the labels of supervised ones."""

    input_ids: torch.Tensor  # long [N, T]
    attention_mask: torch.Tensor  # long [N, T]
    labels: torch.Tensor  # long [N, T], IGNORED where nothing is to be learned
    num_truncated: int  # texts that were cut at their maximum length


def encode_prompts(tokenizer: Any, prompts: list[str], max_tokens: int | None, is_seq2seq: bool) -> list[list[int]]:
    """Ids of the questions, at most `max_tokens` each (None: all of them); a longer one loses its beginning, as in
    InstructBLIP's training.

    A decoder-only model reads the begin token first. It is put there by hand, since tokenizers of different versions
    disagree on whether they add it. An encoder reads what its tokenizer gives, with the end token.
    """
    if is_seq2seq:
        cut = {} if max_tokens is None else {"truncation": True, "max_length": max_tokens}
        return tokenizer(prompts, **cut)["input_ids"]
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    rows = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    if max_tokens is None:
        return [begin + row for row in rows]
    room = max_tokens - len(begin)
    return [begin + (row[-room:] if room else []) for row in rows]


def encode_answers(tokenizer: Any, answers: list[str], max_tokens: int) -> tuple[list[list[int]], int]:
    """Ids of the answers, each closed by the end token, and how many were cut to `max_tokens`.

    A cut answer has no end token: the text does not end there.
    """
    encoded = []
    truncated = 0
    for ids in tokenizer(answers, add_special_tokens=False)["input_ids"]:
        closed = [*ids, tokenizer.eos_token_id]
        truncated += len(closed) > max_tokens
        encoded.append(closed[:max_tokens])
    return encoded, truncated


def join_prompts_and_answers(
    prompts: list[list[int]], answers: list[list[int]], pad_id: int, num_truncated: int = 0
) -> TokenBatch:
    """Rows of `prompt + answer`, padded on the right; labels cover the answers."""
    longest = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, answers))
    ids = torch.full((len(prompts), longest), pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, IGNORED)
    for row, (prompt, answer) in enumerate(zip(prompts, answers)):
        start, end = len(prompt), len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer, dtype=torch.long)
        mask[row, :end] = 1
        labels[row, start:end] = ids[row, start:end]
    return TokenBatch(ids, mask, labels, num_truncated)


def pad(rows: list[list[int]], pad_id: int, side: str = "right") -> tuple[torch.Tensor, torch.Tensor]:
    """Ids [N, T] and mask [N, T] of rows of different lengths."""
    longest = max((len(row) for row in rows), default=0)
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        if not row:
            continue
        where = slice(0, len(row)) if side == "right" else slice(longest - len(row), longest)
        ids[index, where] = torch.tensor(row, dtype=torch.long)
        mask[index, where] = 1
    return ids, mask
