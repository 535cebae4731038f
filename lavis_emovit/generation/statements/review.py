"""Review of statements by people: a table to fill in, and the rule by which their answers decide."""

from __future__ import annotations

import csv
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from lavis_emovit.errors import DataError
from lavis_emovit.files import atomic_writer, regular_file
from lavis_emovit.outside import table_rows
from lavis_emovit.records import EmotionRecord, Statement

COLUMNS = ("statement", "image", "text", "answer")
_ANSWERS = {"correct": True, "incorrect": False}


def write_pack(path: Path, records: Iterable[EmotionRecord], count: int, seed: int = 0) -> int:
    """Write at most `count` statements, drawn at random, without their truth; returns how many."""
    rows = [
        {"statement": statement.id, "image": record.image, "text": statement.text}
        for record in records
        for statement in record.statements or ()
        if statement.id is not None
    ]
    rows = random.Random(f"pack/{seed}").sample(rows, min(count, len(rows)))
    with atomic_writer(path) as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return len(rows)


def read_answers(path: Path) -> dict[str, bool]:
    """The answers of one person by statement; rows without an answer are left out. DataError for anything else."""
    found: dict[str, bool] = {}
    try:
        with regular_file(path).open(encoding="utf-8-sig", newline="") as file:
            reader = table_rows(file.read())
            for name in ("statement", "answer"):
                if (count := list(reader.fieldnames or ()).count(name)) != 1:
                    has = "no column" if not count else f"{count} columns"
                    raise DataError(f"{path}: {has} '{name}'; fill in a copy of the table of the review")
            for row in reader:
                answer, name = (row["answer"] or "").strip().casefold(), row["statement"]
                if answer and answer not in _ANSWERS:
                    raise DataError(
                        f"{path}, line {reader.line_num}: answer '{answer}' is neither correct nor incorrect"
                    )
                if name in found:
                    raise DataError(f"{path}, line {reader.line_num}: statement '{name}' has two answers")
                if answer:
                    found[name] = _ANSWERS[answer]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV ({error}); close or remove the quote") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the table cannot be read ({error})") from None
    return found


def decide(
    records: Sequence[EmotionRecord], answers: Sequence[dict[str, bool]], *, least_share: float = 0.8, least_people: int
) -> tuple[list[EmotionRecord], Counter[str]]:
    """Records with the statements on which people agree, and counts.

    A statement is correct if at least `least_share` of its answers say so, incorrect if at most 1 - `least_share` do
    (four and one of five people, as for MVEI), and dropped otherwise, or with fewer than `least_people` answers.
    Counts: `kept`, `disputed`, `too_few_answers`, and `changed` (kept ones whose truth was different). DataError for an
    answer about an unknown statement.
    """
    known = {statement.id for record in records for statement in record.statements or ()}
    for given in answers:
        if strays := sorted(set(given) - known):
            raise DataError(
                f"the answers are about other statements, such as '{strays[0]}'; use the records of the review"
            )
    counts: Counter[str] = Counter()
    decided = []
    for record in records:
        kept: list[Statement] = []
        for statement in record.statements or ():
            votes = [given[str(statement.id)] for given in answers if statement.id in given]
            if len(votes) < least_people:
                counts["too_few_answers"] += 1
                continue
            share = sum(votes) / len(votes)
            if 1 - least_share + 1e-9 < share < least_share - 1e-9:
                counts["disputed"] += 1
                continue
            is_correct = share > 0.5
            counts["kept"] += 1
            counts["changed"] += is_correct != statement.is_correct
            kept.append(statement.model_copy(update={"is_correct": is_correct}))
        if kept:
            decided.append(record.model_copy(update={"statements": kept}))
    return decided, counts
