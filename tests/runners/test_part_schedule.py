"""Properties of learning rates by part and of stages: the rate of each part at each step equals values computed by
hand, each stage with a schedule of its own; the average of a part that starts late forgets its first weights as quickly
as that of the others; the patience counts in the last stage only; all that is wrong is reported before any weight."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lavis_emovit.checkpoints.training_state import Best, Position
from lavis_emovit.errors import ConfigError
from lavis_emovit.runners.config import Config
from lavis_emovit.runners.ema import WeightAverage
from lavis_emovit.runners.plan import Plan
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.settings import parse_settings

# Two epochs of 5 steps, then one: a warm-up of two steps, then a cosine down to a tenth.
STAGES = [
    {"epochs": 2, "parts": {"projector": 1e-3}},
    {"epochs": 1, "parts": {"projector": 2e-5, "language_model": 2e-4}, "warmup_steps": 1},
]
RUN = {
    "output_dir": "out", "max_epoch": 3, "global_batch_size": 1, "init_lr": 1e-4, "min_lr": 1e-5, "warmup_lr": 0.0,
    "warmup_steps": 2,
}  # fmt: skip


def plan(**changes: Any) -> Plan:
    return Plan(RunSettings(**{**RUN, **changes}), 5)


def cosine(done: float) -> float:
    """The schedule's share of its highest rate."""
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, {"projector": 0.0}),
        (1, {"projector": 0.5e-3}),
        (2, {"projector": 1e-3}),
        (6, {"projector": 1e-3 * cosine(4 / 8)}),
        (9, {"projector": 1e-3 * cosine(7 / 8)}),
        (10, {"projector": 0.0, "language_model": 0.0}),
        (11, {"projector": 2e-5, "language_model": 2e-4}),
        (13, {"projector": 2e-5 * cosine(2 / 4), "language_model": 2e-4 * cosine(2 / 4)}),
    ],
)
def test_each_stage_has_a_schedule_of_its_own(step: int, expected: dict[str, float]) -> None:
    rates = plan(stages=STAGES).rates(step)
    assert rates.others is None and rates.parts == pytest.approx(expected, rel=1e-12)
    assert rates.highest == max(rates.parts.values())
    shown = {"lr.projector": expected["projector"], "lr.language_model": expected.get("language_model", 0.0)}
    assert rates.fields(["projector", "language_model"]) == pytest.approx(shown, rel=1e-12)


def test_a_run_that_ends_early_ends_the_schedule_of_its_last_stage() -> None:
    assert plan(stages=STAGES, max_steps=13).rates(12).parts["projector"] == pytest.approx(2e-5 * cosine(1 / 2))
    plan(stages=STAGES, max_steps=11).check()
    with pytest.raises(ConfigError, match=r"run\.max_steps: 10 steps .* after step 10 \(5 steps are an epoch\)"):
        plan(stages=STAGES, max_steps=10).check()


def test_rates_by_part_follow_the_schedule_of_the_run() -> None:
    rates = plan(part_lr={"projector": 5e-4}).rates(6)
    assert rates.others == pytest.approx(1e-4 * cosine(4 / 13), rel=1e-12)
    assert rates.of("projector") == pytest.approx(5e-4 * cosine(4 / 13), rel=1e-12)
    assert rates.of("language_model") == rates.others
    assert plan().rates(6).of("anything") == rates.others, "without rates by part"


def test_the_step_schedule_begins_anew_in_each_stage() -> None:
    stepped = plan(stages=STAGES, lr_sched="linear_warmup_step_lr", lr_step_decay=0.5, min_lr=0.0)
    assert [stepped.rates(step).parts["projector"] for step in (4, 5, 11)] == pytest.approx([1e-3, 5e-4, 2e-5])


def test_patience_counts_validations_of_the_last_stage() -> None:
    patient = plan(stages=STAGES, early_stop_patience=2, eval_every_steps=1, valid_splits=["val"])
    best = Best(2, "accuracy", 0.9)
    stopped = [step for step in range(3, 15) if patient.is_stopped_early(Position(step, 0, 1, best))]
    assert stopped == [12, 13, 14]
    single = plan(early_stop_patience=2, eval_every_steps=1, valid_splits=["val"])
    assert single.is_stopped_early(Position(4, 0, 1, best))


