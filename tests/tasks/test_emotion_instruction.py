"""Properties of the task: the loss of a step is the model's, its notes name instances; LAVIS's own step works with it;
the question for the emotion is scored as the recipe says; metrics carry the number that LAVIS's runners compare."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from lavis.common.registry import registry

from lavis_emovit.emotion.labels import LabelSet
from lavis_emovit.evaluation.benchmark_rows import BenchmarkRows
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.models.protocol import AnswerLoss
from lavis_emovit.tasks.emotion_instruction import EmotionInstructionTask
from lavis_emovit.tasks.settings import EmotionInstructionSettings

LABELS = LabelSet("some", ("awe", "excitement", "fear"))
SAMPLES = {"instance_id": ["b#0", "a#0"]}


class FixedModel:
    def __call__(self, samples: dict) -> dict:
        return {"loss": torch.tensor(2.5)}

    def answer_loss(self, samples: dict, by_pair: bool = False) -> AnswerLoss:
        pair_losses = torch.tensor([2.0, 3.0]) if by_pair else None
        return AnswerLoss(torch.tensor(10.0), 4, {"num_unsupervised": [1]}, pair_losses=pair_losses)

    def num_answer_tokens(self, samples: dict) -> int:
        return 4


def test_the_step_is_the_models_loss_and_lavis_has_its_own() -> None:
    task = EmotionInstructionTask()
    loss = task.step_loss(FixedModel(), SAMPLES)
    assert (loss.loss_sum.item(), loss.weight) == (10.0, task.step_weight(FixedModel(), SAMPLES))
    assert loss.noted == {"num_unsupervised": ["a#0"]}
    assert task.train_step(FixedModel(), SAMPLES).item() == 2.5
    assert registry.get_task_class("emotion_instruction") is EmotionInstructionTask


def test_pairs_have_values_if_their_images_have_numbers() -> None:
    task = EmotionInstructionTask()
    task.needs_pair_values = True
    batch = {**SAMPLES, "record_id": ["a"], "image_index": torch.tensor([0, 0])}
    values = task.step_loss(FixedModel(), {**batch, "number": [7]}).pair_values
    assert values is not None and values.by_sample() == [(7, "a", 2.0, 3.0)]
    # A process without samples runs a blank batch, whose image is not of the data.
    assert task.step_loss(FixedModel(), batch).pair_values is None


@pytest.mark.parametrize(("normalisation", "method"), [("mean", "likelihood"), ("sum", "likelihood_sum")])
def test_the_question_of_a_split(normalisation: str, method: str) -> None:
    task = EmotionInstructionTask(EmotionInstructionSettings(score_normalisation=normalisation, max_len=9))
    settings = task.benchmark("emoset", "test", SimpleNamespace(wording=2))
    assert (settings.kind, settings.split, settings.wordings) == ("emotion", "test", (2,))
    assert (settings.scoring_method, settings.max_new_tokens) == (method, 9)


def test_metrics_are_flat_and_carry_what_lavis_compares() -> None:
    task = EmotionInstructionTask()
    rows = [
        PredictionRow(instance_id=str(n), record_id=str(n), label=label, prediction="awe")
        for n, label in enumerate(["awe", "fear", "awe", "awe"])
    ]
    settings = task.benchmark("emoset", "test", SimpleNamespace(wording=1))
    key = ("", "likelihood")
    metrics = task.metrics(BenchmarkRows("test", settings, LABELS, {key: rows}).measured(key))
    assert metrics["accuracy"] == metrics["agg_metrics"] == 0.75 and metrics["num_samples"] == 4
    assert "classification" not in metrics
    line = task.log_line("emotion", metrics)
    assert line.startswith("accuracy 0.750 (") and "on 4 images; chance 0.333, largest class 0.750" in line
