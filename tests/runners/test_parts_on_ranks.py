"""Properties, each engine (plain torch, DeepSpeed's ZeRO 0 to 3, with and without offloading) on two processes, with
parts that learn one after the other, at their own rates:
- losses, gradient norms, weights, AdamW moments and counts of steps are those of a loop in plain torch with an
  optimizer for each part, which a resting part does not step;
- a part has no state before it learns, and one that rests keeps what it has bit for bit;
- saved in any stage, a run ends the same on one process, and the state goes in and out without a change."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent / "ranks"))

from jobs import finish, load_deepspeed, logs, start_ranks, write_zero_configs
from matrix import ENGINES
from small import steps
from staged import NUM_STEPS, SAVED_AT, StagedModel, part_of, rates, train_in_stages

pytest.importorskip("deepspeed")
pytestmark = pytest.mark.xdist_group("engines_on_ranks")


def by_hand() -> dict[str, Any]:
    """The training without our engines, and its weights, moments and counts at every saved step and at the end."""
    model = StagedModel()
    parts = ("ends", "block")
    named = {name: value for name, value in model.named_parameters() if name in model.trained_parameter_names()}
    of_part = {part: {name: value for name, value in named.items() if part_of(name) == part} for part in parts}
    optimizers = {
        part: torch.optim.AdamW(
            [
                {"params": [value for value in own.values() if value.ndim == 2], "weight_decay": 0.1},
                {"params": [value for value in own.values() if value.ndim == 1], "weight_decay": 0.0},
            ]
        )
        for part, own in of_part.items()
    }

    def state() -> dict[str, Any]:
        held = {name: optimizers[part_of(name)].state.get(value) or {} for name, value in named.items()}
        moments = ("exp_avg", "exp_avg_sq")
        return {
            "weights": {name: value.detach().clone() for name, value in named.items()},
            "moments": {f"{key}.{name}": own[key].clone() for name, own in held.items() for key in moments if own},
            "steps": {name: int(own["step"]) for name, own in held.items() if own},
        }

    rows, states = [], {}
    for step, batches in enumerate(steps(0, NUM_STEPS, rank=0, world_size=1)):
        if step in SAVED_AT:
            states[step] = state()
        model.zero_grad()
        outputs = [model(batch) for batch in batches]
        num_tokens = sum(output["num_tokens"] for output in outputs)
        loss = torch.stack([output["loss_sum"] for output in outputs]).sum() / num_tokens
        loss.backward()
        learning = [value for part in rates(step) for value in of_part[part].values()]
        norm = nn.utils.clip_grad_norm_(learning, 0.7)
        for part, rate in rates(step).items():
            for group in optimizers[part].param_groups:
                group["lr"] = rate
            optimizers[part].step()
        rows.append([loss.item(), norm.item()])
    return {"rows": rows, "states": {**states, "end": state()}}


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    return by_hand()


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of two jobs: two ranks from the beginning; one that continues from each save."""
    root = tmp_path_factory.mktemp("parts")
    configs = root / "configs"
    write_zero_configs(configs)
    load_deepspeed()
    for name, num_ranks, more in (("two", 2, []), ("one", 1, [root / "two"])):
        ranks = start_ranks(num_ranks, train_in_stages, [root / name, configs, *more], root / name)
        assert set(finish(ranks)) == {0}, logs(root / name)[-6000:]
    return {name: root / name for name in ("two", "one")}


def check_state(stem: Path, wanted: dict[str, Any]) -> None:
    assert json.loads(Path(f"{stem}.json").read_text())["adamw_steps"] == wanted["steps"]
    for kind, tensors in ((".model.safetensors", wanted["weights"]), (".safetensors", wanted["moments"])):
        found = load_file(f"{stem}{kind}")
        assert set(found) == set(tensors), stem
        for key, value in found.items():
            torch.testing.assert_close(value, tensors[key], rtol=1e-5, atol=1e-6, msg=f"{stem} {key}")


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_trains_parts_as_plain_torch(jobs: dict[str, Path], expected: dict[str, Any], name: str) -> None:
    steps_in = {step: set(state["steps"].values()) for step, state in expected["states"].items()}
    assert steps_in == {2: {2}, 6: {2, 6}, 10: {6, 8}, "end": {7, 12}}
    for job, firsts in (("two", (0,)), ("one", SAVED_AT)):
        rows = json.loads((jobs[job] / "rows.json").read_text())
        for first in firsts:
            for found, wanted in zip(rows[f"{name}-{first}"], expected["rows"][first:], strict=True):
                assert found == pytest.approx(wanted, rel=1e-5), (job, first)
            check_state(jobs[job] / f"{name}-{first}-end", expected["states"]["end"])
    for step in SAVED_AT:
        check_state(jobs["two"] / f"{name}-{step}", expected["states"][step])


@pytest.mark.parametrize("name", ENGINES)
def test_state_of_any_stage_goes_in_and_out_without_a_change(jobs: dict[str, Path], name: str) -> None:
    for step in SAVED_AT:
        saved, back = jobs["two"] / f"{name}-{step}", jobs["one"] / f"{name}-{step}-back"
        for kind in (".json", ".model.safetensors", ".safetensors"):
            assert Path(f"{saved}{kind}").read_bytes() == Path(f"{back}{kind}").read_bytes(), step


@pytest.mark.parametrize("name", ENGINES)
def test_a_part_that_rests_keeps_every_bit(jobs: dict[str, Path], name: str) -> None:
    begin = StagedModel().trained_state_dict()
    early = load_file(jobs["two"] / f"{name}-2.model.safetensors")
    assert all(torch.equal(early[key], value) == key.startswith("block") for key, value in begin.items())
    # The third stage begins after step 8, so what the save after step 10 has of `ends` is that of step 8.
    moments = load_file(jobs["two"] / f"{name}-10.safetensors")
    end = load_file(jobs["two"] / f"{name}-0-end.safetensors")
    assert all(moment.abs().sum() > 0 for moment in moments.values())
    blocks = [key for key in end if ".block." in key]
    assert blocks and not any(torch.equal(end[key], moments[key]) for key in blocks)
