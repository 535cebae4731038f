"""Faults of a published dataset, gathered so that a person sees them together rather than one a run, and notes."""

from __future__ import annotations

import logging
import os
from collections import Counter

from lavis_emovit.errors import DataError

logger = logging.getLogger(__name__)


class Problems:
    """Collects faults while a reader goes on; raises when there are `limit` of them, or at the end.

    Args:
        root: the dataset, for the message.
        remedy: what to do about faults in it.
        limit: how many faults end the reading early.
    """

    def __init__(self, root: str | os.PathLike[str], remedy: str, limit: int = 20):
        self.root, self.remedy, self.limit = root, remedy, limit
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        """Note a fault.

        Raises:
            DataError: it was the last one that is worth noting.
        """
        self.lines.append(line)
        if len(self.lines) >= self.limit:
            self._raise(f"at least {len(self.lines)} faults, reading stopped")

    def finish(self) -> None:
        """To be called after the last entry.

        Raises:
            DataError: there were faults.
        """
        if self.lines:
            self._raise(f"{len(self.lines)} fault{'s' if len(self.lines) > 1 else ''}")

    def _raise(self, head: str) -> None:
        lines = "\n".join(f"  - {line}" for line in self.lines)
        raise DataError(f"{self.root}: {head}:\n{lines}\n{self.remedy}")


class Notes:
    """What a reader left out or found odd, which is no fault: shown after the import, refused by a strict one.

    Attributes:
        lines: sentences, in the order in which they came.
        left_out: reason -> number of pictures that no record was made of.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.left_out: Counter[str] = Counter()
        self._expected: set[str] = set()

    def add(self, line: str) -> None:
        """Note something odd."""
        self.lines.append(line)

    def leave_out(self, reason: str, *, expected: bool = False, count: int = 1) -> None:
        """Count a picture that no record is made of; `expected` ones are told, but a strict import takes them."""
        self.left_out[reason] += count
        if expected:
            self._expected.add(reason)

    def report(self) -> list[str]:
        """All notes as lines for a person."""
        return [*self.lines, *(f"{count} left out: {reason}" for reason, count in self.left_out.items())]

    def serious(self) -> list[str]:
        """The notes that a strict import refuses: all but what the settings ask for."""
        unexpected = [f"{n} left out: {reason}" for reason, n in self.left_out.items() if reason not in self._expected]
        return [*self.lines, *unexpected]

    def log(self, name: str) -> None:
        """Write the notes to the log, for readers that no person sits before."""
        for line in self.report():
            logger.warning("%s: %s", name, line)
