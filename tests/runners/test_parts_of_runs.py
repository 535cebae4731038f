"""Properties of whole runs in stages, with the shipped tiny model and adapters with dropout on its language model:

- at the end of the first stage, weights and moments are those of a run that trains only its part, and the resting parts
  are bit for bit as they were loaded, without moments;
- stopped in either stage and started again, with a moving average, a run ends bit for bit the same;
- the log has the rate of each part;
- a stage that the run does not reach is refused before the model is loaded;
- of every family, a resting part computes what a frozen one does, and the others get the same gradients."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lavis.common.registry import registry
from safetensors.torch import load_file

ROOM = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOM / "ranks"), str(ROOM.parent / "tiny"), str(ROOM.parent / "models" / "image_text")]

from jobs import stop_before  # noqa: E402
from tiny_batches import batch_of, model_of  # noqa: E402
from tiny_families import make_llava15  # noqa: E402

from lavis_emovit.errors import ConfigError  # noqa: E402
from lavis_emovit.paths import list_checkpoints  # noqa: E402
from lavis_emovit.runners.logs import read_log  # noqa: E402
from lavis_emovit.train import run_recipe  # noqa: E402

COMMON = (
    "datasets.emoset_sketch.build_info.images.storage=small_sketch",
    "datasets.emoset_sketch.build_info.prepare.draw.images_per_class=10",
    "run.global_batch_size=16",
    "run.warmup_steps=1",
    "run.save_every_steps=1",
    "run.num_threads=1",
    "run.device=cpu",
    "run.keep_last=99",
    "run.evaluate_before=false",
    "run.valid_splits=[]",
    "run.report=false",
    "run.num_report_answers=0",
)
STAGED = (
    "model.trained_parts=[qformer,language_projection]",
    "model.lora={parts: [language_model], rank: 2, dropout: 0.4}",
    "run.max_epoch=2",
    "run.stages=[{epochs: 1, parts: {language_projection: 0.002}},"
    "{epochs: 1, parts: {language_projection: 0.0005, qformer: 0.001, language_model: 0.004}}]",
)


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def tune(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    monkeypatch.setenv("EMOVIT_DATA", str(data_root))
    monkeypatch.chdir(tmp_path)

    def run(name: str, *options: str) -> dict[str, Any]:
        return run_recipe("projects/emovit/quickstart.yaml", [*COMMON, f"run.output_dir={name}", *options])

    return run


def steps_of(run: Path) -> list[dict[str, Any]]:
    return [row for row in read_log(run / "log.jsonl") if row["event"] == "step"]


def checkpoint(run: Path, place: int = -1) -> dict[str, dict[str, torch.Tensor]]:
    folder = list_checkpoints(run / "checkpoints")[place]
    return {name: load_file(folder / f"{name}.safetensors") for name in ("model", "optimizer")}


def test_the_first_stage_is_a_run_of_its_part_alone(tune: Callable[..., dict], tmp_path: Path) -> None:
    tune("staged", *STAGED)
    tune("alone", "model.trained_parts=[language_projection]", "run.max_epoch=1", "run.init_lr=0.002")
    rows, alone_rows = steps_of(tmp_path / "staged"), steps_of(tmp_path / "alone")
    per_epoch = len(alone_rows)
    assert per_epoch >= 3 and len(rows) == 2 * per_epoch
    for row, wanted in zip(rows, alone_rows):
        # Frozen weights are views on a file, trained ones are not: sums may be rounded differently.
        assert row["loss"] == pytest.approx(wanted["loss"], rel=1e-5)
        assert row["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=1e-4)
    staged, alone = checkpoint(tmp_path / "staged", per_epoch - 1), checkpoint(tmp_path / "alone")
    assert set(alone["optimizer"]) == set(staged["optimizer"]), "parts that rest have moments"
    for name, tensor in alone["optimizer"].items():
        torch.testing.assert_close(staged["optimizer"][name], tensor, rtol=1e-4, atol=1e-6)
    start = checkpoint(tmp_path / "staged", 0)["model"]
    for name, tensor in staged["model"].items():
        if name in alone["model"]:
            torch.testing.assert_close(tensor, alone["model"][name], rtol=1e-4, atol=1e-5)
        else:
            assert torch.equal(tensor, start[name]), name
    end = checkpoint(tmp_path / "staged")
    lora = [name for name in end["model"] if "lora_B" in name]
    assert lora and all(not start[name].any() and end["model"][name].any() for name in lora)
    # What nothing reads gets no gradient, so it has no moments either.
    marks = ("lora_", "qformer", "language_projection")
    assert {mark for name in end["optimizer"] for mark in marks if mark in name} == set(marks)

    parts = ("language_projection", "qformer", "language_model")
    assert [rows[1][f"lr.{part}"] for part in parts] == [pytest.approx(0.002, rel=1e-9), 0.0, 0.0]
    assert [rows[per_epoch + 1][f"lr.{part}"] for part in parts] == pytest.approx([0.0005, 0.001, 0.004], rel=1e-9)
    assert rows[per_epoch + 1]["lr"] == pytest.approx(0.004) and not any(
        name.startswith("lr.") for name in alone_rows[0]
    )


def test_stopped_in_either_stage_it_ends_the_same(tune: Callable[..., dict], tmp_path: Path) -> None:
    options = (*STAGED, "run.ema_decay=0.7")
    straight = tune("straight", *options)
    steps = len(steps_of(tmp_path / "straight"))
    stop_before(2, lambda: tune("stopped", *options))  # in the first stage
    stop_before(steps // 2, lambda: tune("stopped", *options))  # at its end
    stop_before(2, lambda: tune("stopped", *options))  # in the second
    torch.manual_seed(123)
    assert tune("stopped", *options) == straight
    last, other = (list_checkpoints(tmp_path / name / "checkpoints")[-1] for name in ("straight", "stopped"))
    assert last.name == other.name
    for name in ("model.safetensors", "model_raw.safetensors", "optimizer.safetensors", "state.json"):
        assert (last / name).read_bytes() == (other / name).read_bytes(), name


def test_a_stage_that_is_not_reached_is_refused_before_the_model_is_loaded(
    tune: Callable[..., dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any) -> None:
        raise AssertionError("the model is loaded")

    monkeypatch.setattr(registry.get_model_class("emovit_tiny"), "from_config", load)
    with pytest.raises(ConfigError, match=r"run\.max_steps: 2 steps end before the last stage of run\.stages begins"):
        tune("short", *STAGED, "run.max_steps=2")


def test_a_resting_part_of_an_image_text_model_computes_as_a_frozen_one(tmp_path: Path) -> None:
    folder = make_llava15(tmp_path / "llava")
    lora = {"parts": ["language_model"], "rank": 2, "dropout": 0.5}
    both = model_of(folder, trained_parts=["projector", "vision_encoder"], lora=lora)
    alone = model_of(folder, trained_parts=["projector"])
    names, parts = both.trained_parameter_names(), both.trained_parameter_parts()
    assert {part for name, part in zip(names, parts) if "lora_" in name} == {"language_model"}
    assert set(parts) == {"projector", "vision_encoder", "language_model"}
    own = dict(both.core.named_parameters())
    with torch.no_grad():
        for name in names:
            if "lora_B" in name:
                own[name].fill_(0.1)
    both.train()
    losses = [both.answer_loss(batch_of(both)).loss_sum.item() for _ in range(2)]
    assert losses[0] != losses[1], "dropout of adapters is on"
    with torch.no_grad():
        for name in names:
            if "lora_B" in name:
                own[name].zero_()
    both.rest({"language_model", "vision_encoder"})
    alone.train()
    for model in (both, alone):
        model.answer_loss(batch_of(model)).loss_sum.backward()
    wanted = {name: value.grad for name, value in alone.core.named_parameters() if value.grad is not None}
    found = {name: value.grad for name, value in both.core.named_parameters() if value.grad is not None}
    assert set(found) == set(wanted) and all(torch.equal(found[name], wanted[name]) for name in wanted)
    both.rest(())
    assert all(own[name].requires_grad for name in names)
    dropouts = [module for name, module in both.core.named_modules() if ".lora_dropout" in name and "default" in name]
    assert dropouts and all(module.training for module in dropouts)
    assert both.trained_parameter_names() == names
