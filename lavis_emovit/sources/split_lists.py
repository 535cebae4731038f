"""Official split lists: files that name the images of each split, for datasets whose layout does not have splits.

A list is text with one image a line (a tab, a comma or a trailing label ends the name; `#` begins a comment), or JSON:
a list of names. A name is the path of an image, or its last parts (`anger/12.jpg` for `images/anger/12.jpg`).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lavis_emovit.errors import DataError, bullet_list
from lavis_emovit.records import EmotionRecord, RecordStore

logger = logging.getLogger(__name__)

_TRAILING_LABEL = re.compile(r"\s+-?\d+$")


def split_by_lists(
    records: Iterable[EmotionRecord], lists: Mapping[str, Path], *, skip_missing: bool = False
) -> Sequence[EmotionRecord]:
    """The records that the lists name, each in its split; the others are counted and left out.

    Args:
        lists: split -> file.
        skip_missing: count entries without an image instead of refusing them.

    Raises:
        DataError: lists that cannot be read, overlap, name an image twice or none, or have entries without an image;
            all of it together.
    """
    split_of, problems = read_lists(lists)
    found: dict[str, str] = {}  # entry -> id of its record

    def chosen() -> Iterable[EmotionRecord]:
        num_left_out = 0
        for record in records:
            entry = next((name for name in _names(record.image) if name in split_of), None)
            if entry is None:
                num_left_out += 1
                continue
            if entry in found:
                problems.append(f"'{entry}' names both '{found[entry]}' and '{record.id}'; write more of their paths")
                continue
            found[entry] = record.id
            yield record.model_copy(update={"split": split_of[entry]})
        if num_left_out:
            logger.warning("%d images are in none of the split lists and are left out", num_left_out)

    kept = RecordStore(chosen())
    for split, path in lists.items():
        missing = [entry for entry, name in split_of.items() if name == split and entry not in found]
        if missing and skip_missing:
            logger.warning(
                "%s: %d entries have no image and are left out, such as '%s'", path, len(missing), missing[0]
            )
        elif missing:
            problems.append(
                f"{path}: {len(missing)} entries have no image, such as '{missing[0]}'. Complete the images, or set "
                "`skip_bad: true` to leave them out"
            )
    if problems:
        raise DataError(f"the split lists do not match the images:\n{bullet_list(problems)}")
    return kept


def read_lists(lists: Mapping[str, Path]) -> tuple[dict[str, str], list[str]]:
    """Entry -> split, and what is wrong with the lists."""
    split_of: dict[str, str] = {}
    problems: list[str] = []
    for split, path in lists.items():
        try:
            entries = _entries(path)
        except (OSError, ValueError) as error:
            problems.append(f"{path}: cannot be read ({error})")
            continue
        if not entries:
            problems.append(f"{path}: names no image")
        repeated = [entry for entry in entries if split_of.get(entry, split) != split]
        twice = len(entries) - len(set(entries))
        if repeated:
            other = split_of[repeated[0]]
            problems.append(f"{path}: {len(repeated)} images are also in split '{other}', such as '{repeated[0]}'")
        if twice:
            problems.append(f"{path}: {twice} images are listed twice")
        split_of |= {entry: split for entry in entries if entry not in split_of}
    return split_of, problems


def _entries(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".json":
        names = json.loads(text)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("expected a JSON list of names")
    else:
        lines = (re.split(r"[\t,]", line, maxsplit=1)[0].strip() for line in text.splitlines())
        names = [_TRAILING_LABEL.sub("", line) for line in lines if line and not line.startswith("#")]
    return [name.replace("\\", "/").removeprefix("./").strip("/") for name in names]


def _names(image: str) -> list[str]:
    """What a list may call an image: its path, then shorter ends of it, each also without the ending of the file."""
    parts = image.split("/")
    ends = ["/".join(parts[start:]) for start in range(len(parts))]
    return [name for end in ends for name in (end, end.rpartition(".")[0] or end)]
