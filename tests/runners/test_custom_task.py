"""Properties of a task outside the package, the example of docs/runs.md: a recipe selects it with its settings, its
loss trains the model, its measure is in the log; measures that it does not declare are refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lavis_emovit.runners.engines.sums import StepSums
from lavis_emovit.tasks.base import StepLoss
from lavis_emovit.train import run_recipe

PAGE = Path(__file__).resolve().parents[2] / "docs" / "runs.md"


def steps(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [row for row in rows if row["event"] == "step"]


def test_the_example_of_the_page_trains(recipe: Callable[..., Path], tmp_path: Path) -> None:
    (example,) = re.findall(r"<!-- example: task -->\n```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    exec(compile(example, str(PAGE), "exec"), {"__name__": "example"})
    run_recipe(recipe("plain.yaml", output_dir="plain"))
    run_recipe(
        recipe("own.yaml", output_dir="own", task={"name": "penalised_instruction", "penalty": 0.5, "max_len": 7})
    )
    plain, own = steps(tmp_path / "plain"), steps(tmp_path / "own")
    assert len(own) == len(plain) > 5
    first = own[0]
    assert first["penalty_sum"] > 0
    assert first["loss"] == pytest.approx(plain[0]["loss"] + first["penalty_sum"] / first["num_tokens"])
    assert own[-1]["loss"] != pytest.approx(plain[-1]["loss"] + own[-1]["penalty_sum"] / own[-1]["num_tokens"])
    assert "penalty_sum" not in plain[0]


@pytest.mark.parametrize(("declared", "measured"), [((), {"extra": 1.0}), (("extra",), {})])
def test_measures_that_are_not_declared_are_refused(declared: tuple[str, ...], measured: dict[str, float]) -> None:
    sums = StepSums(torch.device("cpu"), declared)
    with pytest.raises(ValueError, match=r"StepLoss\.measures.*measure_names"):
        sums.add(StepLoss(torch.tensor(1.0), 1, measures=measured))
