"""A label set: the classes of a dataset, with alternative spellings."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lavis_emovit.errors import DataError

NEUTRAL = "neutral"


@dataclass(frozen=True)
class LabelSet:
    name: str
    # Canonical names in alphabetical order; the order of every confusion matrix and option list.
    labels: tuple[str, ...]
    aliases: Mapping[str, str] = field(
        default_factory=dict, hash=False
    )  # alternative spelling in lower case -> canonical name
    polarity: Mapping[str, str] = field(
        default_factory=dict, hash=False
    )  # canonical name -> `positive`, `negative` or `neutral`

    def __post_init__(self) -> None:
        known = set(self.labels)
        strays = {*self.aliases.values(), *self.polarity} - known
        clashes = known & set(self.aliases)
        if len(known) != len(self.labels) or strays or clashes:
            raise ValueError(f"label set '{self.name}' is inconsistent: {sorted(strays | clashes)}")

    def __len__(self) -> int:
        return len(self.labels)

    def canonical(self, text: str) -> str:
        """Canonical name of a label or alias; ignores case, surrounding spaces and underscores.

        Raises:
            DataError: not a label of this set; the message names the nearest label.
        """
        key = re.sub(r"[\s_]+", " ", text).strip().casefold()
        if key in self.labels:
            return key
        if key in self.aliases:
            return self.aliases[key]
        close = difflib.get_close_matches(key, [*self.labels, *self.aliases], n=1, cutoff=0.6)
        hint = f"did you mean '{self.aliases.get(close[0], close[0])}'? " if close else ""
        labels = ", ".join(self.labels)
        raise DataError(f"unknown emotion '{text}' for label set '{self.name}' ({hint}its labels: {labels})")


def aliases(**spellings: str) -> dict[str, str]:
    """Alternative spellings, separated by spaces, of each label: spelling -> label."""
    return {spelling: label for label, text in spellings.items() for spelling in text.split()}


def label_set(
    name: str,
    positive: Iterable[str],
    negative: Iterable[str],
    neutral: Iterable[str] = (),
    aliases: Mapping[str, str] | None = None,
) -> LabelSet:
    """A label set from the labels of each polarity."""
    by_polarity = (("positive", positive), ("negative", negative), (NEUTRAL, neutral))
    polarity = {label: name for name, labels in by_polarity for label in labels}
    return LabelSet(name, tuple(sorted(polarity)), aliases or {}, polarity)
