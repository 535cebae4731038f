"""Answers of a batch whose tokens are chosen for each question by itself, and reported as they are chosen.

Legend: `N` image-question pairs, `V` vocabulary.

The language model only sees the forced choice, so one batch may mix greedy and sampled answers, lengths and seeds, and
an answer can end while the others continue.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from transformers import LogitsProcessor, StoppingCriteria, TopPLogitsWarper

# Below it, logits divided by the temperature would overflow, and the likeliest token is certain anyway.
LEAST_TEMPERATURE = 1e-5


@dataclass(frozen=True)
class RowSettings:
    """How the tokens of an answer are chosen.

    Attributes:
        max_tokens: of the answer, without its end token.
        temperature: divides the logits before a token is drawn; 0 takes the likeliest token.
        top_p: a token is drawn from the likeliest ones that together have this probability.
        seed: makes the draws repeatable, whatever else is in the batch, up to rounding of the logits.
        num_likeliest: report the log-probability of each token and of this many likeliest ones; None: no
            log-probabilities.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    num_likeliest: int | None = None


@dataclass(frozen=True)
class ChosenToken:
    """A token of an answer.

    Attributes:
        log_probability: natural log, at temperature 1 and before `top_p`; None if it was not asked for.
        likeliest: (token id, log-probability) of the likeliest tokens in this place; impossible ones are left out.
    """

    token_id: int
    log_probability: float | None = None
    likeliest: tuple[tuple[int, float], ...] = ()


class RowWriter(Protocol):
    """Receives an answer."""

    @property
    def settings(self) -> RowSettings: ...

    def add(self, token: ChosenToken) -> bool:
        """Take the next token, which is not an end token; returns whether the answer continues."""
        ...

    def end(self, reason: Literal["stop", "length"]) -> None:
        """The model ended the answer, or it is as long as it may be. Not called if `add` ended it."""
        ...


class RowChoice(LogitsProcessor):
    """Chooses the next token of every answer, reports it, and forces it by the logits that it returns.

    It must be the last processor of logits, with greedy search behind it.
    """

    def __init__(self, writers: Sequence[RowWriter], end_ids: Collection[int]):
        self._writers, self._end_ids = writers, frozenset(end_ids)
        self._has_ended = [False] * len(writers)
        self._num_tokens = 0
        self._generators: dict[int, torch.Generator] = {}
        self.stopping = _Ended(self._has_ended)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        chosen_N = scores.argmax(dim=-1)
        for row in self._running():
            if self._writers[row].settings.temperature >= LEAST_TEMPERATURE:
                chosen_N[row] = self._draw(row, scores[row])
        self._num_tokens += 1
        for row, token in zip(self._running(), chosen_N[self._running()].tolist()):
            self._report(row, token, scores[row])
        forced: Any = torch.full_like(scores, -torch.inf).scatter_(1, chosen_N[:, None], 0.0)
        return forced

    def _running(self) -> list[int]:
        return [row for row, has_ended in enumerate(self._has_ended) if not has_ended]

    def _draw(self, row: int, scores_V: torch.Tensor) -> torch.Tensor:
        settings = self._writers[row].settings
        if row not in self._generators:
            self._generators[row] = torch.Generator(scores_V.device)
            if settings.seed is None:
                self._generators[row].seed()
            else:
                self._generators[row].manual_seed(settings.seed)
        logits_1V: Any = scores_V[None].float() / settings.temperature
        if settings.top_p < 1.0:
            unread: Any = None
            logits_1V = TopPLogitsWarper(settings.top_p)(unread, logits_1V)
        return torch.multinomial(logits_1V.softmax(dim=-1), 1, generator=self._generators[row])[0, 0]

    def _report(self, row: int, token: int, scores_V: torch.Tensor) -> None:
        writer = self._writers[row]
        if token in self._end_ids:
            self._has_ended[row] = True
            writer.end("stop")
            return
        if not writer.add(_chosen(token, scores_V, writer.settings.num_likeliest)):
            self._has_ended[row] = True
        elif self._num_tokens == writer.settings.max_tokens:
            self._has_ended[row] = True
            writer.end("length")


class _Ended(StoppingCriteria):
    """Which answers have ended, for transformers' `generate`."""

    def __init__(self, has_ended: list[bool]):
        self._has_ended = has_ended

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> Any:
        return torch.tensor(self._has_ended, dtype=torch.bool, device=input_ids.device)


def _chosen(token: int, scores_V: torch.Tensor, num_likeliest: int | None) -> ChosenToken:
    if num_likeliest is None:
        return ChosenToken(token)
    log_probs_V = scores_V.float().log_softmax(dim=-1)
    values, ids = log_probs_V.topk(min(num_likeliest, len(log_probs_V)))
    likeliest = [(number, value) for number, value in zip(ids.tolist(), values.tolist()) if value > -torch.inf]
    return ChosenToken(token, float(log_probs_V[token]), tuple(likeliest))
