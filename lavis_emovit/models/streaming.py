"""Text as it is generated, piece by piece."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from transformers import StoppingCriteria, TextIteratorStreamer


class _AnswerStreamer(TextIteratorStreamer):
    """Pieces of an answer; what counts as its end is no text."""

    def __init__(self, tokenizer: Any, end_ids: Collection[int]):
        # transformers puts in first what generation starts from: nothing, or a decoder's start token.
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.end_ids = frozenset(end_ids)

    def put(self, value: torch.Tensor) -> None:
        if value.numel() != 1 or int(value) not in self.end_ids or self.next_tokens_are_prompt:
            super().put(value)


class _Stopped(StoppingCriteria):
    """Ends generation once nobody listens any more."""

    def __init__(self, event: threading.Event):
        self.event = event

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self.event.is_set(), dtype=torch.bool, device=input_ids.device)


def stream_text(generate: Callable[..., object], tokenizer: Any, end_ids: Collection[int]) -> Iterator[str]:
    """Run a generation in a thread of its own and hand its text on as it comes.

    The pieces joined are the answer, without blanks at its ends. Closing the iterator stops the generation; an error
    in it is raised here.

    Args:
        generate: takes `streamer` and `stopping_criteria` of transformers' `generate`.
        tokenizer: makes text of tokens.
        end_ids: tokens that end an answer.
    """
    streamer = _AnswerStreamer(tokenizer, end_ids)
    stop = threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            generate(streamer=streamer, stopping_criteria=[_Stopped(stop)])
        except BaseException as error:  # whatever it is, it belongs to the thread that reads
            errors.append(error)
            streamer.on_finalized_text("", stream_end=True)

    worker = threading.Thread(target=work, name="emovit-generation", daemon=True)
    worker.start()
    try:
        yield from _without_outer_blanks(streamer)
    finally:
        stop.set()
        worker.join()
    if errors:
        raise errors[0]


def _without_outer_blanks(pieces: Iterator[str]) -> Iterator[str]:
    """Blanks wait until something follows them."""
    held = ""
    begun = False
    for piece in pieces:
        text = held + piece if begun else (held + piece).lstrip()
        kept = text.rstrip()
        held = text[len(kept) :]
        if kept:
            begun = True
            yield kept
