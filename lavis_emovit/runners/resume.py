"""Which checkpoint a run resumes from, and whether it belongs to the run."""

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
from lavis_emovit.runners.changes import allowed_changes, listed
from lavis_emovit.runners.config import Config
from lavis_emovit.runners.run_folder import RunFolder

logger = logging.getLogger(__name__)


def find_start(folder: RunFolder, config: Config) -> tuple[Path, Manifest] | None:
    """The checkpoint to resume from, verified, or None to start from the beginning.

    Raises:
        UserError: there are checkpoints but none verifies, or the one that `run.resume` names does not.
        ConfigError: the one that `run.resume` names has other settings, or the folder has later ones.
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
        if changes := allowed_changes(f"run.resume: {path}", written, config, "choose another checkpoint"):
            logger.warning("resuming with other settings, which run.allow_changed allows:%s", listed(changes))
    later = [other.name for other in list_checkpoints(folder.checkpoints) if step_of(other) > manifest.step]
    if later:
        raise ConfigError(
            [
                f"run.resume: {folder.checkpoints} has later checkpoints ({', '.join(later)}). Choose another "
                "run.output_dir, or delete them."
            ],
            config.source,
        )
    return path, manifest


def _newest(folder: RunFolder) -> tuple[Path, Manifest] | None:
    path, manifest, rejected = newest_checkpoint(folder.checkpoints)
    for item in rejected:
        logger.warning("checkpoint %s is skipped: %s", item.path.name, item.reason)
    if path is not None and manifest is not None:
        return path, manifest
    if rejected:
        reasons = "\n".join(f"  - {item.reason}" for item in rejected)
        raise UserError(
            f"no checkpoint in {folder.checkpoints} can be used:\n{reasons}\n"
            "Restore one from a copy, or start again with run.resume=never run.overwrite=true."
        )
    return None
