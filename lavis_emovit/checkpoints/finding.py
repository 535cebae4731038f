"""Finds the checkpoint that a path names, and checks that it belongs to the model and the data."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from lavis_emovit.checkpoints.checkpoint import (
    CheckpointError,
    Manifest,
    checkpoint_name,
    newest_checkpoint,
    verify_checkpoint,
)
from lavis_emovit.checkpoints.training_state import model_names, read_model, read_position
from lavis_emovit.errors import UserError, WeightsError
from lavis_emovit.paths import MANIFEST_NAME, expand_home


def check_belongs(
    path: Path, manifest: Manifest, *, index_hash: str | None, frozen_fingerprint: str, trained: Collection[str]
) -> None:
    """Refuse a checkpoint of other data (UserError; None: any data) or other frozen weights (WeightsError).

    `trained` has the names of the model's trained parameters: what is not trained is frozen.
    """
    if index_hash is not None and manifest.index_hash != index_hash:
        raise UserError(
            f"{path}: trained on data with index {manifest.index_hash[:12]}, the training data has {index_hash[:12]}. "
            "Restore the shards, ratios and version of lavis_emovit of that run, or choose another run.output_dir."
        )
    if manifest.frozen_fingerprint != frozen_fingerprint:
        if other := set(trained).symmetric_difference(model_names(path)):
            raise WeightsError(
                f"{path}: only one of this model and the checkpoint trains {min(other)} ({len(other)} parameters "
                "differ). Set model.trained_parts and model.lora as in the run that wrote it."
            )
        raise WeightsError(
            f"{path}: trained with frozen weights {manifest.frozen_fingerprint[:12]}, this model's are "
            f"{frozen_fingerprint[:12]}. Point model.pretrained to the weights of that run."
        )


def load_trained(model: Any, path: Path, manifest: Manifest) -> None:
    """Load the weights of a verified checkpoint into the model of its settings; raises as `check_belongs`."""
    fingerprint, names = model.frozen_fingerprint(), model.trained_parameter_names()
    check_belongs(path, manifest, index_hash=None, frozen_fingerprint=fingerprint, trained=names)
    model.load_trained_state_dict(read_model(path), str(path))


def find_trained(location: str | Path) -> tuple[Path, Manifest]:
    """The checkpoint folder at a location, or the best one of a run's folder; CheckpointError if none verifies."""
    path = expand_home(location)
    if (path / MANIFEST_NAME).is_file():
        return path, verify_checkpoint(path)
    root = path / "checkpoints"
    newest, rejected = newest_checkpoint(root)
    if newest is None:
        why = f": {next(iter(rejected.values()))}" if rejected else ""
        raise CheckpointError(
            f"{path}: neither a checkpoint folder nor the folder of a run with a checkpoint that verifies{why}. "
            "Train first, or name another run.checkpoint."
        )
    best = read_position(newest[0]).best
    if best is None:
        return newest
    path = root / checkpoint_name(best.step)
    return path, verify_checkpoint(path)
