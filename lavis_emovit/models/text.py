"""From strings to token ids, in the order in which InstructBLIP reads them.

Legend: `N` image-question pairs, `Q` query tokens, `T` text tokens.

The language model reads `[Q query tokens][question][answer][end]`: no padding between question and answer. The loss
counts answer tokens only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

IGNORED = -100


@dataclass(frozen=True)
class TokenBatch:
    """Token ids of N texts padded on the right, with the mask of real tokens and the labels of supervised ones."""

    input_ids: torch.Tensor  # long [N, T]
    attention_mask: torch.Tensor  # long [N, T]
    labels: torch.Tensor  # long [N, T], IGNORED at unsupervised positions


def read_questions(batch: Mapping[str, Any], default: str, num_images: int) -> list[str]:
    """The questions of a batch: `prompt`, else `text_input`, else `default`; a single string counts for all pairs."""
    if not default and not {"prompt", "text_input"} & batch.keys():
        keys = ", ".join(map(repr, batch))
        raise ValueError(f"no question: samples have {keys}; add 'prompt' or 'text_input', or set model.prompt")
    given = batch.get("prompt", batch.get("text_input", default))
    if isinstance(given, str):
        index = batch.get("image_index")
        given = [given] * (len(index) if index is not None else num_images)
    if not isinstance(given, (list, tuple)) or not all(isinstance(question, str) for question in given):
        raise ValueError(f"questions should be a string or a list of N strings, not {given!r}")
    if not given:
        raise ValueError("no question: samples need 'prompt' or 'text_input', a string or a list of N strings")
    return list(given)


def read_answers(batch: Mapping[str, Any], num_questions: int) -> list[str]:
    """The answers of a batch; ValueError unless there is one for each question."""
    answers = batch.get("text_output")
    if isinstance(answers, str) or answers is None:
        raise ValueError("samples need 'text_output', a list of N answers")
    if len(answers) != num_questions:
        raise ValueError(f"{len(answers)} answers for {num_questions} questions")
    return list(answers)


def read_image_index(batch: Mapping[str, Any], num_images: int, num_questions: int) -> torch.Tensor:
    """The image of each question, long [N]; by default one question per image. ValueError for invalid ones."""
    index = batch.get("image_index")
    index = torch.arange(num_images) if index is None else torch.as_tensor(index)
    if len(index) != num_questions:
        raise ValueError(f"{num_questions} questions for {len(index)} image indices")
    if index.dim() != 1 or index.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"image_index has shape {list(index.shape)} and type {index.dtype}, expected long [N]")
    numbers = index.tolist()
    if min(numbers) < 0 or max(numbers) >= num_images:
        raise ValueError(f"image_index goes from {min(numbers)} to {max(numbers)}, images from 0 to {num_images - 1}")
    return index


def encode_prompts(tokenizer: Any, prompts: list[str], max_tokens: int | None, is_seq2seq: bool) -> list[list[int]]:
    """Ids of the questions, at most `max_tokens` each (None: no limit); a longer one loses its beginning, as in
    InstructBLIP's training.

    A decoder-only model reads the begin token first. It is added here, because versions of tokenizers differ in whether
    they add it. An encoder reads what its tokenizer returns, with the end token.
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


def encode_answers(tokenizer: Any, answers: list[str], max_tokens: int) -> list[list[int]]:
    """Ids of the answers with the end token, cut to `max_tokens`; a cut answer has no end token."""
    rows = tokenizer(answers, add_special_tokens=False)["input_ids"]
    return [[*row, tokenizer.eos_token_id][:max_tokens] for row in rows]


def join_prompts_and_answers(prompts: list[list[int]], answers: list[list[int]], pad_id: int) -> TokenBatch:
    """Rows of `prompt + answer`, padded on the right; labels cover the answers."""
    ids, mask = pad([prompt + answer for prompt, answer in zip(prompts, answers)], pad_id)
    labels = torch.full_like(ids, IGNORED)
    for row, (prompt, answer) in enumerate(zip(prompts, answers)):
        supervised = slice(len(prompt), len(prompt) + len(answer))
        labels[row, supervised] = ids[row, supervised]
    return TokenBatch(ids, mask, labels)


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
