"""The content of a checkpoint without its manifest: safetensors, JSON and YAML files.

It has no random states: every step seeds the generators from (seed, step, rank), so the position determines them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from lavis_emovit.checkpoints.checkpoint import CheckpointError
from lavis_emovit.errors import DataError
from lavis_emovit.own_files import Written, read_own

MODEL_FILE = "model.safetensors"
# Only with a moving average: MODEL_FILE then has the average, RAW_FILE the weights that training resumes with.
RAW_FILE = "model_raw.safetensors"
# Only with `run.drop_samples`.
SAMPLES_FILE = "samples.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"
CONFIG_FILE = "config.yaml"
QUESTIONS_FILE = "questions.json"


@dataclass(frozen=True)
class Best:
    """The best validation so far."""

    step: int
    metric: str
    value: float


@dataclass(frozen=True)
class Position:
    """How far a run is.

    Attributes:
        step: optimizer steps done in the whole run.
        epoch: epoch of the next step, from 0.
        step_in_epoch: steps done in that epoch.
    """

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    best: Best | None = None

    def after_step(self) -> Position:
        return replace(self, step=self.step + 1, step_in_epoch=self.step_in_epoch + 1)

    def after_epoch(self) -> Position:
        return replace(self, epoch=self.epoch + 1, step_in_epoch=0)


@dataclass(frozen=True)
class EngineState:
    """Optimizer and loss scaler, by parameter name and independent of the number of ranks."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)  # for example `exp_avg.<parameter name>`
    values: dict[str, Any] = field(default_factory=dict)  # numbers, as in JSON


@dataclass(frozen=True)
class TrainingState:
    """Everything that a run needs to resume as if it had not stopped.

    Attributes:
        trained: the weights that training resumes with, by name.
        average: the moving average of the weights, if there is one.
        questions_json: what the run evaluates the model with, for those who use it later.
        samples: last values of the training samples, and which are dropped and why, if samples are dropped.
    """

    trained: dict[str, torch.Tensor]
    engine: EngineState
    position: Position
    config_yaml: str
    average: dict[str, torch.Tensor] | None = None
    questions_json: str = "{}"
    samples: dict[str, torch.Tensor] | None = None

    @property
    def model(self) -> dict[str, torch.Tensor]:
        """The weights to evaluate and to use: the moving average if there is one."""
        return self.trained if self.average is None else self.average


def writers_of(state: TrainingState) -> dict[str, Callable[[Path], None]]:
    """File name -> function that writes this file of a checkpoint."""
    values = {"position": asdict(state.position), "engine": state.engine.values}
    samples = state.samples
    last_values = {SAMPLES_FILE: lambda path: save_file(_on_cpu(samples), path)} if samples is not None else {}
    raw = {RAW_FILE: lambda path: save_file(_on_cpu(state.trained), path)} if state.average is not None else {}
    return {
        MODEL_FILE: lambda path: save_file(_on_cpu(state.model), path),
        **raw,
        **last_values,
        OPTIMIZER_FILE: lambda path: save_file(_on_cpu(state.engine.tensors), path),
        STATE_FILE: lambda path: _write_text(path, json.dumps(values, indent=1, sort_keys=True) + "\n"),
        CONFIG_FILE: lambda path: _write_text(path, state.config_yaml),
        QUESTIONS_FILE: lambda path: _write_text(path, state.questions_json),
    }


def read_state(path: Path) -> TrainingState:
    """Read a checkpoint folder that `verify_checkpoint` accepted."""
    try:
        model = load_file(path / MODEL_FILE)
        raw = load_file(path / RAW_FILE) if (path / RAW_FILE).exists() else None
        return TrainingState(
            trained=model if raw is None else raw,
            engine=EngineState(load_file(path / OPTIMIZER_FILE), _stored(path).engine),
            position=read_position(path),
            config_yaml=(path / CONFIG_FILE).read_text(encoding="utf-8"),
            average=None if raw is None else model,
            samples=load_file(path / SAMPLES_FILE) if (path / SAMPLES_FILE).exists() else None,
        )
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path}: complete, but not a training state that can be read: {error}") from None


def read_position(path: Path) -> Position:
    """Only the position of a checkpoint folder, without its tensors."""
    return _stored(path).position


def read_model(path: Path) -> dict[str, torch.Tensor]:
    """Only the weights to use, without the optimizer's state."""
    try:
        return load_file(path / MODEL_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path}: complete, but its weights cannot be read: {error}") from None


def model_names(path: Path) -> list[str]:
    """The names of the weights that `read_model` reads."""
    try:
        with safe_open(path / MODEL_FILE, "pt") as file:
            return list(file.keys())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: complete, but its weights cannot be read: {error}") from None


class _Stored(Written):
    """The file `state.json`: where the run is, and the numbers of its engine."""

    position: Position
    engine: dict[str, Any]


def _stored(path: Path) -> _Stored:
    try:
        return read_own(path / STATE_FILE, _Stored, "Restore it from a copy, or use another checkpoint.")
    except DataError as error:
        raise CheckpointError(str(error)) from None


def _on_cpu(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
