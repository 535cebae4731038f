"""AdamW over the trained parameters, and its state by parameter name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from lavis_emovit.checkpoints.training_state import EngineState
from lavis_emovit.errors import WeightsError
from lavis_emovit.runners.part_rates import Rates
from lavis_emovit.runners.settings import RunSettings

MOMENTS = ("exp_avg", "exp_avg_sq")

NamedParameters = Iterable[tuple[str, nn.Parameter]]


def decays(name: str, parameter: torch.Tensor) -> bool:
    """Whether weight decay applies: to matrices and embeddings, not to norms, biases and other vectors."""
    return parameter.ndim >= 2 and not name.endswith("bias")


def build_adamw(
    named_parameters: NamedParameters,
    settings: RunSettings,
    device: torch.device | None = None,
    parts: Sequence[str] | None = None,
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) over the trained parameters, fused on GPUs; one group decays, one does not.

    `parts` has the part of each trained parameter; each part then has groups of its own.

    WeightsError if no parameter is trained.
    """
    trained = [(name, parameter) for name, parameter in named_parameters if parameter.requires_grad]
    if not trained:
        raise WeightsError("no parameter of the model is trained; name at least one part in model.trained_parts")
    of_each: Sequence[str | None] = parts or [None] * len(trained)
    groups = [
        {
            "params": [
                parameter
                for (name, parameter), own in zip(trained, of_each, strict=True)
                if own == part and decays(name, parameter) is wanted
            ],
            "weight_decay": settings.weight_decay if wanted else 0.0,
            "part": part,
        }
        for part in dict.fromkeys(of_each)
        for wanted in (True, False)
    ]
    optimizer = torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.init_lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.adam_epsilon,
        fused=True if device is not None and device.type == "cuda" else None,
    )
    skip_resting(optimizer)
    return optimizer


def set_rates(optimizer: torch.optim.Optimizer, learning_rate: float | Rates) -> frozenset[str]:
    """Set the learning rate of each group; returns the parts that rest."""
    rates = learning_rate if isinstance(learning_rate, Rates) else Rates(learning_rate)
    for group in optimizer.param_groups:
        rate = rates.of(group["part"])
        group |= {"lr": rate or 0.0, "rests": rate is None}
    return frozenset(group["part"] for group in optimizer.param_groups if group["rests"])


def skip_resting(optimizer: torch.optim.Optimizer) -> None:
    """Let `step` leave out groups that rest: no update, no decay, no moments, no count.

    DeepSpeed gives every group a gradient, zeros where there is none, so a missing gradient is not enough.
    """
    plain_step = optimizer.step

    def step(*args: Any, **options: Any) -> Any:
        groups = optimizer.param_groups
        optimizer.param_groups = [group for group in groups if not group.get("rests")]
        try:
            return plain_step(*args, **options)
        finally:
            optimizer.param_groups = groups

    optimizer.step = step  # type: ignore[method-assign]


def adamw_state(optimizer: torch.optim.AdamW, named_parameters: NamedParameters) -> EngineState:
    """Moments and step counts by parameter name; parameters without a gradient so far have none."""
    tensors: dict[str, torch.Tensor] = {}
    steps: dict[str, int] = {}
    for name, parameter in named_parameters:
        state = optimizer.state.get(parameter)
        if state:
            steps[name] = int(state["step"])
            tensors |= {f"{moment}.{name}": state[moment] for moment in MOMENTS}
    return EngineState(tensors, {"adamw_steps": steps})


def load_adamw_state(optimizer: torch.optim.AdamW, named_parameters: NamedParameters, saved: EngineState) -> None:
    """Restore what `adamw_state` returned; WeightsError if the model has other trained parameters."""
    parameters = dict(named_parameters)
    optimizer.state.clear()
    for name, step in saved.values["adamw_steps"].items():
        parameter = parameters.get(name)
        if parameter is None or not parameter.requires_grad:
            raise WeightsError(f"the checkpoint has optimizer state for '{name}', which is not trained in this model")
        moments = {
            moment: value.to(device=parameter.device, dtype=parameter.dtype, copy=True)
            for moment, value in moments_of(saved, name, parameter.shape).items()
        }
        # The fused optimizer counts on the device.
        count_device = parameter.device if optimizer.defaults["fused"] else None
        optimizer.state[parameter] = {"step": torch.tensor(float(step), device=count_device), **moments}


def moments_of(saved: EngineState, name: str, shape: torch.Size) -> dict[str, torch.Tensor]:
    """The saved moments of a parameter; WeightsError if their shape is not `shape`."""
    moments = {moment: saved.tensors[f"{moment}.{name}"] for moment in MOMENTS}
    for moment, value in moments.items():
        if value.shape != shape:
            raise WeightsError(
                f"optimizer state {moment} of '{name}': shape {list(value.shape)}, expected {list(shape)}"
            )
    return moments
