"""Faults of a published dataset, gathered so that a person sees them together rather than one a run."""

from __future__ import annotations

import os

from lavis_emovit.errors import DataError


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
