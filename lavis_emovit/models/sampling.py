"""What reinforcement learning asks of a model: sampled answers, and the log-probability of each of their tokens.

Legend: `N` image-question pairs, `G` answers to each of them, `M` answers, `T` tokens of the longest answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from lavis_emovit.models.protocol import Batch


class Sampling(ABC):
    """Sampled answers for a model with a language model of transformers; families implement the last methods."""

    @torch.no_grad()
    def sample_answers(
        self,
        samples: Batch,
        num_answers: int,
        *,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
    ) -> list[list[int]]:
        """G answers to each question, drawn from the model's own distribution: `model.generation` does not count.

        An image is encoded once for all answers, and so is a question where the family allows it. Mode and random state
        are those of the caller.

        Args:
            samples: as for `generate`.
            num_answers: G.
            top_p, top_k: of each token; 1 and 0 for the whole vocabulary.

        Returns:
            N * G rows of token ids, those of a question next to each other, with the end token unless an answer was cut
            at `max_new_tokens`.
        """
        options = {
            "do_sample": True,
            "num_beams": 1,
            "num_return_sequences": num_answers,
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "repetition_penalty": 1.0,
            "suppress_tokens": self._unwritten_ids() or None,
        }
        generated = self._generate_ids(samples, self._questions(samples), options).tolist()
        ends, rows = set(self._end_ids()), [self._written_part(row) for row in generated]
        return [row[: next((step + 1 for step, token in enumerate(row) if token in ends), len(row))] for row in rows]

    @abstractmethod
    def written_log_probs(
        self, samples: Batch, answers: Sequence[list[int]], question_index: Sequence[int], temperature: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability of each token of given answers, and the entropy of the distribution that it was drawn from.

        Args:
            samples: as for `generate`; questions are not cut, as there.
            answers: M rows of token ids, none of them empty.
            question_index: the question of each answer.
            temperature: divides the logits.

        Returns:
            both float32 [M, T], natural log, 0 behind an answer; the log-probabilities have gradients.
        """

    def _unwritten_ids(self) -> list[int]:
        """Tokens that no answer may contain, because they stand for an image."""
        return []

    @abstractmethod
    def _questions(self, samples: Batch) -> list[str]: ...

    @abstractmethod
    def _generate_ids(self, samples: Batch, questions: list[str], options: dict[str, Any]) -> torch.Tensor: ...

    @abstractmethod
    def _end_ids(self) -> list[int]: ...

    @abstractmethod
    def _written_part(self, row: list[int]) -> list[int]:
        """A generated row without what precedes the answer."""


def padded_rows(values_S: torch.Tensor, lengths: Sequence[int], longest: int | None = None) -> torch.Tensor:
    """Values of all tokens, one answer after the other, as rows [M, T] with zeros at the end; T is `longest`."""
    rows_MT = pad_sequence(list(values_S.split(list(lengths))), batch_first=True)
    return rows_MT if longest is None else F.pad(rows_MT, (0, longest - rows_MT.shape[1]))
