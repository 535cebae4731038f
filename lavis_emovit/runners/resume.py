"""Which checkpoint a run goes on from, and whether that checkpoint belongs to it."""

from __future__ import annotations

import logging
from pathlib import Path

import yaml

from lavis_emovit.checkpoints.checkpoint import (
    Manifest,
    list_checkpoints,
    newest_checkpoint,
    step_of,
    verify_checkpoint,
)
from lavis_emovit.errors import ConfigError, UserError
from lavis_emovit.runners.changes import find_changes, how_to_allow, listed, refused_changes
from lavis_emovit.runners.config import Config
from lavis_emovit.runners.run_folder import RunFolder

logger = logging.getLogger(__name__)


def find_start(folder: RunFolder, config: Config) -> tuple[Path, Manifest] | None:
    """The checkpoint to go on from, verified, or None for a start from the beginning.

    Raises:
        UserError: checkpoints are there and none of them verifies, or the one that is named does not.
        ConfigError: the one that is named is of a run with other settings, or would leave later ones behind it.
    """
    resume = config.run.resume
    if resume == "never":
        return None
    if resume == "auto":
        return _newest(folder)
    path = Path(resume).expanduser()
    manifest = verify_checkpoint(path)
    if manifest.config_hash != config.identity_hash:
        written = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
        changes = find_changes(written, config.to_dict())
        if refused := refused_changes(changes, config.run.allow_changed):
            raise ConfigError(
                [
                    f"run.resume: {path} is of a run with other settings; go back to its settings, or allow what may "
                    f"change with {how_to_allow(refused)}. Changed:{listed(refused)}"
                ],
                config.source,
            )
        logger.warning("going on with other settings, as run.allow_changed says:%s", listed(changes))
    later = [other.name for other in list_checkpoints(folder.checkpoints) if step_of(other) > manifest.step]
    if later:
        raise ConfigError(
            [
                f"run.resume: {folder.checkpoints} has later checkpoints ({', '.join(later)}); choose another "
                "run.output_dir, or delete them"
            ],
            config.source,
        )
    return path, manifest


def _newest(folder: RunFolder) -> tuple[Path, Manifest] | None:
    path, manifest, rejected = newest_checkpoint(folder.checkpoints)
    for item in rejected:
        logger.warning("checkpoint %s is passed over: %s", item.path.name, item.reason)
    if path is not None and manifest is not None:
        return path, manifest
    if rejected:
        reasons = "\n".join(f"  - {item.reason}" for item in rejected)
        raise UserError(
            f"no checkpoint in {folder.checkpoints} can be used:\n{reasons}\n"
            "Restore one from a copy, or start anew with run.resume=never run.overwrite=true."
        )
    return None
