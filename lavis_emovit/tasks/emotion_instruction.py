"""Emotion visual instruction tuning: the loss of the answers' tokens, and the question for the emotion."""

from __future__ import annotations

from inspect import signature
from typing import Any

from lavis.common.registry import registry

from lavis_emovit.datasets.eval_dataset import EvaluatedSamples
from lavis_emovit.errors import UserError
from lavis_emovit.evaluation.benchmarks import RunBenchmarkSettings
from lavis_emovit.models.protocol import Batch, EmotionModel
from lavis_emovit.tasks.base import EmotionTask, PairValues, StepLoss
from lavis_emovit.tasks.settings import EmotionInstructionSettings


@registry.register_task("emotion_instruction")
class EmotionInstructionTask(EmotionTask):
    """Trains on question-answer pairs about images; evaluates the question for the emotion by candidate likelihood."""

    settings_class = EmotionInstructionSettings
    settings: EmotionInstructionSettings
    pair_value = "loss"

    def begin(self, model: EmotionModel, dataset: Any) -> None:
        """UserError if the run needs the losses of single pairs, and a model of another package has none."""
        if self.needs_pair_values and "by_pair" not in signature(model.answer_loss).parameters:
            raise UserError(
                f"run.drop_samples: `answer_loss` of {type(model).__name__} has no argument `by_pair` for the losses "
                "of single pairs; add it, as in EmotionModel (lavis_emovit/models/protocol.py), or remove the setting"
            )

    def step_weight(self, model: EmotionModel, batch: Batch) -> int:
        return model.num_answer_tokens(batch)

    def step_loss(self, model: EmotionModel, batch: Batch) -> StepLoss:
        """Cross-entropy summed over the answers' tokens (natural log)."""
        # Models of other packages may not have the argument, see `begin`.
        loss = model.answer_loss(batch, by_pair=True) if self.needs_pair_values else model.answer_loss(batch)
        noted = {name: [batch["instance_id"][pair] for pair in pairs] for name, pairs in loss.noted.items()}
        values = None
        # Only images of the training data have a number; a blank batch has none.
        if loss.pair_losses is not None and "number" in batch:
            values = PairValues(batch["number"], batch["record_id"], batch["image_index"], loss.pair_losses)
        return StepLoss(loss.loss_sum, loss.num_tokens, noted, loss.sizes, pair_values=values)

    def benchmark(self, dataset: str, split: str, samples: EvaluatedSamples) -> RunBenchmarkSettings:
        """The question for the emotion, in the wording of the dataset; the likeliest label is the answer."""
        return RunBenchmarkSettings(
            dataset=dataset,
            split=split,
            wordings=(samples.wording,),
            method="likelihood" if self.settings.score_normalisation == "mean" else "likelihood_sum",
            max_new_tokens=self.settings.max_len,
        )
