"""Emotion visual instruction tuning: the loss of the answers' tokens, and the question for the emotion."""

from __future__ import annotations

from lavis.common.registry import registry

from lavis_emovit.datasets.eval_dataset import EvaluatedSamples
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

    def step_weight(self, model: EmotionModel, batch: Batch) -> int:
        return model.num_answer_tokens(batch)

    def step_loss(self, model: EmotionModel, batch: Batch) -> StepLoss:
        """Cross-entropy summed over the answers' tokens (natural log)."""
        # Models of other packages may not have the argument.
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
