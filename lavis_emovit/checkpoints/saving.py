"""Saves checkpoints in the background: a step waits only while the state is copied; a thread hashes and writes.

One save runs at a time. An error in the thread stops the run at its next step.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from lavis_emovit.checkpoints.checkpoint import CheckpointFacts, purge_checkpoints, save_checkpoint
from lavis_emovit.checkpoints.training_state import EngineState, TrainingState, writers_of

logger = logging.getLogger(__name__)


class CheckpointSaver:
    """Saves a run's checkpoints into a folder and keeps the `keep_last` newest ones and the best.

    As a context manager it finishes all saves at its end.

    Args:
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
            before: called before the first file is written.

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
        """Raise the error of a finished save in the thread, if there is one; does not wait."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Return when the current save is on the disk; CheckpointError if it could not be written."""
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
            # The error that ended the run is raised; the failed save is still logged.
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
            self._root, self._facts, step=position.step, epoch=position.epoch, writers=writers_of(state)
        )
        purge_checkpoints(
            self._root,
            newest_step=position.step,
            keep_last=self._keep_last,
            keep_steps={position.best.step} if position.best else set(),
        )
        logger.info("saved %s", path)

    def _copy(self, state: TrainingState) -> TrainingState:
        """The state with its tensors copied into host memory, which is reused unless shapes change."""
        used: set[str] = set()

        def copied(kind: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {name: self._host_copy(f"{kind}/{name}", tensor, used) for name, tensor in tensors.items()}

        copy = replace(
            state,
            trained=copied("trained", state.trained),
            average=None if state.average is None else copied("average", state.average),
            samples=None if state.samples is None else copied("samples", state.samples),
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
