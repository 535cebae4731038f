"""Emotion visual instruction tuning as a LAVIS task: the loss of answers, the choice of an emotion by likelihood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lavis.common.registry import registry
from lavis.tasks.base_task import BaseTask

from lavis_emovit.emotion.questions import CATEGORICAL_ANSWER_PREFIX
from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics import ClassificationMetrics, classification_metrics
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.models.lengths import PassSizes
from lavis_emovit.models.protocol import EmotionModel


@dataclass(frozen=True)
class TokenLoss:
    """The loss of a batch as a sum and its weight, so that batches can be joined without a mean of means.

    Attributes:
        loss_sum: scalar tensor, summed over answer tokens (natural log).
        num_tokens: answer tokens.
        noted: name of a count -> instance ids of the pairs that it counts, such as `num_truncated_answers`.
        sizes: what the forward pass ran over, or None if the model does not measure it.
    """

    loss_sum: torch.Tensor
    num_tokens: int
    noted: dict[str, list[str]] = field(default_factory=dict)
    sizes: PassSizes | None = None


@registry.register_task("emotion_instruction")
class EmotionInstructionTask(BaseTask):
    """Trains on question-answer pairs about images; evaluates the question for the emotion by candidate likelihood.

    Args:
        score_normalisation: `mean` divides a label's log-likelihood by its tokens, so that long labels are not at a
            disadvantage; `sum` does not.
        max_len, min_len, num_beams: of generated answers.
    """

    def __init__(self, score_normalisation: str = "mean", max_len: int = 30, min_len: int = 1, num_beams: int = 1):
        super().__init__()
        self.score_normalisation = score_normalisation
        self.max_len, self.min_len, self.num_beams = max_len, min_len, num_beams
        self.labels: tuple[str, ...] = ()

    @classmethod
    def setup_task(cls, cfg: Any = None, **kwargs: Any) -> EmotionInstructionTask:
        """LAVIS's way of making a task from a config with `run_cfg`."""
        names = ("score_normalisation", "max_len", "min_len", "num_beams")
        return cls(**{name: cfg.run_cfg[name] for name in names if name in cfg.run_cfg})

    def token_loss(self, model: EmotionModel, samples: Mapping[str, Any]) -> TokenLoss:
        """Summed loss of a batch, the number of its answer tokens, and the pairs whose texts are worth a word."""
        loss = model.answer_loss(samples)
        noted = {name: [samples["instance_id"][pair] for pair in pairs] for name, pairs in loss.noted.items()}
        return TokenLoss(loss.loss_sum, loss.num_tokens, noted, loss.sizes)

    def num_tokens(self, model: Any, samples: Mapping[str, Any]) -> int:
        """Answer tokens of a batch, as `token_loss` counts them, before any forward pass."""
        return model.num_answer_tokens(samples)

    def before_evaluation(self, model: Any, dataset: Any, **kwargs: Any) -> None:
        """Take the labels to choose from out of the dataset."""
        super().before_evaluation(model=model, dataset=dataset, **kwargs)
        self.labels = tuple(dataset.label_set.labels)

    @torch.no_grad()
    def valid_step(self, model: Any, samples: Mapping[str, Any]) -> list[PredictionRow]:
        """One row for each question: the likeliest label and the score of every label."""
        if not self.labels:
            raise DataError("no labels to choose from; call before_evaluation with the dataset first")
        labels = list(self.labels)
        scores_NC = model.score_candidates(samples, labels, answer_prefix=CATEGORICAL_ANSWER_PREFIX).float().cpu()
        if self.score_normalisation == "mean":
            scores_NC = scores_NC / model.candidate_lengths(labels, answer_prefix=CATEGORICAL_ANSWER_PREFIX).cpu()
        best_N = scores_NC.argmax(dim=1).tolist()
        return [
            PredictionRow(
                instance_id=instance_id,
                record_id=record_id,
                label=label,
                prediction=labels[best],
                scores=dict(zip(labels, scores)),
            )
            for instance_id, record_id, label, best, scores in zip(
                samples["instance_id"], _record_ids(samples), samples["label"], best_N, scores_NC.tolist()
            )
        ]

    @torch.no_grad()
    def generate_answers(self, model: Any, samples: Mapping[str, Any]) -> list[str]:
        """Answers in words to the questions of a batch, for people to read."""
        return model.generate(samples, num_beams=self.num_beams, max_length=self.max_len, min_length=self.min_len)

    def after_evaluation(
        self, val_result: Sequence[PredictionRow], split_name: str, epoch: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Metrics of a split as plain values; `agg_metrics`, which LAVIS's runners go by, is the accuracy."""
        metrics = self.metrics(val_result).model_dump(mode="json")
        return {**metrics, "agg_metrics": metrics["accuracy"]}

    def metrics(self, rows: Sequence[PredictionRow]) -> ClassificationMetrics:
        """All classification metrics of the rows of a split."""
        return classification_metrics(rows, self.labels)


def _record_ids(samples: Mapping[str, Any]) -> list[str]:
    """The record of each question; batches name the records of their images."""
    index = samples.get("image_index")
    record_ids = samples["record_id"]
    return list(record_ids) if index is None else [record_ids[int(image)] for image in index]
