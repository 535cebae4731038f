"""The output folder of a run: its files, its lock, and whether an earlier run in it may be resumed.

docs/dataflow.md lists the files. The report is written last: a run with metrics.json and report.html is finished.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lavis_emovit.checkpoints.checkpoint import remove_leftovers
from lavis_emovit.distributed import processes
from lavis_emovit.errors import ConfigError, UserError
from lavis_emovit.evaluation.written import RunMetrics
from lavis_emovit.files import atomic_writer, name_full_disk, read_file, regular_file
from lavis_emovit.own_files import Written, parse_as, read_own_if_any
from lavis_emovit.paths import expand_home, list_checkpoints, output_root
from lavis_emovit.runners.changes import Changes, allowed_changes, listed, unknown_names
from lavis_emovit.runners.config import Config
from lavis_emovit.settings import written_values

logger = logging.getLogger(__name__)

# Everything that a run writes. `run.overwrite` deletes this and nothing else.
RUN_FILES = (
    "config.yaml", "log.jsonl", "metrics.json", "report.html", "nonfinite.json", "quarantine.jsonl", "dropped.jsonl"
)  # fmt: skip
RUN_FOLDERS = ("checkpoints", "predictions", "tensorboard", "wandb")


class _Owner(Written):
    """Who holds the lock of a folder."""

    pid: int
    host: str


class RunFolder:
    """An output folder, locked for this process from `open` until `close`.

    Nothing is written or deleted before `begin`, so a start that is refused because of its weights or data changes
    nothing. With several processes, rank 0 does all this and the others only know the paths.

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
        self.dropped_path = path / "dropped.jsonl"
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
        """Lock the output folder of a recipe and decide what happens to an earlier run in it.

        Raises:
            UserError: another process uses the folder, or it cannot be written to.
            ConfigError: an earlier run can neither be resumed with these settings nor be deleted.
        """
        folder = cls(output_root() / expand_home(config.run.output_dir))
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
        """Delete the earlier run if `run.overwrite` is set, and write the settings."""
        if not self._lock.is_locked:
            return
        if self._replaces_earlier:
            logger.warning("deleting the earlier run in %s, because of run.overwrite", self.path)
            self._delete_run()
            self._replaces_earlier = False
        if self.changes:
            logger.warning("resuming with other settings, which run.allow_changed allows:%s", listed(self.changes))
            # They are those of the run with its earlier settings.
            self.metrics_path.unlink(missing_ok=True)
        self._has_begun = True
        with atomic_writer(self.config_path) as file:
            file.write(config.to_yaml())

    def close(self) -> None:
        """Release the folder. If no run has begun, remove what `open` made."""
        if not self._lock.is_locked:
            return
        self._owner_path.unlink(missing_ok=True)
        if self._made and not self._has_begun:
            # Before the release: a process that has just opened the file notices that it has lost its name.
            (self.path / ".lock").unlink(missing_ok=True)
        self._lock.release()
        if not self._has_begun:
            for path in reversed(self._made):
                try:
                    path.rmdir()
                except OSError:
                    break  # it contains something else

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def prediction_path(self, split: str, stage: str) -> Path:
        return self.predictions / f"{split}-{stage}.jsonl"

    def finished_metrics(self, *, with_report: bool) -> dict[str, Any] | None:
        """The metrics of a finished run in this folder, else None, also if the run resumes with other settings.

        `with_report` says whether the run also writes a report.
        """
        if self._replaces_earlier or self.changes or (with_report and not self.report_path.exists()):
            return None
        found = read_own_if_any(self.metrics_path, RunMetrics, "Delete it to evaluate again.")
        return None if found is None else found.model_dump(exclude_unset=True)

    def _make(self) -> None:
        missing = [path for path in (self.path, *self.path.parents) if not path.exists()]
        self._made = missing[::-1]
        self.path.mkdir(parents=True, exist_ok=True)

    def _acquire(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            try:
                owner = parse_as(read_file(self._owner_path), _Owner)
                who = f"process {owner.pid} on {owner.host}"
            except (OSError, ValueError):
                who = "another process"
            raise UserError(
                f"{self.path} is in use by {who}. Wait for it or end it, or choose another run.output_dir."
            ) from None
        with name_full_disk(self.path):
            owner_json = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
            self._owner_path.write_text(owner_json, encoding="utf-8")

    def _settle(self, config: Config) -> None:
        run = config.run
        earlier = self._earlier_settings()
        for leftover in remove_leftovers(self.checkpoints):
            logger.info("removed %s, which an interrupted save left behind", leftover)
        if earlier is not None and run.evaluate and not earlier.get("run", {}).get("evaluate", False):
            raise ConfigError(
                [f"run.output_dir: {self.path} contains a training run; choose another folder for the evaluation"],
                config.source,
            )
        if earlier is not None and run.resume == "never":
            if not run.overwrite:
                raise ConfigError(
                    [
                        f"run.output_dir: {self.path} contains an earlier run, and run.resume is never. Choose another "
                        "folder, or delete the earlier run with run.overwrite=true."
                    ],
                    config.source,
                )
            self._replaces_earlier = True
            return
        if unknown := unknown_names(run.allow_changed, config.to_dict(), earlier or {}):
            raise ConfigError(unknown, config.source)
        if earlier is not None:
            advice = "choose another folder, or delete the run with run.resume=never run.overwrite=true"
            self.changes = allowed_changes(f"run.output_dir: {self.path}", earlier, config, advice)
        if earlier is None and list_checkpoints(self.checkpoints):
            raise ConfigError(
                [f"run.output_dir: {self.path} has checkpoints but no config.yaml, so their settings are unknown"],
                config.source,
            )

    def _earlier_settings(self) -> dict[str, Any] | None:
        try:
            values = written_values(regular_file(self.config_path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise UserError(f"{self.config_path}: damaged: {error}") from None
        if not isinstance(values, dict) or not isinstance(values.get("run"), dict):
            raise UserError(f"{self.config_path}: damaged: these are not the settings of a run")
        return values

    def _delete_run(self) -> None:
        # The settings are deleted last, so that an interrupted deletion can be repeated.
        for name in RUN_FOLDERS:
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in reversed(RUN_FILES):
            (self.path / name).unlink(missing_ok=True)
