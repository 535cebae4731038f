"""Saving beside the training: a step waits only while the state is copied; a thread hashes and writes.

The order of things is that of `lavis_emovit.checkpoints.checkpoint`, whoever does them: whole or not there at all. One
save runs at a time. What goes wrong in the thread stops the run at its next step.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lavis_emovit.checkpoints.checkpoint import purge_checkpoints, save_checkpoint
from lavis_emovit.checkpoints.training_state import EngineState, TrainingState, writers_of

logger = logging.getLogger(__name__)

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class CheckpointFacts:
    """What the manifest of every checkpoint of a run says, see `checkpoint.Manifest`."""

    index_hash: str
    config_hash: str
    frozen_fingerprint: str
    versions: Mapping[str, str]


class CheckpointSaver:
    """Saves a run's checkpoints into a folder and keeps the last ones and the best.

    Used as a context: at its end everything that was begun is on the disk.

    Args:
        root: folder of the checkpoints.
        facts: for the manifests.
        keep_last: newest checkpoints kept; the best one is kept besides.
        is_async: write in a thread, from a copy in host memory (as large as the checkpoint, and kept for the next one).
    """

    def __init__(self, root: Path, facts: CheckpointFacts, *, keep_last: int, is_async: bool = True):
        self._root, self._facts = root, facts
        self._keep_last, self._is_async = keep_last, is_async
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._copies: dict[str, torch.Tensor] = {}

    def save(self, state: TrainingState, *, before: Callable[[], None] | None = None) -> None:
        """Save a state; returns when it is copied or, without a thread, when it is on the disk.

        Args:
            state: its tensors may change as soon as this returns.
            before: called ahead of the first file, such as to flush a log that a checkpoint must not be ahead of.

        Raises:
            CheckpointError: this save, or the one before it in the thread, could not be written.
        """
        self.wait()
        if not self._is_async:
            self._write(state, before)
            return
        copy = self._copy(state)
        self._thread = threading.Thread(target=self._write_in_thread, args=(copy, before), name="save", daemon=False)
        self._thread.start()

    def check(self) -> None:
        """Raise what went wrong in the thread since the last look, if anything did; waits for nothing."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Return when the save that was begun is on the disk.

        Raises:
            CheckpointError: it could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def __enter__(self) -> CheckpointSaver:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.wait()
        except Exception as failed:
            if error is None:
                raise
            # What ended the run is the news; that the last save failed as well must still be known.
            logger.error("%s", failed)

    def _write_in_thread(self, state: TrainingState, before: Callable[[], None] | None) -> None:
        try:
            self._write(state, before)
        except BaseException as error:
            self._error = error

    def _write(self, state: TrainingState, before: Callable[[], None] | None) -> None:
        if before is not None:
            before()
        position = state.position
        path = save_checkpoint(
            self._root,
            step=position.step,
            epoch=position.epoch,
            index_hash=self._facts.index_hash,
            config_hash=self._facts.config_hash,
            frozen_fingerprint=self._facts.frozen_fingerprint,
            versions=self._facts.versions,
            writers=writers_of(state),
        )
        purge_checkpoints(
            self._root,
            newest_step=position.step,
            keep_last=self._keep_last,
            keep_steps={position.best.step} if position.best else set(),
        )
        logger.info("saved %s", path)

    def _copy(self, state: TrainingState) -> TrainingState:
        """The state with its tensors copied into host memory, which is taken anew only where shapes change."""
        used: set[str] = set()

        def copied(kind: str, tensors: Tensors) -> dict[str, torch.Tensor]:
            return {name: self._host_copy(f"{kind}/{name}", tensor, used) for name, tensor in tensors.items()}

        copy = replace(
            state,
            trained=copied("trained", state.trained),
            average=None if state.average is None else copied("average", state.average),
            engine=EngineState(copied("engine", state.engine.tensors), dict(state.engine.values)),
        )
        if any(tensor.is_cuda for tensor in (*state.trained.values(), *state.engine.tensors.values())):
            torch.cuda.synchronize()
        self._copies = {key: tensor for key, tensor in self._copies.items() if key in used}
        return copy

    def _host_copy(self, key: str, tensor: torch.Tensor, used: set[str]) -> torch.Tensor:
        used.add(key)
        host = self._copies.get(key)
        if host is None or host.shape != tensor.shape or host.dtype != tensor.dtype:
            # Pinned memory lets a GPU copy at the full speed of the bus.
            host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._copies[key] = host
        host.copy_(tensor.detach(), non_blocking=tensor.is_cuda)
        return host
