"""Properties, each engine (plain torch, DeepSpeed's ZeRO 0 to 3, with and without offloading) on two processes:
- 20 steps give the losses, gradient norms, weights and AdamW moments of one process that takes the whole global batch
  at once in plain torch, micro-batches without a sample included; the samples are the same in the same order;
- what is saved on two processes, one and three go on from, and end the same; it goes in and out without a change;
- NaN on one process stops all of them before the weights change;
- fp16 overflows are skipped by all ranks alike and halve the loss scale; bf16 autocast works beside frozen bf16
  weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

RANKS = Path(__file__).resolve().parent / "ranks"
sys.path.insert(0, str(RANKS))

from jobs import finish, load_deepspeed, logs, start_ranks, write_zero_configs  # noqa: E402
from matrix import ENGINES, NUM_STEPS, SAVED_AT, train_under_every_engine  # noqa: E402
from small import SmallModel, learning_rate, steps  # noqa: E402

pytest.importorskip("deepspeed")
pytestmark = pytest.mark.xdist_group("engines_on_ranks")  # one worker starts the processes, once

RELATIVE = 1e-5


def whole_batches() -> dict[str, Any]:
    """The same training in plain torch, on one process, without micro-batches and without our engines."""
    model = SmallModel()
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    optimizer = torch.optim.AdamW(
        [
            {"params": [value for value in trained.values() if value.ndim == 2], "weight_decay": 0.1},
            {"params": [value for value in trained.values() if value.ndim == 1], "weight_decay": 0.0},
        ]
    )
    rows: list[dict[str, Any]] = []
    for step, batches in enumerate(steps(0, NUM_STEPS, rank=0, world_size=1)):
        optimizer.zero_grad()
        outputs = [model(batch) for batch in batches]
        num_tokens = sum(output["num_tokens"] for output in outputs)
        loss = torch.stack([output["loss_sum"] for output in outputs]).sum() / num_tokens
        loss.backward()
        norm = nn.utils.clip_grad_norm_(trained.values(), 0.7)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        optimizer.step()
        ids = [name for batch in batches for name in batch["instance_id"]]
        rows.append({"loss": loss.item(), "grad_norm": norm.item(), "num_tokens": num_tokens, "ids": ids})
    moments = {
        f"{moment}.{name}": optimizer.state[value][moment]
        for name, value in trained.items()
        for moment in ("exp_avg", "exp_avg_sq")
    }
    return {"rows": rows, "weights": {name: value.detach() for name, value in trained.items()}, "moments": moments}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of three jobs: two ranks from the beginning; one and three ranks that go on in the middle."""
    root = tmp_path_factory.mktemp("ranks")
    configs = root / "configs"
    assert write_zero_configs(configs) == set(ENGINES) - {"torch"}
    load_deepspeed()
    folders = {name: root / name for name in ("two", "one", "three")}
    ranks = start_ranks(2, train_under_every_engine, [folders["two"], configs], folders["two"])
    assert finish(ranks) == [0, 0], logs(folders["two"])
    started = {}
    for name, num_ranks in (("one", 1), ("three", 3)):
        arguments = [folders[name], configs, folders["two"]]
        started[name] = start_ranks(num_ranks, train_under_every_engine, arguments, folders[name])
    for name, ranks in started.items():
        assert set(finish(ranks)) == {0}, logs(folders[name])
    return folders


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    return whole_batches()


