"""The output folder of a run: what lies in it, who may write to it, and whether an earlier run there may go on.

config.yaml            the recipe with every default filled in
log.jsonl              one JSON object for each step and each evaluation
tensorboard/           the same figures for TensorBoard
checkpoints/           ckpt-<step>/, see `lavis_emovit.checkpoints.checkpoint`
predictions/           <split>-before.jsonl and <split>-after.jsonl, images/ with thumbnails
quarantine.jsonl       samples that could not be read, where there are any
wandb/                 only with run.wandb
metrics.json           what the report and other programs start from
report.html            written last: a run that has both is finished
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from lavis_emovit.checkpoints.checkpoint import list_checkpoints, remove_leftovers
from lavis_emovit.distributed import processes
from lavis_emovit.errors import ConfigError, UserError
from lavis_emovit.files import atomic_writer
from lavis_emovit.paths import output_root
from lavis_emovit.runners.changes import Changes, find_changes, how_to_allow, listed, refused_changes, unknown_names
from lavis_emovit.runners.config import Config

logger = logging.getLogger(__name__)

# All that a run writes: what `run.overwrite` deletes, and nothing else.
RUN_FILES = ("config.yaml", "log.jsonl", "metrics.json", "report.html", "nonfinite.json", "quarantine.jsonl")
RUN_FOLDERS = ("checkpoints", "predictions", "tensorboard")
# What other programs write there on our behalf, where a recipe asks for them; it belongs to the run as well.
FOREIGN_FOLDERS = ("wandb",)


class RunFolder:
    """An output folder, locked for this process from `open` until `close`.

    Nothing of a run is written or deleted before `begin`: a start that is refused for its weights or data leaves the
    folder as it was. With several processes, rank 0 does all this and the others only know the paths.

    Attributes:
        changes: settings that differ from those of the earlier run, and may.
    """

    def __init__(self, path: Path):
        self.path = path
        self.config_path = path / "config.yaml"
        self.log_path = path / "log.jsonl"
        self.metrics_path = path / "metrics.json"
        self.report_path = path / "report.html"
        self.nonfinite_path = path / "nonfinite.json"
        self.checkpoints = path / "checkpoints"
        self.predictions = path / "predictions"
        self.tensorboard = path / "tensorboard"
        self.changes: Changes = {}
        self._owner_path = path / ".lock-owner.json"
        self._lock = FileLock(path / ".lock")
        self._made: list[Path] = []
        self._replaces_earlier = self._has_begun = False

    @classmethod
    def open(cls, config: Config) -> RunFolder:
        """Lock the output folder of a recipe and settle what happens to an earlier run in it.

        Raises:
            UserError: another process works there, or the path is no folder that can be written to.
            ConfigError: an earlier run is there and may neither go on with these settings nor be deleted.
        """
        folder = cls(output_root() / Path(config.run.output_dir).expanduser())
        if not processes.is_main():
            return folder
        try:
            folder._make()
            folder._acquire()
        except OSError as error:
            raise UserError(f"run.output_dir: {folder.path} cannot be written to: {error}") from None
        try:
            folder._settle(config)
        except BaseException:
            folder.close()
            raise
        return folder

    def begin(self, config: Config) -> None:
        """The run starts: delete the earlier one where that was asked for, and write down the settings."""
        if not self._lock.is_locked:
            return
        if self._replaces_earlier:
            logger.warning("deleting the earlier run in %s, as run.overwrite asks for", self.path)
            self._delete_run()
            self._replaces_earlier = False
        if self.changes:
            logger.warning("going on with other settings, as run.allow_changed says:%s", listed(self.changes))
        self._has_begun = True
        with atomic_writer(self.config_path) as file:
            file.write(config.to_yaml())

    def close(self) -> None:
        """Let other processes in. Where no run has begun, what `open` made is gone again."""
        if not self._lock.is_locked:
            return
        self._owner_path.unlink(missing_ok=True)
        if self._made and not self._has_begun:
            # While the lock is held: a process that has just opened the file sees that it has lost its name.
            (self.path / ".lock").unlink(missing_ok=True)
        self._lock.release()
        if not self._has_begun:
            for path in reversed(self._made):
                try:
                    path.rmdir()
                except OSError:
                    break  # somebody has put something there

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def prediction_path(self, split: str, stage: str) -> Path:
        return self.predictions / f"{split}-{stage}.jsonl"

    def finished_metrics(self, *, with_report: bool) -> dict[str, Any] | None:
        """The metrics of the finished run in this folder, or None where it is not finished.

        Args:
            with_report: the run also writes a report, which comes after the metrics.
        """
        if self._replaces_earlier or (with_report and not self.report_path.exists()):
            return None
        try:
            return json.loads(self.metrics_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise UserError(f"{self.metrics_path}: damaged ({error}); delete it to evaluate again") from None

    def _make(self) -> None:
        missing = [path for path in (self.path, *self.path.parents) if not path.exists()]
        self._made = missing[::-1]
        self.path.mkdir(parents=True, exist_ok=True)

    def _acquire(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            try:
                owner = json.loads(self._owner_path.read_text(encoding="utf-8"))
                who = f"process {owner['pid']} on {owner['host']}"
            except (OSError, ValueError, KeyError):
                who = "another process"
            raise UserError(
                f"{self.path} is in use by {who}. Wait for it or end it, or choose another run.output_dir."
            ) from None
        self._owner_path.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}), encoding="utf-8")

    def _settle(self, config: Config) -> None:
        run = config.run
        earlier = self._earlier_settings()
        for leftover in remove_leftovers(self.checkpoints):
            logger.info("removed %s, left behind by a save that was cut off", leftover)
        if earlier is not None and run.evaluate and not earlier.get("run", {}).get("evaluate", False):
            raise ConfigError(
                [f"run.output_dir: {self.path} holds a training run; give the evaluation a folder of its own"],
                config.source,
            )
        if earlier is not None and run.resume == "never":
            if not run.overwrite:
                raise ConfigError(
                    [
                        f"run.output_dir: {self.path} holds an earlier run and run.resume is never: choose another "
                        "folder, or delete the earlier run with run.overwrite=true"
                    ],
                    config.source,
                )
            self._replaces_earlier = True
            return
        if unknown := unknown_names(run.allow_changed, config.to_dict(), earlier or {}):
            raise ConfigError(unknown, config.source)
        if earlier is not None:
            self.changes = find_changes(earlier, config.to_dict())
            if refused := refused_changes(self.changes, run.allow_changed):
                raise ConfigError(
                    [
                        f"run.output_dir: {self.path} holds an earlier run with other settings; choose another folder, "
                        f"go back to its settings, allow what may change with {how_to_allow(refused)}, or delete it "
                        f"with run.resume=never run.overwrite=true. Changed:{listed(refused)}"
                    ],
                    config.source,
                )
        if earlier is None and list_checkpoints(self.checkpoints):
            raise ConfigError(
                [f"run.output_dir: {self.path} has checkpoints but no config.yaml, so what they belong to is unknown"],
                config.source,
            )

    def _earlier_settings(self) -> dict[str, Any] | None:
        try:
            values = yaml.safe_load(self.config_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{self.config_path}: damaged: {error}") from None
        if not isinstance(values, dict):
            raise UserError(f"{self.config_path}: damaged: not the settings of a run")
        return values

    def _delete_run(self) -> None:
        # The settings go last, so that a deletion that is cut off is recognised and can be asked for again.
        for name in (*RUN_FOLDERS, *FOREIGN_FOLDERS):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in reversed(RUN_FILES):
            (self.path / name).unlink(missing_ok=True)
