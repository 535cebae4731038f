"""What a model has to offer to be evaluated: one of two small protocols.

A *language model* looks at pictures and answers questions about them. A *baseline* learns from records with pictures
and predicts directly; it reads no question.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from lavis_emovit.emotion.labels import LabelSet
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings, Kind, Method, Truth
from lavis_emovit.evaluation.questions import Question
from lavis_emovit.records import EmotionRecord


@dataclass(frozen=True)
class Item:
    """A record of a benchmark with the bytes of its picture."""

    record: EmotionRecord
    image_bytes: bytes
    truth: Truth


@dataclass(frozen=True)
class Failure:
    """In the place of an answer: why there is none. It is counted as an error, not as a wrong answer."""

    reason: str


@runtime_checkable
class LanguageModel(Protocol):
    """A model that answers questions about pictures.

    Attributes:
        methods: the methods of asking that it knows.
        pictures_at_once: least pictures of a batch that it is quick with; 0 leaves that to the suite.
    """

    methods: frozenset[Method]

    @property
    def pictures_at_once(self) -> int:
        """See the class."""
        ...

    def identity(self) -> dict[str, Any]:
        """What decides its answers: names and hashes of weights, settings. Plain values."""
        ...

    def prepare(self, image_bytes: bytes) -> Any:
        """A picture as `score` and `write` take it; called in loader processes.

        Raises:
            DataError: the picture cannot be decoded.
        """
        ...

    def score(
        self, pictures: Sequence[Any], image_index: Sequence[int], questions: Sequence[Question], method: Method
    ) -> list[list[float]]:
        """Log-scores of each question's candidates.

        Args:
            pictures: B prepared pictures.
            image_index: the picture of each of the N questions.
            questions: N questions with the same candidates and the same answer prefix.
            method: how a candidate's score is made of its tokens' log-probabilities.

        Returns:
            N lists of one number a candidate.
        """
        ...

    def write(
        self, pictures: Sequence[Any], image_index: Sequence[int], questions: Sequence[Question]
    ) -> list[str | Failure]:
        """Answers in words, one for each of N questions with the same `max_new_tokens`."""
        ...


@runtime_checkable
class Baseline(Protocol):
    """A model that learns from records and predicts a benchmark's truth directly.

    Attributes:
        kinds: the kinds of benchmarks that it can predict.
        learns: whether it needs a training split.
    """

    kinds: frozenset[Kind]
    learns: bool

    def identity(self) -> dict[str, Any]:
        """What decides its predictions. Plain values."""
        ...

    def fit(self, items: Iterable[Item], benchmark: BenchmarkSettings, label_set: LabelSet | None) -> None:
        """Learn from the training split; `items` is empty for a baseline that does not learn.

        Raises:
            DataError: there is nothing to learn from.
        """
        ...

    def predict(self, items: Sequence[Item]) -> list[dict[str, float]]:
        """For each item: label -> log-probability, or name -> value, see `Truth`."""
        ...