def results(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())[name]


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_and_number_of_ranks_ends_as_plain_torch(
    jobs: dict[str, Path], expected: dict[str, Any], name: str
) -> None:
    for job, first in (("two", 0), ("one", SAVED_AT), ("three", SAVED_AT)):
        rows = results(jobs[job], name)["rows"]
        assert len(rows) == NUM_STEPS - first
        for row, wanted in zip(rows, expected["rows"][first:]):
            assert row["loss"] == pytest.approx(wanted["loss"], rel=RELATIVE), job
            assert row["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=RELATIVE), job
            assert (row["num_tokens"], row["ids"], row["applied"]) == (wanted["num_tokens"], wanted["ids"], True), job
            assert row["measures"] == {"num_letters": row["num_tokens"], "num_prepared": row["num_batches"]}, job
        long = [[name for name, text in _texts(row["ids"]) if len(text) > 5] for row in rows]
        assert [sorted(row["noted"]) for row in rows] == [sorted(ids) for ids in long], job
        for stem, wanted_tensors in (("-end.model", expected["weights"]), ("-end", expected["moments"])):
            ended = load_file(jobs[job] / f"{name}{stem}.safetensors")
            assert set(ended) == set(wanted_tensors)
            for key, value in ended.items():
                torch.testing.assert_close(value, wanted_tensors[key], rtol=1e-5, atol=1e-6, msg=f"{job} {key}")
    steps_done = json.loads((jobs["three"] / f"{name}-end.json").read_text())["adamw_steps"]
    assert set(steps_done.values()) == {NUM_STEPS}


def _texts(ids: list[str]) -> list[tuple[str, str]]:
    """The answer of each pair, worked out from its name as the data do."""
    numbers = [tuple(map(int, name.split("#"))) for name in ids]
    return [(name, "a" * (1 + (number * 3 + pair) % 7)) for name, (number, pair) in zip(ids, numbers)]


@pytest.mark.parametrize("name", ENGINES)
def test_state_goes_in_and_out_without_a_change(jobs: dict[str, Path], name: str) -> None:
    for job in ("one", "three"):
        for kind in (".model.safetensors", ".safetensors"):
            saved, back = load_file(jobs["two"] / f"{name}{kind}"), load_file(jobs[job] / f"{name}-back{kind}")
            assert set(saved) == set(back)
            assert all(torch.equal(saved[key], back[key]) for key in saved), job
        saved_values, back_values = (
            json.loads((jobs[folder] / f"{name}{end}.json").read_text())
            for folder, end in (("two", ""), (job, "-back"))
        )
        assert saved_values == back_values


@pytest.mark.parametrize("name", ENGINES)
def test_nan_on_one_rank_stops_all_before_the_weights_change(jobs: dict[str, Path], name: str) -> None:
    nan = results(jobs["two"], name)["nan"]
    assert len(nan["messages"]) == 2
    assert all("loss is nan" in message for message in nan["messages"])
    assert nan["is_unchanged"]


@pytest.mark.parametrize("name", ["torch", "zero0", "zero2", "zero3"])
def test_fp16_overflows_are_skipped_and_halve_the_scale(jobs: dict[str, Path], name: str) -> None:
    own, unsharded = (results(jobs["two"], f"{engine}-fp16") for engine in (name, "zero0"))
    skipped = [not row["applied"] for row in own["rows"]]
    assert own["scaler"]["scale"] == 65536 / 2 ** sum(skipped)
    assert any(skipped) and not all(skipped)
    assert own["rows"][0]["loss"] == pytest.approx(unsharded["rows"][0]["loss"], rel=1e-2)
    if name != "torch":  # which scales sums, not means, and so overflows at other steps
        assert skipped == [not row["applied"] for row in unsharded["rows"]]
        for row, wanted in zip(own["rows"], unsharded["rows"]):
            assert row["loss"] == pytest.approx(wanted["loss"], rel=1e-2)


@pytest.mark.parametrize("name", ["zero0", "zero2", "zero3"])
def test_bf16_beside_frozen_weights_in_bf16(jobs: dict[str, Path], name: str) -> None:
    """Weights of two types are spread and fetched together, and autocast is on."""
    plain, own = (results(jobs["two"], f"{engine}-bf16")["rows"] for engine in ("torch", name))
    full = results(jobs["two"], "torch")["rows"]
    for row, wanted, exact in zip(own, plain, full):
        assert row["loss"] == pytest.approx(wanted["loss"], rel=1e-2)
        assert row["loss"] != exact["loss"]


def test_evaluation_before_training_is_the_same_everywhere(jobs: dict[str, Path]) -> None:
    wanted = SmallModel().logits(torch.arange(24.0).reshape(2, 3, 2, 2) / 24)
    for job in jobs.values():
        for name in ENGINES:
            torch.testing.assert_close(torch.tensor(results(job, name)["first_scores"]), wanted.detach())