def test_the_average_of_a_part_that_starts_late_is_that_of_one_that_starts_with_the_run() -> None:
    first = plan(stages=STAGES).first_step
    assert (first("projector"), first("language_model"), plan().first_step("projector")) == (0, 10, 0)
    late, early = torch.tensor([4.0]), torch.tensor([4.0])
    average = WeightAverage({"late": late}, 0.9, {"late": 10})
    other = WeightAverage({"early": early}, 0.9)
    for step in range(10):
        average.update(step)
    assert average.state_dict()["late"].item() == 4.0
    for step in range(3):
        late += step
        early += step
        average.update(10 + step)
        other.update(step)
    assert torch.equal(average.state_dict()["late"], other.state_dict()["early"])
    # 4, then (1/10) 4 + (9/10) 4, (2/11) 4 + (9/11) 5, (3/12) of that and (9/12) 7
    assert average.state_dict()["late"].item() == pytest.approx(0.25 * (8 / 11 + 45 / 11) + 0.75 * 7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": STAGES, "max_epoch": 2}, "they have 3 epochs, so set run.max_epoch=3"),
        ({"stages": STAGES, "part_lr": {"projector": 1e-3}}, "each stage of run.stages has the learning rates"),
        ({"stages": [{"epochs": 0, "parts": {"projector": 1.0}}]}, "run.stages.0.epochs"),
        ({"stages": [{"epochs": 3, "parts": {}}]}, "run.stages.0.parts"),
        ({"stages": [{"epochs": 3, "parts": {"projector": 0.0}}]}, "run.stages.0.parts.projector"),
        ({"part_lr": {"projector": -1}}, "run.part_lr.projector"),
        ({"stages": [{"epochs": 3, "part": {"projector": 1.0}}]}, "did you mean 'parts'"),
    ],
)
def test_wrong_stages_are_refused(changes: dict[str, Any], message: str) -> None:
    settings, problems = parse_settings(RunSettings, {**RUN, **changes}, "run")
    assert settings is None and any(message in line for line in problems), problems


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Config]:
    """Reads a recipe that trains a projector, and adapters on the language model."""

    def read(**run: Any) -> Config:
        model = {"arch": "emovit_tiny", "trained_parts": ["language_projection", "query_tokens"]}
        values = {
            "model": {**model, "lora": {"parts": ["language_model"]}},
            "datasets": {"emoset_sketch": {}},
            "run": {"task": "emotion_instruction", **RUN, **run},
        }
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(values))
        return Config.load(path)

    return read


def test_all_wrong_names_of_parts_are_reported_at_once(load: Callable[..., Config]) -> None:
    stages = [
        {"epochs": 1, "parts": {"langage_model": 1e-3, "qformer": 1e-3}},
        {"epochs": 2, "parts": {"query_tokens": 1e-3}},
    ]
    with pytest.raises(ConfigError) as refused:
        load(stages=stages)
    assert refused.value.problems == [
        "run.stages.0.parts.langage_model: the model has no part 'langage_model' (did you mean 'language_model'?)",
        "run.stages.0.parts.qformer: qformer is not trained; add it to model.trained_parts or model.lora.parts",
        "run.stages: language_projection is trained, but no stage names it; add it, or freeze it",
        "run.stages: language_model is trained, but no stage names it; add it, or freeze it",
    ]
    with pytest.raises(ConfigError, match=r"run\.part_lr\.vision_encoder: vision_encoder is not trained"):
        load(part_lr={"vision_encoder": 1e-3})
    assert load(part_lr={"language_model": 1e-3}).run.part_lr == {"language_model": 1e-3}


@pytest.mark.parametrize(
    "changes",
    [
        {"init_lr": 1e300}, {"warmup_lr": 1e39}, {"weight_decay": 1e300}, {"adam_epsilon": 1e300},
        {"part_lr": {"projector": 1e300}}, {"stages": [{"epochs": 3, "parts": {"projector": 1e300}}]},
    ],
)  # fmt: skip
def test_rates_that_no_weight_could_take_are_refused(changes: dict[str, Any]) -> None:
    settings, problems = parse_settings(RunSettings, {**RUN, **changes}, "run")
    assert settings is None and any(next(iter(changes)) in line for line in problems), problems
