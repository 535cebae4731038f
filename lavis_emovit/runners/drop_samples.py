"""Training samples that are no longer drawn, because their last losses or rewards show that they teach nothing.

What is drawn is decided at the start of an epoch and saved with the run, so that a resumed run draws the same samples.
A dropped sample never returns.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lavis_emovit.checkpoints.training_state import Position
from lavis_emovit.distributed import processes
from lavis_emovit.errors import ConfigError, UserError
from lavis_emovit.files import atomic_writer, read_file
from lavis_emovit.own_files import Written, parse_as
from lavis_emovit.runners.settings import DropSettings, RunSettings
from lavis_emovit.tasks.base import EmotionTask

logger = logging.getLogger(__name__)

# Value of a pair -> why a sample is dropped whose values are at most `at_most`, or at least `at_least`.
_REASONS = {"loss": ("learned", "hopeless"), "reward_deviation": ("equal_rewards",)}
_KEPT = -1
_ARRAYS = ("lowest", "highest", "dropped_in", "reason")


class _Dropped(Written):
    """A line of the list of dropped samples, as far as it is read."""

    dataset: str
    place: str
    id: str | None = None


def reasons_of(run: RunSettings, task: EmotionTask) -> tuple[str, ...]:
    """Why samples are dropped: for low values, then for high ones; empty if the run drops none.

    Raises:
        ConfigError: the task has no values for single pairs, or none that `at_least` fits.
    """
    if run.drop_samples is None:
        return ()
    if task.pair_value is None:
        raise ConfigError([f"run.drop_samples: the task '{run.task}' has no values of single pairs; remove it"])
    if task.pair_value == "reward_deviation" and run.drop_samples.at_least is not None:
        raise ConfigError(["run.drop_samples.at_least: answers with unequal rewards teach something; remove it"])
    return _REASONS[task.pair_value]


class SampleDrops:
    """The last values of every training sample, and which samples are dropped.

    All ranks make the same calls; rank 0 writes the file.

    Args:
        dataset: an `EmotionMixtureDataset`.
        path: the file that lists the dropped samples.

    Raises:
        ConfigError: as `reasons_of`.

    Attributes:
        epoch: the epoch, from 0, that `starts` and `dropped_in` hold for.
        starts: where the passes of each dataset continue in it.
        lowest, highest: of the pairs of each sample at its last visits, the newest last; NaN before the first.
        dropped_in: first epoch, from 0, in which each sample is not drawn; -1 for the others.
        reason: why each sample is dropped: 0 for low values, 1 for high ones; -1 for the others.
    """

    def __init__(self, run: RunSettings, dataset: Any, task: EmotionTask, path: Path):
        assert run.drop_samples is not None, "the run drops no samples"
        self._run, self._settings, self._dataset, self._path = run, run.drop_samples, dataset, path
        self._reasons = reasons_of(run, task)
        task.needs_pair_values = True
        self.epoch, self.starts = 0, dataset.starts(0)
        shape = (dataset.num_samples, self._settings.visits)
        self.lowest, self.highest = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
        self.dropped_in = np.full(len(self.lowest), _KEPT, np.int32)
        self.reason = np.full(len(self.lowest), _KEPT, np.int8)
        self._ids: dict[int, str] = {}  # of the samples that this start visited

    def note(self, visits: Iterable[tuple[int, str, float, float]]) -> None:
        """Add the visits of a step in its order, as `PairValues.by_sample` returns them."""
        for number, record_id, *values in visits:
            # Dropped samples are still read in place of faulty ones.
            if self.dropped_in[number] != _KEPT:
                continue
            self._ids[number] = record_id
            for kept, value in zip((self.lowest, self.highest), values):
                kept[number] = [*kept[number, 1:], value]

    def begin_epoch(self, position: Position) -> dict[str, Any] | None:
        """Set what this epoch draws. At its first step, also list the dropped samples, and return a row for the log."""
        self._apply()
        if self.epoch < position.epoch:
            self.starts = self._dataset.stops(self._run.seed, self.epoch)
            self.epoch = position.epoch
            reason, _ = self._choose()
            is_new = reason != _KEPT
            self.dropped_in[is_new], self.reason[is_new] = self.epoch, reason[is_new]
            self._apply()
        if position.step_in_epoch or not position.epoch:
            return None
        processes.on_main(self._list_dropped)
        return self._row(position)

    def state_dict(self) -> dict[str, torch.Tensor]:
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        numbers = {"starts": self.starts, "epoch": [self.epoch]}
        return {
            **{name: torch.from_numpy(array) for name, array in arrays.items()},
            **{name: torch.tensor(values, dtype=torch.int64) for name, values in numbers.items()},
        }

    def load_state_dict(self, state: Mapping[str, torch.Tensor] | None, epoch: int) -> None:
        """Restore what `state_dict` returned; None: the run has dropped no samples so far, in `epoch`.

        Raises:
            UserError: the state has another number of samples or visits.
        """
        if state is None:
            self.epoch, self.starts = epoch, self._dataset.starts(epoch)
            return
        if state["lowest"].shape != self.lowest.shape:
            samples, visits = state["lowest"].shape
            raise UserError(
                f"the checkpoint has {visits} visits of {samples} samples, the run {self.lowest.shape[1]} of "
                f"{len(self.lowest)}; set run.drop_samples.visits={visits}"
            )
        for name in _ARRAYS:
            setattr(self, name, state[name].numpy().copy())
        self.starts, self.epoch = state["starts"].tolist(), int(state["epoch"])

    @property
    def _is_dropped(self) -> np.ndarray:
        return self.dropped_in != _KEPT

    def _apply(self) -> None:
        self._dataset.drop(self._is_dropped, self.starts)

    def _choose(self) -> tuple[np.ndarray, int]:
        return choose(self.lowest, self.highest, self._is_dropped, self._dataset.offsets, self._settings)

    def _row(self, position: Position) -> dict[str, Any]:
        """Counts of an epoch before its first step, whose row it counts as that of."""
        ranges = dict(zip(self._dataset.names, pairwise(self._dataset.offsets)))
        num_dropped = int(self._is_dropped.sum())
        row: dict[str, Any] = {
            "event": "dropped",
            "step": position.step + 1,
            "epoch": position.epoch + 1,
            "num_dropped": {name: int(self._is_dropped[first:end].sum()) for name, (first, end) in ranges.items()},
            "num_samples": {name: int(end - first) for name, (first, end) in ranges.items()},
            "reasons": {name: int((self.reason == number).sum()) for number, name in enumerate(self._reasons)},
            "num_new": int((self.dropped_in == position.epoch).sum()),
            "num_spared": self._choose()[1],
            "num_measured": int((~np.isnan(self.lowest[:, 0])).sum()),
        }
        logger.info(
            "epoch %d/%d: %d of %d samples are dropped (%s), %d of them new; %d more only stay because of "
            "run.drop_samples.max_share%s",
            position.epoch + 1,
            self._run.max_epoch,
            num_dropped,
            len(self.dropped_in),
            ", ".join(f"{name} {count}" for name, count in row["reasons"].items()),
            row["num_new"],
            row["num_spared"],
            f"; {self._path.name} lists them" if num_dropped else "",
        )
        if np.isnan(self.lowest[:, -1]).all():
            logger.warning("nothing can be dropped: no step so far measured a value of an image")
        return row

    def _list_dropped(self) -> None:
        """Write the file, with the ids of an earlier one for what was visited before this start."""
        lines = read_file(self._path).split(b"\n") if self._path.exists() else []
        ids: dict[tuple[str, str], str | None] = {}
        for line in lines:
            with suppress(ValueError):  # a line that somebody edited
                earlier = parse_as(line, _Dropped)
                ids[earlier.dataset, earlier.place] = earlier.id
        dropped = np.flatnonzero(self._is_dropped)
        rows: list[dict[str, Any]] = []
        for number in dropped[np.argsort(self.dropped_in[dropped], kind="stable")].tolist():
            dataset, place = self._dataset.describe(number)
            rows.append({
                "epoch": int(self.dropped_in[number]) + 1,
                "dataset": dataset,
                "id": self._ids.get(number, ids.get((dataset, place))),
                "place": place,
                "reason": self._reasons[self.reason[number]],
                "lowest": [_short(value) for value in self.lowest[number]],
                "highest": [_short(value) for value in self.highest[number]],
            })  # fmt: skip
        if rows or self._path.exists():
            with atomic_writer(self._path) as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def choose(
    lowest: np.ndarray, highest: np.ndarray, is_dropped: np.ndarray, offsets: Sequence[int], settings: DropSettings
) -> tuple[np.ndarray, int]:
    """Samples to drop besides those that are dropped already.

    If `max_share` of a dataset does not allow all of them, those with low values come first, the lowest first, then
    those with high values, the highest first.

    Args:
        lowest, highest: float32 [samples, visits], of the pairs of a sample; NaN: not visited so often yet.
        is_dropped: bool [samples].
        offsets: first sample of each dataset, and the end of the last one.

    Returns:
        int8 [samples]: 0 to drop a sample for its low values, 1 for its high ones, -1 not to drop it now; and how many
        stay only because of `max_share`.
    """
    # NaN if a visit is missing, which fulfils no comparison.
    most, least = highest.max(axis=1), lowest.min(axis=1)
    none = np.zeros_like(is_dropped)
    low = most <= settings.at_most if settings.at_most is not None else none
    high = least >= settings.at_least if settings.at_least is not None else none
    reason = np.full(len(is_dropped), _KEPT, np.int8)
    num_spared = 0
    for first, end in pairwise(offsets):
        room = math.floor(Fraction(str(settings.max_share)) * int(end - first)) - int(is_dropped[first:end].sum())
        for number, (is_candidate, order) in enumerate(((low, most), (high, -least))):
            numbers = first + np.flatnonzero((is_candidate & ~is_dropped)[first:end])
            taken = numbers[np.argsort(order[numbers], kind="stable")][: max(0, room)]
            reason[taken] = number
            room -= len(taken)
            num_spared += len(numbers) - len(taken)
    return reason, num_spared


def _short(value: Any) -> float:
    """With the digits that float32 has."""
    return float(f"{value:.6g}")
