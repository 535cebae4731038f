"""Which samples are dropped: rule and state, without a model; whole runs are in test_recipe_with_datasets.py.

- The rule chooses what a table worked out by hand says: by the extreme pair of every visit, at most a share of each
  dataset, learned samples before hopeless ones, the most extreme first.
- Visits are kept in their order; dropped samples get no more; the state restores bit for bit, also twice at the start
  of an epoch, and one of other sizes is refused.
- The list of dropped samples and the row of the log have what was chosen, and replace what an interrupted start wrote.
- A run whose model measures no losses says so.
- Settings that drop nothing, or do not fit the run, its task or its model, are refused before training; without
  them a run has no other identity.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lavis_emovit.checkpoints.training_state import Position
from lavis_emovit.errors import ConfigError, UserError
from lavis_emovit.runners.drop_samples import SampleDrops, choose
from lavis_emovit.runners.settings import DropSettings, RunSettings
from lavis_emovit.settings import parse_settings
from lavis_emovit.tasks.base import PairValues
from lavis_emovit.tasks.emotion_instruction import EmotionInstructionTask
from lavis_emovit.train import run_recipe

NAN = float("nan")
RUN = {"output_dir": "x", "max_epoch": 3, "global_batch_size": 1, "init_lr": 1e-3, "train_dataset_ratios": {"a": 1}}

# Lowest and highest value of two visits; two datasets, of four and five samples.
VALUES = [
    ((0.05, 0.02), (0.08, 0.1)),  # learned, up to 0.1
    ((0.01, 0.01), (0.01, 0.2)),  # one pair was above the limit once
    ((0.01, 0.01), (0.02, 0.03)),  # learned, up to 0.03
    ((0.05, 0.05), (0.05, 0.05)),  # learned, up to 0.05
    ((3.5, 4.0), (5.0, 5.0)),  # hopeless, from 3.5
    ((NAN, 9.0), (NAN, 9.0)),  # visited once
    ((3.0, 3.0), (3.0, 3.0)),  # hopeless, from 3.0
    ((0.0, 0.0), (0.0, 0.0)),  # learned
    ((3.2, 2.9), (9.0, 9.0)),  # one pair was below the limit once
]
LOWEST, HIGHEST = (np.array(part, np.float32) for part in zip(*VALUES))
OFFSETS = (0, 4, 9)


def chosen(dropped: list[int] = [], **settings: Any) -> tuple[list[int], list[int], int]:  # noqa: B006
    is_dropped = np.isin(np.arange(9), dropped)
    found, spared = choose(LOWEST, HIGHEST, is_dropped, OFFSETS, DropSettings(**settings))
    return np.flatnonzero(found == 0).tolist(), np.flatnonzero(found == 1).tolist(), spared


def test_the_rule_by_hand() -> None:
    both = {"at_most": 0.1, "at_least": 3.0, "visits": 2}
    # Half of four and of five samples: two of each.
    assert chosen(**both) == ([2, 3, 7], [4], 2)
    assert chosen(**both, max_share=0.9) == ([0, 2, 3, 7], [4, 6], 0)
    assert chosen([3], **both) == ([2, 7], [4], 2)
    assert chosen([2, 3, 4, 7], **both) == ([], [], 2)
    assert chosen(at_most=0.05, visits=2) == ([2, 3, 7], [], 0)
    assert chosen(at_least=3.0, visits=2, max_share=0.2) == ([], [4], 1)
    assert chosen(at_most=0.1, visits=2, max_share=0.1) == ([], [], 4), "a tenth of five samples is none"


def test_a_share_is_the_decimal_as_it_is_written() -> None:
    zeros = np.zeros((100, 1), np.float32)
    # 0.29 * 100 is 28.999999999999996 in binary numbers.
    found, spared = choose(zeros, zeros, np.zeros(100, bool), (0, 100), DropSettings(at_most=0, max_share=0.29))
    assert np.flatnonzero(found == 0).tolist() == list(range(29)) and spared == 71


def test_pairs_of_an_image_become_lowest_and_highest() -> None:
    values = PairValues([17, 4], ["b", "a"], torch.tensor([0, 1, 0, 0]), torch.tensor([2.0, 0.5, 1.0, 3.0]))
    assert values.by_sample() == [(17, "b", 1.0, 3.0), (4, "a", 0.5, 0.5)]


class Mixture:
    """Two datasets of two and three samples; each epoch goes on by two positions of each."""

    num_samples, offsets, names = 5, (0, 2, 5), ("a", "b")
    dropped: list[bool]
    order: tuple[int, ...]

    def starts(self, epoch: int) -> list[int]:
        return [2 * epoch, 2 * epoch]

    def stops(self, seed: int, epoch: int) -> list[int]:
        return [start + 2 for start in self.order]

    def drop(self, is_dropped: np.ndarray, starts: list[int]) -> None:
        self.dropped, self.order = is_dropped.tolist(), tuple(starts)

    def describe(self, number: int) -> tuple[str, str]:
        return self.names[number >= 2], f"place{number}"


def visits(*values: tuple[int, float, float]) -> list[tuple[int, str, float, float]]:
    return [(number, f"id{number}", lowest, highest) for number, lowest, highest in values]


def drops_of(path: Path, pair_value: str | None = "loss", **settings: Any) -> SampleDrops:
    run = RunSettings(**RUN, drop_samples={"at_most": 0.1, "visits": 2, "max_share": 0.9, **settings})
    return SampleDrops(run, Mixture(), SimpleNamespace(pair_value=pair_value), path)  # type: ignore[arg-type]


def test_state_list_and_row(tmp_path: Path) -> None:
    path = tmp_path / "dropped.jsonl"
    drops = drops_of(path, at_least=3.0)
    assert drops.begin_epoch(Position()) is None and not path.exists()
    # Sample 0 was over the limit, but only at its first of three visits.
    drops.note(visits((0, 5.0, 5.0), (0, 0.05, 0.1), (3, 4.0, 6.5), (0, 0.01, 0.02), (1, 0.1, 0.1), (3, 3.0, 3.0)))
    row = drops.begin_epoch(Position(step=4, epoch=1))
    assert row == {
        "event": "dropped", "step": 5, "epoch": 2, "num_dropped": {"a": 1, "b": 1}, "num_samples": {"a": 2, "b": 3},
        "reasons": {"learned": 1, "hopeless": 1}, "num_new": 2, "num_spared": 0, "num_measured": 2,
    }  # fmt: skip
    assert drops._dataset.dropped == [True, False, False, True, False] and drops._dataset.order == (2, 2)
    listed = [json.loads(line) for line in path.read_text().splitlines()]
    assert listed == [
        {"epoch": 2, "dataset": "a", "id": "id0", "place": "place0", "reason": "learned",
         "lowest": [0.05, 0.01], "highest": [0.1, 0.02]},
        {"epoch": 2, "dataset": "b", "id": "id3", "place": "place3", "reason": "hopeless",
         "lowest": [4.0, 3.0], "highest": [6.5, 3.0]},
    ]  # fmt: skip
    # Within an epoch nothing changes, and what is dropped keeps its values.
    drops.note(visits((0, 9.0, 9.0), (1, 0.05, 0.1)))
    assert drops.begin_epoch(Position(step=5, epoch=1, step_in_epoch=1)) is None
    assert drops._dataset.dropped == [True, False, False, True, False]
    assert drops.lowest[0].tolist() == pytest.approx([0.05, 0.01])

    saved = {name: tensor.clone() for name, tensor in drops.state_dict().items()}
    third = Position(step=8, epoch=2)
    row = drops.begin_epoch(third)
    assert row is not None and row["num_new"] == 0 and row["num_spared"] == 1, "nine tenths of two samples are one"
    lines = path.read_text()
    path.write_text(lines + json.dumps({"epoch": 3, "id": "of an interrupted start"}) + "\n")
    again = drops_of(path, at_least=3.0)
    again.load_state_dict(saved, 1)
    assert again.begin_epoch(third) == row and path.read_text() == lines
    for name, tensor in again.state_dict().items():
        torch.testing.assert_close(tensor, drops.state_dict()[name], rtol=0, atol=0, equal_nan=True)
    assert again.begin_epoch(third) == row and again.starts == [4, 4], "a step that was refused is begun again"

    # The reasons are those of their time, and another folder gets the whole list, but for the ids.
    moved = drops_of(tmp_path / "moved.jsonl", at_most=0.001, at_least=9.0)
    moved.load_state_dict(saved, 1)
    found = moved.begin_epoch(third)
    assert found is not None and found["reasons"] == {"learned": 1, "hopeless": 1}
    rows = [json.loads(line) for line in (tmp_path / "moved.jsonl").read_text().splitlines()]
    assert rows == [{**row, "id": None} for row in listed]

    fresh = drops_of(path)
    fresh.load_state_dict(None, 2)
    fresh.begin_epoch(Position(step=9, epoch=2, step_in_epoch=1))
    assert fresh._dataset.order == (4, 4) and not any(fresh._dataset.dropped)
    with pytest.raises(UserError, match=r"2 visits of 5 samples, the run 3 of 5; set run\.drop_samples\.visits=2"):
        drops_of(path, visits=3).load_state_dict(saved, 1)


def test_without_values_nothing_is_dropped_and_it_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    row = drops_of(tmp_path / "dropped.jsonl").begin_epoch(Position(step=4, epoch=1))
    assert row is not None and row["num_measured"] == 0 and row["num_dropped"] == {"a": 0, "b": 0}
    assert "nothing can be dropped: no step so far measured a value of an image" in caplog.text
    assert not (tmp_path / "dropped.jsonl").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "run.drop_samples: give at_most, at_least or both"),
        ({"at_most": 1, "at_least": 1}, "run.drop_samples: at_least (1) must be above at_most (1)"),
        ({"at_most": -0.1}, "run.drop_samples.at_most: Input should be greater than or equal to 0"),
        ({"at_most": 0.1, "max_share": 1}, "run.drop_samples.max_share: Input should be less than 1"),
        ({"at_most": 0.1, "visits": 0}, "run.drop_samples.visits: Input should be greater than or equal to 1"),
        ({"at_mots": 0.1}, "run.drop_samples.at_mots: unknown key (did you mean 'at_most'?)"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], words: str) -> None:
    problems = parse_settings(RunSettings, {**RUN, "drop_samples": settings}, "run")[1]
    assert any(words in problem for problem in problems), problems


def test_it_needs_ratios_and_a_task_with_values(tmp_path: Path) -> None:
    values = {**RUN, "train_dataset_ratios": None, "drop_samples": {"at_most": 0.1}}
    assert "run.drop_samples needs run.train_dataset_ratios" in parse_settings(RunSettings, values, "run")[1][0]
    with pytest.raises(ConfigError, match=r"run\.drop_samples: the task 'emotion_instruction' has no values"):
        drops_of(tmp_path, None)
    with pytest.raises(ConfigError, match=r"run\.drop_samples\.at_least: answers with unequal rewards"):
        drops_of(tmp_path, "reward_deviation", at_least=1)


def test_off_it_is_not_in_the_settings() -> None:
    assert "drop_samples" not in RunSettings(**RUN).model_dump(mode="json")


def test_a_model_without_losses_of_pairs_is_refused_before_the_first_step() -> None:
    model: Any = SimpleNamespace(answer_loss=lambda batch: None)
    task = EmotionInstructionTask()
    task.begin(model, None)
    task.needs_pair_values = True
    with pytest.raises(
        UserError, match=r"run\.drop_samples: `answer_loss` of SimpleNamespace has no argument `by_pair`"
    ):
        task.begin(model, None)
    model.answer_loss = lambda batch, by_pair=False: None
    task.begin(model, None)


def test_a_task_without_values_is_refused_before_anything_is_loaded(
    recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("data are built")

    monkeypatch.setattr(EmotionInstructionTask, "pair_value", None)
    monkeypatch.setattr(EmotionInstructionTask, "build_datasets", fail)
    path = recipe(train_dataset_ratios={"emo_stand_in": 1}, drop_samples={"at_most": 0.1})
    with pytest.raises(ConfigError, match=r"run\.drop_samples: the task 'emotion_instruction' has no values"):
        run_recipe(str(path))
