"""How a run is saved and gone on with: what engine, moving average and position have to give and to take."""

from __future__ import annotations

import logging
from typing import Any

from lavis_emovit.checkpoints.checkpoint import checkpoint_name
from lavis_emovit.checkpoints.finding import check_belongs, find_trained
from lavis_emovit.checkpoints.saving import CheckpointFacts, CheckpointSaver
from lavis_emovit.checkpoints.training_state import Position, TrainingState, read_model, read_state
from lavis_emovit.distributed import processes
from lavis_emovit.distributed.machine import package_versions
from lavis_emovit.errors import UserError
from lavis_emovit.runners.config import Config
from lavis_emovit.runners.ema import WeightAverage
from lavis_emovit.runners.engines.base import Engine
from lavis_emovit.runners.logs import RunLog
from lavis_emovit.runners.resume import find_start
from lavis_emovit.runners.run_folder import RunFolder

logger = logging.getLogger(__name__)


class Continuation:
    """Saves the positions of a run, and puts a start of it where the last one stopped.

    Called by all ranks alike; rank 0 writes. Used as a context: at its end everything that was begun is on the disk.

    Args:
        config: the recipe.
        folder: the output folder.
        engine: holds the weights that learn, and the optimizer.
        dataset: what is trained on.
        frozen_fingerprint: names the weights that do not learn.
        average: the moving average of the weights, or None.
    """

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        engine: Engine,
        dataset: Any,
        frozen_fingerprint: str,
        average: WeightAverage | None,
    ):
        self._config, self._folder, self._engine = config, folder, engine
        self._dataset, self._average = dataset, average
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
        """Save a position, once.

        Raises:
            CheckpointError: this save, or the one before it beside the training, could not be written.
        """
        if position == self._saved:
            return
        state = TrainingState(
            trained=self._engine.trained_state(),
            engine=self._engine.state(),
            position=position,
            config_yaml=self._config.to_yaml(),
            average=self._average.state_dict() if self._average is not None else None,
        )
        if processes.is_main():
            self._saver.save(state, before=log.sync)
        self._saved = position

    def check(self) -> None:
        """Raise what went wrong beside the training, if anything did."""
        self._saver.check()

    def wait(self) -> None:
        """Return, on all ranks, when everything that was begun is on the disk."""
        self._saver.wait()
        processes.barrier()

    def resume(self, total_steps: int) -> Position | None:
        """Put weights, optimizer and average to where an earlier start stopped, and say where; None for a new run.

        Args:
            total_steps: of the run, for people.

        Raises:
            UserError: there is a checkpoint that cannot be used, or it does not belong to this run.
        """
        start = processes.on_main(lambda: find_start(self._folder, self._config))
        if start is None:
            return None
        path, manifest = start
        if not path.is_dir():
            raise UserError(
                f"{path} is there for rank 0, but not for rank {processes.rank()}: run.output_dir has to lie on a disk "
                "that all machines of the run share"
            )
        check_belongs(
            path,
            manifest,
            index_hash=self._facts.index_hash,
            frozen_fingerprint=self._facts.frozen_fingerprint,
        )
        state = read_state(path)
        self._engine.load_trained(state.trained)
        self._engine.load_state(state.engine)
        if self._average is not None:
            self._average.load_state_dict(state.model)
        position = state.position
        self._saved = position
        logger.info(
            "going on from %s: step %d of %d, epoch %d, next sample %d of %d in the order of index %s",
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
        """Put the best weights into the model, and say which they are; at the end of a run."""
        best = position.best
        if best is not None and best.step != position.step:
            self.wait()
            path, _ = find_trained(self._folder.checkpoints / checkpoint_name(best.step))
            self._engine.load_trained(read_model(path))
        elif self._average is not None:
            self._engine.load_trained(self._average.state_dict())
        return checkpoint_name(best.step if best is not None else position.step)
