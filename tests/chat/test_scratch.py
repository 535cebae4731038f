"""Temporary tables on disk.

- The file has no name, so nothing is left of it, not even after a kill; values come back as they were.
- A full disk is reported with the folder and what to do.
"""

from __future__ import annotations

import pytest

from lavis_emovit.chat.scratch import Scratch
from lavis_emovit.errors import UserError


@pytest.mark.parametrize("named", [True, False])
def test_values_come_back_and_the_file_has_no_name(named, tmp_path):
    folder = tmp_path / "100 % of #1?"
    folder.mkdir()
    table = Scratch("number INTEGER PRIMARY KEY, content TEXT", folder if named else None)
    texts = [f"{number} " + "x" * 1000 for number in range(3000)]  # more than SQLite keeps in memory
    for number, text in enumerate(texts):
        table.execute("INSERT INTO scratch VALUES (?, ?)", (number, text))
    assert [text for (text,) in table.execute("SELECT content FROM scratch ORDER BY number")] == texts
    assert list(folder.iterdir()) == []


def test_full_disk(tmp_path):
    table = Scratch("content TEXT", tmp_path)
    table.execute("PRAGMA max_page_count = 4")
    with pytest.raises(UserError, match=f"{tmp_path}: temporary data cannot be written .*full.* Free some space"):
        for _ in range(10):
            table.execute("INSERT INTO scratch VALUES (?)", ("x" * 4000,))
