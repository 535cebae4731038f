"""Saves a run and resumes it: which checkpoint it resumes from, and the state of engine, average and position."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

from lavis_emovit.checkpoints.checkpoint import (
    CheckpointFacts,
    Manifest,
    checkpoint_name,
    newest_checkpoint,
    step_of,
    verify_checkpoint,
)
from lavis_emovit.checkpoints.finding import check_belongs, find_trained
from lavis_emovit.checkpoints.saving import CheckpointSaver
from lavis_emovit.checkpoints.training_state import Position, TrainingState, read_model, read_state
from lavis_emovit.distributed import processes
from lavis_emovit.distributed.versions import package_versions
from lavis_emovit.errors import ConfigError, UserError, bullet_list
from lavis_emovit.evaluation.trained_questions import TrainedQuestions
from lavis_emovit.paths import expand_home, list_checkpoints
from lavis_emovit.runners.changes import allowed_changes, listed
from lavis_emovit.runners.config import Config
from lavis_emovit.runners.drop_samples import SampleDrops
from lavis_emovit.runners.ema import WeightAverage
from lavis_emovit.runners.engines.base import Engine
from lavis_emovit.runners.loaders import TrainDataset
from lavis_emovit.runners.logs import RunLog
from lavis_emovit.runners.run_folder import RunFolder
from lavis_emovit.settings import written_values

logger = logging.getLogger(__name__)


class Continuation:
    """Saves positions of a run, and resumes it at one.

    All ranks make the same calls; rank 0 writes. As a context manager it finishes all saves at its end.
    """

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        engine: Engine,
        dataset: TrainDataset,
        frozen_fingerprint: str,
        trained: Collection[str],
        average: WeightAverage | None,
        drops: SampleDrops | None,
        questions: TrainedQuestions,
    ):
        self._questions_json = questions.model_dump_json(indent=1)
        self._config, self._folder, self._engine = config, folder, engine
        self._dataset, self._trained, self._average, self._drops = dataset, trained, average, drops
        self._facts = CheckpointFacts(
            index_hash=dataset.index_hash,
            config_hash=config.identity_hash,
            frozen_fingerprint=frozen_fingerprint,
            versions=package_versions(),
        )
        self._saver = CheckpointSaver(
            folder.checkpoints, self._facts, keep_last=config.run.keep_last, is_async=config.run.async_save
        )
        self._saved: Position | None = None

    def __enter__(self) -> Continuation:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._saver.__exit__(*exception)

    def save(self, position: Position, log: RunLog) -> None:
        """Save a position, once; CheckpointError if this save, or the previous one in the background, fails."""
        if position == self._saved:
            return
        state = TrainingState(
            trained=self._engine.trained_state(),
            engine=self._engine.state(),
            position=position,
            config_yaml=self._config.to_yaml(),
            average=self._average.state_dict() if self._average is not None else None,
            questions_json=self._questions_json,
            samples=self._drops.state_dict() if self._drops is not None else None,
        )
        if processes.is_main():
            self._saver.save(state, before=log.sync)
        self._saved = position

    def check(self) -> None:
        """Raise the error of a save in the background, if there is one."""
        self._saver.check()

    def wait(self) -> None:
        """Return, on all ranks, when all saves are on the disk."""
        self._saver.wait()
        processes.barrier()

    def resume(self, total_steps: int) -> Position | None:
        """Restore weights, optimizer and average of an earlier start; its position, or None for a new run.

        Raises:
            UserError: a checkpoint cannot be used, does not belong to this run, or is later than its last step.
        """
        start = processes.on_main(lambda: find_start(self._folder, self._config))
        if start is None:
            return None
        path, manifest = start
        if not path.is_dir():
            raise UserError(
                f"{path} exists for rank 0, but not for rank {processes.rank()}; run.output_dir must be on a disk that "
                "all machines share"
            )
        facts = self._facts
        fingerprint = facts.frozen_fingerprint
        check_belongs(
            path, manifest, index_hash=facts.index_hash, frozen_fingerprint=fingerprint, trained=self._trained
        )
        if manifest.step > total_steps:
            raise UserError(
                f"{path}: is at step {manifest.step}, but this run ends at step {total_steps}. Set run.max_steps or "
                f"run.max_epoch so that it ends at step {manifest.step} or later, or choose another run.output_dir."
            )
        state = read_state(path)
        self._engine.load_trained(state.trained)
        self._engine.load_state(state.engine)
        if self._average is not None:
            self._average.load_state_dict(state.model)
        position = state.position
        if self._drops is not None:
            self._drops.load_state_dict(state.samples, position.epoch)
        self._saved = position
        logger.info(
            "resuming from %s: step %d of %d, epoch %d, next sample %d of %d in the order of index %s",
            path.name,
            position.step,
            total_steps,
            position.epoch + 1,
            min(position.step_in_epoch * self._config.run.global_batch_size, len(self._dataset)),
            len(self._dataset),
            manifest.index_hash[:12],
        )
        return position

    def load_best(self, position: Position) -> str:
        """Load the best weights into the model at the end of a run; the name of their checkpoint."""
        best = position.best
        if best is not None and best.step != position.step:
            self.wait()
            path, _ = find_trained(self._folder.checkpoints / checkpoint_name(best.step))
            self._engine.load_trained(read_model(path))
        elif self._average is not None:
            self._engine.load_trained(self._average.state_dict())
        return checkpoint_name(best.step if best is not None else position.step)


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
    path = expand_home(resume)
    manifest = verify_checkpoint(path)
    if manifest.config_hash != config.identity_hash:
        written = written_values((path / "config.yaml").read_text(encoding="utf-8"))
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
    newest, rejected = newest_checkpoint(folder.checkpoints)
    for path, reason in rejected.items():
        logger.warning("checkpoint %s is skipped: %s", path.name, reason)
    if newest is None and rejected:
        raise UserError(
            f"no checkpoint in {folder.checkpoints} can be used:\n{bullet_list(list(rejected.values()))}\n"
            "Restore one from a copy, or start again with run.resume=never run.overwrite=true."
        )
    return newest
