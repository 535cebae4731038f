"""Properties of the task: scores are normalised as asked for and choose the label; rows name instance, record and
truth; LAVIS's own way of setting up, training and evaluating a task works with it; metrics carry `agg_metrics`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lavis.common.registry import registry

from lavis_emovit.errors import DataError
from lavis_emovit.models.protocol import AnswerLoss
from lavis_emovit.tasks.emotion_instruction import EmotionInstructionTask
from lavis_emovit.tasks.settings import EmotionInstructionSettings

LABELS = ("awe", "excitement", "fear")
# Log-likelihoods of the whole label for two questions, and tokens a label. The sum prefers the short label, the mean
# the long one: -2/1, -4/4 and -6/2.
SCORES_NC = torch.tensor([[-2.0, -4.0, -6.0], [-9.0, -30.0, -2.0]])
LENGTHS_C = torch.tensor([1.0, 4.0, 2.0])


class FixedModel:
    """Scores as above; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.prepared_for: Any = None

    def before_evaluation(self, **kwargs: Any) -> None:
        self.prepared_for = kwargs["task_type"]

    def __call__(self, samples: dict) -> dict:
        return {"loss": torch.tensor(2.5)}

    def answer_loss(self, samples: dict) -> AnswerLoss:
        return AnswerLoss(torch.tensor(10.0), 4)

    def score_candidates(self, samples: dict, candidates: list[str], answer_prefix: str) -> torch.Tensor:
        self.asked.append((candidates, answer_prefix))
        return SCORES_NC

    def candidate_lengths(self, candidates: list[str], answer_prefix: str) -> torch.Tensor:
        assert answer_prefix == self.asked[-1][1]
        return LENGTHS_C

    def generate(self, samples: dict, **options: Any) -> list[str]:
        return [str(sorted(options.items()))] * 2


SAMPLES = {
    "image": torch.zeros(2, 3, 4, 4),
    "image_index": torch.tensor([1, 0]),
    "text_input": ["?", "?"],
    "instance_id": ["b#0", "a#0"],
    "label": ["excitement", None],
    "record_id": ["a", "b"],
}
DATASET = SimpleNamespace(label_set=SimpleNamespace(labels=LABELS))


def make_task(**settings: Any) -> EmotionInstructionTask:
    task = EmotionInstructionTask(EmotionInstructionSettings(**settings))
    task.before_evaluation(model=FixedModel(), dataset=DATASET)
    return task


@pytest.mark.parametrize(
    ("normalisation", "predictions", "first_scores"),
    [("mean", ["excitement", "fear"], [-2.0, -1.0, -3.0]), ("sum", ["awe", "fear"], [-2.0, -4.0, -6.0])],
)
def test_scores_choose_the_label(normalisation: str, predictions: list[str], first_scores: list[float]) -> None:
    task, model = make_task(score_normalisation=normalisation), FixedModel()
    rows = task.valid_step(model, SAMPLES)
    assert [row.prediction for row in rows] == predictions
    assert rows[0].scores == pytest.approx(dict(zip(LABELS, first_scores)))
    assert model.asked == [(list(LABELS), "Predict emotion: ")]


def test_rows_name_instance_record_and_truth() -> None:
    rows = make_task().valid_step(FixedModel(), SAMPLES)
    assert [(row.instance_id, row.record_id, row.label) for row in rows] == [
        ("b#0", "b", "excitement"),
        ("a#0", "a", None),
    ]


def test_evaluation_needs_labels() -> None:
    with pytest.raises(DataError, match="before_evaluation"):
        EmotionInstructionTask().valid_step(FixedModel(), SAMPLES)


def test_losses_as_sum_and_as_lavis_has_it() -> None:
    task = EmotionInstructionTask()
    loss = task.step_loss(FixedModel(), SAMPLES)
    assert (loss.loss_sum.item(), loss.weight) == (10.0, 4)
    assert task.train_step(FixedModel(), SAMPLES).item() == 2.5


def test_metrics_carry_what_lavis_runners_go_by() -> None:
    task = make_task()
    rows = task.valid_step(FixedModel(), {**SAMPLES, "label": ["excitement", "awe"]})
    metrics = task.after_evaluation(val_result=rows, split_name="val", epoch=0)
    assert metrics["accuracy"] == metrics["agg_metrics"] == 0.5
    assert metrics["num_samples"] == 2


def test_lavis_evaluation_loop_works(capsys: pytest.CaptureFixture[str]) -> None:
    rows = make_task().evaluation(FixedModel(), [SAMPLES, {**SAMPLES, "instance_id": ["d", "c"]}], cuda_enabled=False)
    assert [row.instance_id for row in rows] == ["b#0", "a#0", "d", "c"]


def test_generation_settings_reach_the_model() -> None:
    answers = make_task(max_len=9, min_len=2, num_beams=3).generate_answers(FixedModel(), SAMPLES)
    assert answers[0] == "[('max_length', 9), ('min_length', 2), ('num_beams', 3)]"


def test_registered_under_its_name_and_tells_the_model_before_evaluation() -> None:
    assert registry.get_task_class("emotion_instruction") is EmotionInstructionTask
    model = FixedModel()
    EmotionInstructionTask().before_evaluation(model=model, dataset=DATASET)
    assert model.prepared_for is EmotionInstructionTask
