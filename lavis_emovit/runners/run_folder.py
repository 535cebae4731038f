"""The output folder of a run: what lies in it, who may write to it, and whether an earlier run there may go on.

config.yaml            the recipe with every default filled in
log.jsonl              one JSON object for each step and each evaluation
tensorboard/           the same figures for TensorBoard
checkpoints/           ckpt-<step>/, see `lavis_emovit.runners.checkpoint`
predictions/           <split>-before.jsonl and <split>-after.jsonl, images/ with thumbnails
quarantine.jsonl       samples that could not be read, where there are any
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

from lavis_emovit.errors import ConfigError, UserError
from lavis_emovit.files import atomic_writer
from lavis_emovit.paths import output_root
from lavis_emovit.runners.checkpoint import list_checkpoints, remove_leftovers
from lavis_emovit.runners.config import Config, changed_settings

logger = logging.getLogger(__name__)

# All that a run writes: what `run.overwrite` deletes, and nothing else.
RUN_FILES = ("config.yaml", "log.jsonl", "metrics.json", "report.html", "nonfinite.json", "quarantine.jsonl")
RUN_FOLDERS = ("checkpoints", "predictions", "tensorboard")


class RunFolder:
    """An output folder, locked for this process from `open` until `close`."""

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
        self._owner_path = path / ".lock-owner.json"
        self._lock = FileLock(path / ".lock")

    @classmethod
    def open(cls, config: Config) -> RunFolder:
        """Lock the output folder of a recipe and settle what happens to an earlier run in it.

        Raises:
            UserError: another process works there, or the path is no folder that can be written to.
            ConfigError: an earlier run is there and may neither go on with these settings nor be deleted.
        """
        folder = cls(output_root() / Path(config.run.output_dir).expanduser())
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            folder._acquire()
        except OSError as error:
            raise UserError(f"run.output_dir: {folder.path} cannot be written to: {error}") from None
        try:
            folder._settle(config)
        except BaseException:
            folder.close()
            raise
        return folder

    def close(self) -> None:
        """Let other processes in."""
        self._owner_path.unlink(missing_ok=True)
        self._lock.release()

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
        if with_report and not self.report_path.exists():
            return None
        try:
            return json.loads(self.metrics_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise UserError(f"{self.metrics_path}: damaged ({error}); delete it to evaluate again") from None

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
            logger.warning("deleting the earlier run in %s, as run.overwrite asks for", self.path)
            self._delete_run()
            earlier = None
        if earlier is not None and (changes := changed_settings(earlier, config.to_dict())):
            raise ConfigError(
                [
                    f"run.output_dir: {self.path} holds an earlier run with other settings; choose another folder, go "
                    f"back to its settings, or delete it with run.resume=never run.overwrite=true. Changed:{changes}"
                ],
                config.source,
            )
        if earlier is None and list_checkpoints(self.checkpoints):
            raise ConfigError(
                [f"run.output_dir: {self.path} has checkpoints but no config.yaml, so what they belong to is unknown"],
                config.source,
            )
        with atomic_writer(self.config_path) as file:
            file.write(config.to_yaml())

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
        for name in RUN_FOLDERS:
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in reversed(RUN_FILES):
            (self.path / name).unlink(missing_ok=True)
