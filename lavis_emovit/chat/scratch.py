"""Temporary tables on disk, for what would otherwise fill the memory of a long run."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lavis_emovit.errors import UserError


class Scratch:
    """The table `scratch` in a temporary file that disappears with the process. SQLite keeps 256 kB of it in memory.

    Args:
        columns: the columns as in `CREATE TABLE`.
        folder: folder of the file; None: the system's folder for temporary files.
    """

    def __init__(self, columns: str, folder: Path | None = None):
        self._folder = folder
        path = folder and folder.resolve() / f".{uuid.uuid4().hex}.scratch"
        # No other process sees the file, so it needs neither locks nor a journal.
        address = f"{path.as_uri()}?nolock=1" if path else ""
        self._table = sqlite3.connect(address, uri=bool(path), isolation_level=None, check_same_thread=False)
        settings = ("PRAGMA journal_mode = OFF", "PRAGMA cache_size = -256")
        for statement in (*settings, "BEGIN", f"CREATE TABLE scratch ({columns})"):
            self.execute(statement)
        if path:
            path.unlink()

    def execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """As `sqlite3.Connection.execute`. UserError if the file cannot be written."""
        try:
            return self._table.execute(statement, values)
        except sqlite3.OperationalError as error:
            raise UserError(
                f"{self._folder or 'the folder for temporary files'}: temporary data cannot be written ({error}). Free "
                "some space and run the same command again; what the ledger contains is not paid again."
            ) from None
