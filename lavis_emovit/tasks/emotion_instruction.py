"""Emotion visual instruction tuning: the loss of the answers' tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lavis.common.registry import registry

from lavis_emovit.emotion.questions import CATEGORICAL_ANSWER_PREFIX
from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics import classification_metrics
from lavis_emovit.evaluation.metrics.classification import ClassificationMetrics
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.models.protocol import Batch, EmotionModel
from lavis_emovit.tasks.base import EmotionTask, StepLoss
from lavis_emovit.tasks.settings import EmotionInstructionSettings, TaskSettings


@registry.register_task("emotion_instruction")
class EmotionInstructionTask(EmotionTask):
    """Trains on question-answer pairs about images; evaluates the question for the emotion by candidate likelihood."""

    settings_class = EmotionInstructionSettings
    settings: EmotionInstructionSettings

    def __init__(self, settings: TaskSettings | None = None):
        super().__init__(settings)
        self.labels: tuple[str, ...] = ()

    def step_weight(self, model: EmotionModel, batch: Batch) -> int:
        """Answer tokens of a batch."""
        return model.num_answer_tokens(batch)

    def step_loss(self, model: EmotionModel, batch: Batch) -> StepLoss:
        """Cross-entropy summed over the answers' tokens (natural log)."""
        loss = model.answer_loss(batch)
        noted = {name: [batch["instance_id"][pair] for pair in pairs] for name, pairs in loss.noted.items()}
        return StepLoss(loss.loss_sum, loss.num_tokens, noted, loss.sizes)

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
        if self.settings.score_normalisation == "mean":
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
        answers = self.settings
        return model.generate(
            samples, num_beams=answers.num_beams, max_length=answers.max_len, min_length=answers.min_len
        )

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
