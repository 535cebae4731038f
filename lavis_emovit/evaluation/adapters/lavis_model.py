"""Models of this plugin: scores of candidates over a shared pass, answers in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from lavis_emovit.evaluation.adapters.base import Failure
from lavis_emovit.evaluation.benchmarks import Method
from lavis_emovit.evaluation.questions import Question
from lavis_emovit.images import decode_image

NORMALIZE = {"likelihood": "mean", "likelihood_sum": "sum", "likelihood_calibrated": "calibrated"}


class LavisModel:
    """See `lavis_emovit.evaluation.adapters.base.LanguageModel`.

    Args:
        model: an EmoVIT model, on its device.
        image_processor: called on a decoded picture.
        text_processor: called on every question, as in training.
        identity: what decides its answers.
        autocast: context of forward passes.
    """

    methods: frozenset[Method] = frozenset({"likelihood", "likelihood_sum", "likelihood_calibrated", "generation"})
    pictures_at_once = 0

    def __init__(
        self,
        model: Any,
        image_processor: Any,
        text_processor: Any,
        identity: Mapping[str, Any],
        autocast: Callable[[], AbstractContextManager[Any]],
    ):
        self._model = model.eval()
        self._image_processor, self._text_processor = image_processor, text_processor
        self._identity, self._autocast = dict(identity), autocast

    def identity(self) -> dict[str, Any]:
        """Architecture, weights and settings."""
        return dict(self._identity)

    def prepare(self, image_bytes: bytes) -> torch.Tensor:
        """A normalised picture, float32 [3, H, W]."""
        image = decode_image(image_bytes, min_side_px=self._image_processor.min_side_px)
        return self._image_processor(image)

    def score(
        self,
        pictures: Sequence[torch.Tensor],
        image_index: Sequence[int],
        questions: Sequence[Question],
        method: Method,
    ) -> list[list[float]]:
        """See `LanguageModel.score`."""
        first = questions[0]
        with torch.inference_mode(), self._autocast():
            scores_NC = self._model.score_candidates(
                self._samples(pictures, image_index, questions),
                list(first.candidates),
                answer_prefix=first.answer_prefix,
                normalize=NORMALIZE[method],
            )
        return scores_NC.float().cpu().tolist()

    def write(
        self, pictures: Sequence[torch.Tensor], image_index: Sequence[int], questions: Sequence[Question]
    ) -> list[str | Failure]:
        """See `LanguageModel.write`; greedy."""
        with torch.inference_mode(), self._autocast():
            return self._model.generate(
                self._samples(pictures, image_index, questions),
                num_beams=1,
                max_length=questions[0].max_new_tokens,
                min_length=1,
            )

    def _samples(
        self, pictures: Sequence[torch.Tensor], image_index: Sequence[int], questions: Sequence[Question]
    ) -> dict[str, Any]:
        device = next(self._model.parameters()).device
        return {
            "image": self._image_processor.stack(pictures).to(device),
            "image_index": torch.tensor(list(image_index), dtype=torch.long, device=device),
            "prompt": [self._text_processor(question.text) for question in questions],
        }
