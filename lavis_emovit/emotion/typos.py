"""Class names that are probably misspelt: a rare name that is nearly the same as a frequent one."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from lavis_emovit.emotion.label_set import spelling
from lavis_emovit.emotion.labels import LABEL_SETS

# The other name must have this many times the images: two real classes differ less in size than a class and its typos.
_RATIO = 5


@dataclass(frozen=True)
class Typo:
    """A name that is probably misspelt, and the likely intended one, with their numbers of images."""

    name: str
    count: int
    intended: str
    intended_count: int

    def __str__(self) -> str:
        images = "image" if self.count == 1 else "images"
        return (
            f"'{self.name}' ({self.count} {images}) is probably a misspelt '{self.intended}' "
            f"({self.intended_count} images)"
        )

    def as_setting(self) -> str:
        """KEY=VALUE for `--set`, which maps the name to the intended one; quoted for the shell where needed."""
        return shlex.quote(f"label_names={json.dumps({self.name: self.intended}, ensure_ascii=False)}")


def find_typos(counts: Mapping[str, int]) -> list[Typo]:
    """The names (-> number of images) that are probably misspelt, in alphabetical order.

    Names differ in one letter that is wrong, missing, added or exchanged with its neighbour (two, if both have eight
    letters or more), or in hyphens, and the intended one is at least five times as frequent. Names that `spelling`
    maps to one label are not typos; nor are two members of one published label set, such as `happily surprised` and
    `sadly surprised`.
    """
    found = []
    for name, count in sorted(counts.items()):
        nearest = min(
            (
                (distance, -other_count, other)
                for other, other_count in counts.items()
                if spelling(other) != spelling(name)
                and other_count >= _RATIO * count
                and (distance := _distance(name, other)) is not None
                and not _both_known(name, other)
            ),
            default=None,
        )
        if nearest is not None:
            found.append(Typo(name, count, nearest[2], counts[nearest[2]]))
    return found


def _distance(one: str, other: str) -> int | None:
    """Number of edits between two names; None if they are too many for a typo."""
    a, b = (spelling(name).replace("-", " ").replace(" ", "") for name in (one, other))
    most = 2 if min(len(a), len(b)) >= 8 else 1 if min(len(a), len(b)) >= 4 else 0
    if abs(len(a) - len(b)) > most or not a or not b:
        return None
    edits = _edits(a, b)
    return edits if edits <= most else None


def _edits(a: str, b: str) -> int:
    """Edit distance with exchanged neighbours (optimal string alignment)."""
    rows = [list(range(len(b) + 1))]
    for i, letter in enumerate(a, start=1):
        row = [i]
        for j, other in enumerate(b, start=1):
            best = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                best = min(best, rows[-2][j - 2] + 1)
            row.append(best)
        rows.append(row)
    return rows[-1][-1]


def _both_known(one: str, other: str) -> bool:
    names = {spelling(one), spelling(other)}
    return any(names <= set(label_set.by_spelling) for label_set in LABEL_SETS.values())
