"""What a checkpoint holds besides its manifest, in files that need no pickled code: safetensors, JSON and YAML.

Random numbers are not among it: a step seeds every generator from (seed, step, rank), so the position says it all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lavis_emovit.checkpoints.checkpoint import CheckpointError

MODEL_FILE = "model.safetensors"
# Only where a moving average is kept: that is the model then, and these are the weights that training goes on with.
RAW_FILE = "model_raw.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"
CONFIG_FILE = "config.yaml"


@dataclass(frozen=True)
class Best:
    """The validation result that no other has beaten so far."""

    step: int
    metric: str
    value: float


@dataclass(frozen=True)
class Position:
    """Where a run stands.

    Attributes:
        step: optimizer steps done in the whole run.
        epoch: epoch in which the next step lies.
        step_in_epoch: steps done in that epoch.
        best: the best validation so far, or None.
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
    """Optimizer and loss scaler, named by parameter and free of any rank layout.

    Attributes:
        tensors: for example `exp_avg.<parameter name>`.
        values: numbers, as JSON takes them.
    """

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingState:
    """Everything that a run needs to go on as if it had not stopped.

    Attributes:
        trained: the weights that training goes on with, by name.
        engine: optimizer and loss scaler.
        position: where the run stands.
        config_yaml: its settings.
        average: the moving average of the weights, where one is kept.
    """

    trained: dict[str, torch.Tensor]
    engine: EngineState
    position: Position
    config_yaml: str
    average: dict[str, torch.Tensor] | None = None

    @property
    def model(self) -> dict[str, torch.Tensor]:
        """The weights to evaluate and to use: the moving average where there is one."""
        return self.trained if self.average is None else self.average


def writers_of(state: TrainingState) -> dict[str, Callable[[Path], None]]:
    """The functions that write each file of a checkpoint."""
    values = {"position": asdict(state.position), "engine": state.engine.values}
    raw = {RAW_FILE: lambda path: save_file(_on_cpu(state.trained), path)} if state.average is not None else {}
    return {
        MODEL_FILE: lambda path: save_file(_on_cpu(state.model), path),
        **raw,
        OPTIMIZER_FILE: lambda path: save_file(_on_cpu(state.engine.tensors), path),
        STATE_FILE: lambda path: _write_text(path, json.dumps(values, indent=1, sort_keys=True) + "\n"),
        CONFIG_FILE: lambda path: _write_text(path, state.config_yaml),
    }


def read_state(path: Path) -> TrainingState:
    """Read a checkpoint folder that `verify_checkpoint` has found whole."""
    try:
        model = load_file(path / MODEL_FILE)
        raw = load_file(path / RAW_FILE) if (path / RAW_FILE).exists() else None
        return TrainingState(
            trained=model if raw is None else raw,
            engine=EngineState(load_file(path / OPTIMIZER_FILE), _values(path)["engine"]),
            position=read_position(path),
            config_yaml=(path / CONFIG_FILE).read_text(encoding="utf-8"),
            average=None if raw is None else model,
        )
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path}: whole, but not a training state that can be read: {error}") from None


def read_position(path: Path) -> Position:
    """Only the position of a checkpoint folder, without its tensors."""
    values = _values(path)["position"]
    best = values.pop("best")
    return Position(**values, best=Best(**best) if best else None)


def read_model(path: Path) -> dict[str, torch.Tensor]:
    """Only the weights to use, without the optimizer's state."""
    try:
        return load_file(path / MODEL_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path}: whole, but its weights cannot be read: {error}") from None


def _values(path: Path) -> dict[str, Any]:
    return json.loads((path / STATE_FILE).read_text(encoding="utf-8"))


def _on_cpu(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
