"""Training samples that are drawn no more, because their last losses or rewards show that they teach nothing.

What is drawn is decided at the start of an epoch and saved with the run, so that a resumed run draws the same samples.
A dropped sample never returns.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lavis_emovit.checkpoints.training_state import Position
from lavis_emovit.distributed import processes
from lavis_emovit.errors import ConfigError, UserError
from lavis_emovit.files import atomic_writer
from lavis_emovit.runners.logs import read_log
from lavis_emovit.runners.settings import DropSettings, RunSettings
from lavis_emovit.tasks.base import EmotionTask

logger = logging.getLogger(__name__)

# Value of a pair -> why a sample is dropped whose values are at most `at_most`, or at least `at_least`.
_REASONS = {"loss": ("learned", "hopeless"), "reward_deviation": ("equal_rewards",)}
_KEPT = -1


class SampleDrops:
    """The last values of every training sample, and which samples are dropped.

    All ranks make the same calls; rank 0 writes the file.

    Args:
        dataset: an `EmotionMixtureDataset`.
        path: the file that lists the dropped samples.

    Raises:
        ConfigError: the task has no values for single pairs, or none that `at_least` fits.

    Attributes:
        epoch: the epoch, from 0, that `starts` and `dropped_in` hold for.
        starts: where the passes of each dataset continue in it.
        lowest, highest: of the pairs of each sample at its last visits, the newest last; NaN before the first.
        dropped_in: first epoch, from 0, in which each sample is not drawn; -1 for the others.
    """

    def __init__(self, run: RunSettings, dataset: Any, task: EmotionTask, path: Path):
        assert run.drop_samples is not None, "the run drops no samples"
        self._run, self._settings, self._dataset, self._path = run, run.drop_samples, dataset, path
        if task.pair_value is None:
            raise ConfigError([f"run.drop_samples: the task '{run.task}' has no values of single pairs; remove it"])
        self._reasons = _REASONS[task.pair_value]
        if task.pair_value == "reward_deviation" and self._settings.at_least is not None:
            raise ConfigError(["run.drop_samples.at_least: answers with unequal rewards teach something; remove it"])
        task.needs_pair_values = True
        self.epoch, self.starts = 0, dataset.starts(0)
        shape = (dataset.num_samples, self._settings.visits)
        self.lowest, self.highest = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
        self.dropped_in = np.full(len(self.lowest), _KEPT, np.int32)

    def note(self, visits: Iterable[tuple[int, float, float]]) -> None:
        """Add the visits of a step in its order: number of a sample, lowest and highest value of its pairs."""
        for number, *values in visits:
            # Dropped samples are still read in place of faulty ones.
            if self.dropped_in[number] != _KEPT:
                continue
            for kept, value in zip((self.lowest, self.highest), values):
                kept[number] = [*kept[number, 1:], value]

    def begin_epoch(self, position: Position) -> dict[str, Any] | None:
        """Draw what this epoch draws. At its first step, also list the dropped samples, and return a row for the log.

        Raises:
            DataError: a dropped sample cannot be read any more.
        """
        self._apply()
        if self.epoch < position.epoch:
            self.starts = self._dataset.stops(self._run.seed, self.epoch)
            self.epoch = position.epoch
            for numbers in self._choose()[0]:
                self.dropped_in[numbers] = self.epoch
            self._apply()
        if position.step_in_epoch or not position.epoch:
            return None
        processes.on_main(self._list_dropped)
        return self._row(position)

    def state_dict(self) -> dict[str, torch.Tensor]:
        arrays = {"lowest": self.lowest, "highest": self.highest, "dropped_in": self.dropped_in}
        numbers = {"starts": self.starts, "epoch": [self.epoch]}
        return {
            **{name: torch.from_numpy(array) for name, array in arrays.items()},
            **{name: torch.tensor(values, dtype=torch.int64) for name, values in numbers.items()},
        }

    def load_state_dict(self, state: Mapping[str, torch.Tensor] | None, epoch: int) -> None:
        """Restore what `state_dict` returned; None: the run dropped no samples until now, in `epoch`.

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
        self.lowest, self.highest, self.dropped_in = (
            state[name].numpy().copy() for name in ("lowest", "highest", "dropped_in")
        )
        self.starts, self.epoch = state["starts"].tolist(), int(state["epoch"])

    @property
    def _is_dropped(self) -> np.ndarray:
        return self.dropped_in != _KEPT

    def _apply(self) -> None:
        self._dataset.drop(self._is_dropped, self.starts)

    def _choose(self) -> tuple[tuple[np.ndarray, np.ndarray], int]:
        return choose(self.lowest, self.highest, self._is_dropped, self._dataset.offsets, self._settings)

    def _row(self, position: Position) -> dict[str, Any]:
        """Counts of an epoch before its first step, whose row it counts as that of."""
        ranges = dict(zip(self._dataset.names, pairwise(self._dataset.offsets)))
        num_dropped, num_low = int(self._is_dropped.sum()), int((self._is_dropped & self._is_low).sum())
        row: dict[str, Any] = {
            "event": "dropped",
            "step": position.step + 1,
            "epoch": position.epoch + 1,
            "num_dropped": {name: int(self._is_dropped[first:end].sum()) for name, (first, end) in ranges.items()},
            "num_samples": {name: int(end - first) for name, (first, end) in ranges.items()},
            "reasons": dict(zip(self._reasons, (num_low, num_dropped - num_low))),
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
            logger.warning("nothing can be dropped: no step until now computed the loss of an answer")
        return row

    @property
    def _is_low(self) -> np.ndarray:
        return is_low(self.highest, self._settings)

    def _list_dropped(self) -> None:
        """Add the samples that are new in this epoch to the file, whose later rows are those of an earlier start."""
        rows: list[dict[str, Any]] = [row for row in read_log(self._path) if row.get("epoch", 0) <= self.epoch]
        is_low = self._is_low
        for number in np.flatnonzero(self.dropped_in == self.epoch).tolist():
            dataset, record_id, place = self._dataset.describe(number)
            rows.append({
                "epoch": self.epoch + 1,
                "dataset": dataset,
                "id": record_id,
                "place": place,
                "reason": self._reasons[0 if is_low[number] else 1],
                "lowest": [_short(value) for value in self.lowest[number]],
                "highest": [_short(value) for value in self.highest[number]],
            })  # fmt: skip
        if rows or self._path.exists():
            with atomic_writer(self._path) as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def choose(
    lowest: np.ndarray, highest: np.ndarray, is_dropped: np.ndarray, offsets: Sequence[int], settings: DropSettings
) -> tuple[tuple[np.ndarray, np.ndarray], int]:
    """Samples to drop besides those that are dropped already.

    If `max_share` of a dataset does not allow all of them, those with low values come first, the lowest first, then
    those with high values, the highest first.

    Args:
        lowest, highest: float32 [samples, visits], of the pairs of a sample; NaN: not visited so often yet.
        is_dropped: bool [samples].
        offsets: first sample of each dataset, and the end of the last one.

    Returns:
        numbers of samples with low and with high values, ascending, and how many stay only because of `max_share`.
    """
    most, least = highest.max(axis=1), lowest.min(axis=1)
    high = least >= settings.at_least if settings.at_least is not None else np.zeros_like(is_dropped)
    candidates = ((is_low(highest, settings), most), (high, -least))
    chosen: tuple[list[int], list[int]] = ([], [])
    num_spared = 0
    for first, end in pairwise(offsets):
        room = math.floor(Fraction(str(settings.max_share)) * int(end - first)) - int(is_dropped[first:end].sum())
        for (is_candidate, order), found in zip(candidates, chosen):
            numbers = first + np.flatnonzero((is_candidate & ~is_dropped)[first:end])
            taken = numbers[np.argsort(order[numbers], kind="stable")][: max(0, room)]
            found += taken.tolist()
            room -= len(taken)
            num_spared += len(numbers) - len(taken)
    numbers_low, numbers_high = (np.array(sorted(numbers), dtype=np.int64) for numbers in chosen)
    return (numbers_low, numbers_high), num_spared


def is_low(highest: np.ndarray, settings: DropSettings) -> np.ndarray:
    """Samples with values of at most `at_most` at all visits, bool [samples]; argument as `choose`."""
    # NaN if a visit is missing, which fulfils no comparison.
    most = highest.max(axis=1)
    return most <= settings.at_most if settings.at_most is not None else np.zeros(len(most), bool)


def _short(value: Any) -> float:
    """With the digits that float32 has."""
    return float(f"{value:.6g}")
