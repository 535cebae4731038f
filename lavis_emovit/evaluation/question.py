"""One question, as a model gets it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """One question about one image."""

    key: str  # `emotion`, `valence`, `AU12`, `affect`, `units`, `caption`, ...
    text: str
    candidates: tuple[str, ...] = ()  # the answers to choose from; empty if the model writes
    answer_prefix: str = ""  # comes before every candidate; read, not scored
    max_new_tokens: int = 32
    decoding: tuple[tuple[str, float], ...] = ()  # how the model writes, if a prompt decides it
    options: tuple[str, ...] = ()  # of a multiple choice, in their order, without marks
