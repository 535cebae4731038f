"""Streaming of generated text."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from transformers import StoppingCriteria, TextIteratorStreamer


class _AnswerStreamer(TextIteratorStreamer):
    """Pieces of an answer, without the tokens that end it."""

    def __init__(self, tokenizer: Any, end_ids: Collection[int]):
        # transformers first passes the tokens that generation starts from: none, or a decoder's start token.
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.end_ids = frozenset(end_ids)

    def put(self, value: torch.Tensor) -> None:
        if value.numel() != 1 or int(value) not in self.end_ids or self.next_tokens_are_prompt:
            super().put(value)


class _Stopped(StoppingCriteria):
    """Ends generation when the reader has stopped."""

    def __init__(self, event: threading.Event):
        self.event = event

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self.event.is_set(), dtype=torch.bool, device=input_ids.device)


def stream_text(generate: Callable[..., object], tokenizer: Any, end_ids: Collection[int]) -> Iterator[str]:
    """Run a generation in a separate thread and yield its text in pieces, without whitespace at its ends.

    `generate` gets `streamer` and `stopping_criteria` of transformers' `generate`. Closing the iterator stops the
    generation; its errors are raised here.
    """
    streamer = _AnswerStreamer(tokenizer, end_ids)
    stop = threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            generate(streamer=streamer, stopping_criteria=[_Stopped(stop)])
        except BaseException as error:  # raised again in the reader
            errors.append(error)
            streamer.on_finalized_text("", stream_end=True)

    worker = threading.Thread(target=work, name="emovit-generation", daemon=True)
    worker.start()
    try:
        yield from _stripped(streamer)
    finally:
        stop.set()
        worker.join()
    if errors:
        raise errors[0]


def _stripped(pieces: Iterator[str]) -> Iterator[str]:
    """The pieces without whitespace at the beginning and the end of the whole text."""
    held, begun = "", False
    for piece in pieces:
        text = held + piece if begun else piece.lstrip()
        kept = text.rstrip()
        held = text[len(kept) :]
        if kept:
            begun = True
            yield kept
