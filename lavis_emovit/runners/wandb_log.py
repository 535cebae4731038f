"""Weights & Biases as a further taker of the log's rows, for recipes that ask for it (`run.wandb`)."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lavis_emovit.errors import UserError
from lavis_emovit.runners.logs import scalars_of

ID_NAME = "run-id.txt"


class WandbSink:
    """The numbers of the rows in a Weights & Biases run that is gone on with when the run is.

    A run that goes on does a few steps a second time, which Weights & Biases cannot take back: they stand in its curves
    twice, at the same step.

    Args:
        project: name of the project there.
        folder: output folder of the run; its name is the run's name, and `wandb/` in it takes the files.
        config: the settings, as plain values.

    Raises:
        UserError: the package is missing, or the run cannot be opened.
    """

    def __init__(self, project: str, folder: Path, config: Mapping[str, Any]):
        try:
            import wandb  # optional, and slow to load
        except ImportError:
            raise UserError(
                "run.wandb is set, but the package is not installed: pip install wandb, or set run.wandb=false"
            ) from None
        place = folder / "wandb"
        place.mkdir(parents=True, exist_ok=True)
        try:
            self._run = wandb.init(
                project=project,
                name=folder.name,
                id=_run_id(place),
                resume="allow",
                dir=str(folder),
                config=dict(config),
            )
        except Exception as error:  # wandb has a dozen kinds, from a missing key to a network that does not answer
            raise UserError(
                f"run.wandb: a run cannot be opened: {error}. Log in with `wandb login`, or set WANDB_MODE=offline."
            ) from error
        self._run.define_metric("*", step_metric="step")

    def write(self, row: Mapping[str, Any]) -> None:
        scalars = scalars_of(row)
        if scalars:
            self._run.log({**scalars, "step": row["step"]})

    def close(self) -> None:
        self._run.finish()


def _run_id(place: Path) -> str:
    """The id of this folder's run there: drawn once, so that a run that goes on finds its curves again."""
    path = place / ID_NAME
    if not path.exists():
        path.write_text(secrets.token_hex(4), encoding="ascii")
    return path.read_text(encoding="ascii").strip()
