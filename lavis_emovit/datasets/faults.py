"""Faulty samples during training: replaced by a fixed rule, counted by kind and listed; too many stop the run."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import Field

from lavis_emovit.errors import DataError, bullet_list
from lavis_emovit.own_files import parse_as
from lavis_emovit.settings import Settings
from lavis_emovit.shards.index import ShardIndex
from lavis_emovit.shards.reader import FAULT_KINDS, ListedFault

logger = logging.getLogger(__name__)

_MAX_LOGGED = 10
_MAX_NAMED = 5


class FaultSettings(Settings):
    """How training treats samples that cannot be read.

    Attributes:
        replace: use another sample, determined by the position, so that neither order nor the number of steps changes;
            false: stop at the first fault.
        max_share: largest share of all samples that may be faulty.
        max_class_share: the same for the samples of each emotion.
    """

    replace: bool = True
    max_share: float = Field(default=0.001, ge=0.0, le=1.0)
    max_class_share: float = Field(default=0.01, ge=0.0, le=1.0)


class FaultLog:
    """Collects the faults of a run and compares them with the budget of its settings.

    A sample counts once, however often it is read. If `path` is set, the faults listed in that file count too: those
    of earlier starts of the run and of its other processes. `num_samples` is the number that the run uses.
    """

    def __init__(self, index: ShardIndex, settings: FaultSettings, num_samples: int):
        self.folder, self.settings, self.num_samples = index.folder, settings, num_samples
        self.class_sizes = index.label_histogram
        self.index_name = index.hash[:12]
        self.faults: dict[int, dict[str, Any]] = {}
        self._path: Path | None = None
        self._read_bytes = 0

    @property
    def path(self) -> Path | None:
        """The file that lists the faults of the run, one JSON object per line, for all of its datasets."""
        return self._path

    @path.setter
    def path(self, value: Path | None) -> None:
        if value != self._path:
            self._path, self._read_bytes = value, 0
            self._read_listed()

    @property
    def counts(self) -> dict[str, int]:
        """Kind of fault -> samples."""
        return dict(Counter(fault["kind"] for fault in self.faults.values()))

    def add(self, fault: dict[str, Any]) -> None:
        """Record a fault, as `EmotionShardDataset` puts it into an item; DataError if the budget is exceeded."""
        self._read_listed()
        if fault["sample"] in self.faults:
            return
        self.faults[fault["sample"]] = fault
        if self.path is not None:
            self._append(fault)
        if len(self.faults) <= _MAX_LOGGED:
            logger.warning(
                "%s is replaced by sample %d: %s", fault["place"], fault["replaced_by"], _short(fault["reason"])
            )
        elif len(self.faults) == _MAX_LOGGED + 1:
            logger.warning("more samples are replaced; all are listed in %s", self.path or "the fault log")
        self._check_budget(fault["label"])

    def _append(self, fault: dict[str, Any]) -> None:
        """Append a line in one write, so that those of several processes don't mix; first end a partial line."""
        assert self._path is not None
        line = json.dumps({**fault, "index": self.index_name}, ensure_ascii=False) + "\n"
        with self._path.open("ab+") as file:
            if file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                line = f"\n{line}"
            file.write(line.encode())

    def _read_listed(self) -> None:
        """Read the faults of these shards that any process has listed since the last call."""
        if self._path is None or not self._path.is_file():
            return
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            whole = file.read().rpartition(b"\n")[0]
        self._read_bytes += len(whole) + bool(whole)
        for line in whole.splitlines():
            try:
                fault = parse_as(line, ListedFault)
            except ValueError:
                continue  # a partial line after a crash
            if fault.index == self.index_name and fault.kind in FAULT_KINDS:
                self.faults.setdefault(fault.sample, fault.model_dump(exclude={"index"}))

    def _check_budget(self, label: str | None) -> None:
        """DataError if the faults, or those of a label, exceed the budget."""
        exceeded = []
        share, class_share = self.settings.max_share, self.settings.max_class_share
        if len(self.faults) > share * self.num_samples:
            exceeded.append(f"{len(self.faults)} of {self.num_samples} samples, allowed is {share:.2%}")
        if label is not None:
            count = sum(fault["label"] == label for fault in self.faults.values())
            size = self.class_sizes.get(label, 0)
            if count > class_share * size:
                exceeded.append(f"{count} of {size} samples of '{label}', allowed is {class_share:.2%}")
        if not exceeded:
            return
        kinds = [f"{count} x {kind}: {FAULT_KINDS[kind]}" for kind, count in sorted(self.counts.items())]
        first = [f"{fault['place']}: {_short(fault['reason'])}" for fault in list(self.faults.values())[:_MAX_NAMED]]
        listed = ""
        if self.path is not None:
            listed = (
                f" All are listed in {self.path} and count when the run resumes; delete that file after the repair."
            )
        raise DataError(
            f"{self.folder}: too many samples cannot be used: {'; '.join(exceeded)}.\n{bullet_list(kinds)}\n"
            f"The first of them:\n{bullet_list(first)}\n"
            "Run `emovit shards verify` on the folder and restore the shards it names, or build them again; or allow "
            f"more with `faults.max_share` and `faults.max_class_share` of the dataset.{listed}"
        )


def _short(reason: str) -> str:
    """The first sentence; the advice is given once, at the end of the message."""
    return reason.partition(". ")[0]
