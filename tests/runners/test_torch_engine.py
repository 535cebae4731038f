"""Properties: however a global batch is cut into micro-batches, the step is that of one batch weighted by tokens, and
equals a step worked out without the engine; clipping acts on the joined gradient; a loss or gradient that is not
finite stops before the weights change; fp16 overflows skip a step and give up in the end; bf16 autocast is on when
asked for."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from lavis_emovit.distributed.devices import choose_device
from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.runners.engines import base
from lavis_emovit.runners.engines.base import NonFiniteError
from lavis_emovit.runners.engines.torch_engine import TorchEngine
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.tasks.base import EmotionTask, StepLoss
from lavis_emovit.tasks.settings import TaskSettings

SETTINGS = {"output_dir": "x", "max_epoch": 1, "global_batch_size": 8, "init_lr": 0.1, "device": "cpu"}


class SumTask(EmotionTask):
    """Loss of a batch: the sum over its rows of squared outputs, each weighted by its `tokens`."""

    settings_class = TaskSettings

    def step_loss(self, model: nn.Module, batch: dict) -> StepLoss:
        per_row = model(batch["x"]).square().sum(-1)
        loss_sum = (per_row * batch["tokens"]).sum() * batch.get("factor", 1.0)
        return StepLoss(loss_sum, int(batch["tokens"].sum()), batch.get("noted", {}))


def make_engine(**settings) -> TorchEngine:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    return TorchEngine(model, SumTask(), RunSettings(**{**SETTINGS, **settings}))


def make_batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {"x": torch.randn(8, 4, generator=generator), "tokens": torch.tensor([1, 9, 2, 1, 30, 1, 4, 2])}


def cut(batch: dict, sizes: list[int]) -> list[dict]:
    parts = [dict(zip(batch, tensors)) for tensors in zip(*(value.split(sizes) for value in batch.values()))]
    assert len(parts) == len(sizes)
    return parts


def weights(engine: TorchEngine) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in engine.model.parameters()])


@pytest.mark.parametrize("sizes", [[8], [4, 4], [1, 7], [1] * 8, [5, 2, 1]])
def test_any_cut_gives_the_step_of_one_batch(sizes: list[int]) -> None:
    batch, engine = make_batch(), make_engine(max_grad_norm=0.5, weight_decay=0.1)
    expected = copy.deepcopy(engine.model)
    # The same step in plain torch: mean over all 50 tokens, clipped, AdamW with decay on the two matrices only.
    loss = SumTask().step_loss(expected, batch).loss_sum / 50
    loss.backward()
    norm = nn.utils.clip_grad_norm_(expected.parameters(), 0.5).item()
    decayed = [parameter for parameter in expected.parameters() if parameter.ndim == 2]
    plain = [parameter for parameter in expected.parameters() if parameter.ndim == 1]
    torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}], lr=0.02
    ).step()

    result = engine.train_step(cut(batch, sizes), learning_rate=0.02)
    assert result.weight == 50
    assert result.loss == pytest.approx(loss.item(), rel=1e-6)
    assert result.grad_norm == pytest.approx(norm, rel=1e-5)
    assert norm > 0.5, "the gradient must be long enough for clipping to act"
    torch.testing.assert_close(
        weights(engine), torch.cat([parameter.flatten() for parameter in expected.parameters()]).detach()
    )


def test_weighting_matters_here() -> None:
    """The mean of the micro-batches' means is another number, so the test above can fail."""
    batch, engine = make_batch(), make_engine()
    losses = [SumTask().step_loss(engine.model, part) for part in cut(batch, [1, 7])]
    mean_of_means = sum(loss.loss_sum.item() / loss.weight for loss in losses) / 2
    assert abs(mean_of_means - engine.train_step(cut(batch, [1, 7]), 0.1).loss) > 0.05


@pytest.mark.parametrize("bad", ["loss", "gradient"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_not_finite_stops_before_the_weights_change(bad: str, value: float) -> None:
    engine = make_engine()
    first, second = cut(make_batch(), [4, 4])
    if bad == "loss":
        second["factor"] = value
    else:
        next(engine.model.parameters()).register_hook(lambda gradient: gradient * value)
    before = weights(engine)
    with pytest.raises(NonFiniteError, match="nan" if math.isnan(value) else "inf|nan"):
        engine.train_step([first, second], 0.1)
    assert torch.equal(weights(engine), before)


def test_no_token_at_all_is_refused() -> None:
    batch = {"x": torch.randn(2, 4), "tokens": torch.zeros(2, dtype=torch.long)}
    with pytest.raises(DataError, match="no answer token"):
        make_engine().train_step([batch], 0.1)


def test_fp16_overflow_skips_steps_and_then_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MAX_SKIPPED_IN_A_ROW", 3)
    engine = make_engine(amp="fp16")
    before = weights(engine)
    next(engine.model.parameters()).register_hook(lambda gradient: gradient * math.inf)
    scales = []
    for _ in range(3):
        assert engine.train_step([make_batch()], 0.1).applied is False
        scales.append(engine.state().values["scaler"]["scale"])
    assert scales == sorted(scales, reverse=True)
    assert len(set(scales)) == 3
    with pytest.raises(NonFiniteError):
        engine.train_step([make_batch()], 0.1)
    assert torch.equal(weights(engine), before)


def test_fp16_scale_survives_a_save() -> None:
    engine, twin = make_engine(amp="fp16"), make_engine(amp="fp16")
    hook = next(engine.model.parameters()).register_hook(lambda gradient: gradient * math.inf)
    engine.train_step([make_batch()], 0.1)
    hook.remove()
    engine.train_step([make_batch()], 0.1)
    twin.load_state(engine.state())
    assert twin.state().values == engine.state().values
    assert engine.state().values["scaler"]["scale"] < 65536


def test_bf16_runs_the_forward_pass_in_bf16_and_keeps_fp32_weights() -> None:
    engine = make_engine(amp="bf16")
    seen = []
    engine.model[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    engine.train_step([make_batch()], 0.1)
    assert seen == [torch.bfloat16]
    assert {parameter.dtype for parameter in engine.model.parameters()} == {torch.float32}


def test_a_gpu_that_is_not_there_is_refused() -> None:
    if torch.cuda.device_count() > 7:
        pytest.skip("this machine has that many")
    with pytest.raises(ConfigError, match=r"device cuda:7: not available"):
        choose_device("cuda:7")
