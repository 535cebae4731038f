"""Emotion visual instruction tuning: the loss of the answers' tokens, and the question for the emotion."""

from __future__ import annotations

from lavis.common.registry import registry

from lavis_emovit.datasets.eval_dataset import EvaluatedSamples
from lavis_emovit.evaluation.benchmarks import RunBenchmarkSettings
from lavis_emovit.models.protocol import Batch, EmotionModel
from lavis_emovit.tasks.base import EmotionTask, StepLoss
from lavis_emovit.tasks.settings import EmotionInstructionSettings


@registry.register_task("emotion_instruction")
class EmotionInstructionTask(EmotionTask):
    """Trains on question-answer pairs about images; evaluates the question for the emotion by candidate likelihood."""

    settings_class = EmotionInstructionSettings
    settings: EmotionInstructionSettings

    def step_weight(self, model: EmotionModel, batch: Batch) -> int:
        return model.num_answer_tokens(batch)

    def step_loss(self, model: EmotionModel, batch: Batch) -> StepLoss:
        """Cross-entropy summed over the answers' tokens (natural log)."""
        loss = model.answer_loss(batch)
        noted = {name: [batch["instance_id"][pair] for pair in pairs] for name, pairs in loss.noted.items()}
        return StepLoss(loss.loss_sum, loss.num_tokens, noted, loss.sizes)

    def benchmark(self, dataset: str, split: str, samples: EvaluatedSamples) -> RunBenchmarkSettings:
        """The question for the emotion, in the wording of the dataset; the likeliest label is the answer."""
        return RunBenchmarkSettings(
            dataset=dataset,
            split=split,
            wordings=(samples.wording,),
            method="likelihood" if self.settings.score_normalisation == "mean" else "likelihood_sum",
            max_new_tokens=self.settings.max_len,
        )
