"""Weights & Biases as a sink of the log, for recipes with `run.wandb`."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lavis_emovit.errors import UserError
from lavis_emovit.runners.logs import scalars_of

ID_NAME = "run-id.txt"


class WandbSink:
    """Sends the numbers of the rows to a run of Weights & Biases, which is resumed together with ours.

    A resumed run repeats a few steps. Weights & Biases cannot delete rows, so its curves have these steps twice. The
    run has the name of `folder`, the output folder; UserError if it cannot be opened.
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
        except Exception as error:  # wandb raises a dozen kinds, from a missing key to a network error
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
    """The id of this folder's run, drawn once, so that a resumed run continues its curves."""
    path = place / ID_NAME
    if not path.exists():
        path.write_text(secrets.token_hex(4), encoding="ascii")
    return path.read_text(encoding="ascii").strip()
