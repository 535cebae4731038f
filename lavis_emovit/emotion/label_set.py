"""A label set: the classes of a dataset, with alternative spellings."""

from __future__ import annotations

import difflib
import functools
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lavis_emovit.errors import DataError

NEUTRAL = "neutral"


@dataclass(frozen=True)
class LabelSet:
    name: str
    # Canonical names in alphabetical order; the order of every confusion matrix and option list. Sets are keys of
    # caches, and the hash of a tuple is computed each time.
    labels: tuple[str, ...] = field(hash=False)
    # Alternative spelling in lower case -> canonical name.
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False)
    # Canonical name -> `positive`, `negative` or `neutral`.
    polarity: Mapping[str, str] = field(default_factory=dict, hash=False)
    # Whether inflections of labels and aliases name a label too (`inflections.py`).
    inflected: bool = field(default=True, hash=False)

    def __post_init__(self) -> None:
        refuse_same_labels(self.name, self.labels)
        strays = {*self.aliases.values(), *self.polarity} - set(self.labels)
        clashes = {spelling(alias) for alias in self.aliases} & {spelling(label) for label in self.labels}
        if strays or clashes:
            raise DataError(f"label set '{self.name}' is inconsistent: {sorted(strays | clashes)}")

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def by_spelling(self) -> dict[str, str]:
        """Spelling of every label and alias -> canonical name."""
        names = {**{label: label for label in self.labels}, **self.aliases}
        return {spelling(name): label for name, label in names.items()}

    def canonical(self, text: str) -> str:
        """Canonical name of a label or alias; see `spelling` for the differences that do not matter.

        Raises:
            DataError: not a label of this set; the message names the nearest label.
        """
        key = spelling(text)
        if key in self.by_spelling:
            return self.by_spelling[key]
        close = difflib.get_close_matches(key, [*self.labels, *self.aliases], n=1, cutoff=0.6)
        hint = f"did you mean '{self.aliases.get(close[0], close[0])}'? " if close else ""
        labels = ", ".join(self.labels)
        raise DataError(f"unknown emotion '{text}' for label set '{self.name}' ({hint}its labels: {labels})")

    def opposites(self, label: str) -> frozenset[str]:
        """The positive labels for a negative one and the reverse; none for a neutral one."""
        return self._opposites[label if label in self._opposites else self.canonical(label)]

    @functools.cached_property
    def _opposites(self) -> dict[str, frozenset[str]]:
        sides = {label: self.polarity.get(label, NEUTRAL) for label in self.labels}
        return {
            label: frozenset(one for one in self.labels if NEUTRAL not in (mine, sides[one]) and mine != sides[one])
            for label, mine in sides.items()
        }


_STRAIGHT = str.maketrans("\u2018\u2019\u02bc\u201c\u201d\u2014\u2212", "'''\"\";-")


def normalised(text: str) -> str:
    """Text in one Unicode form, with straight quotes and minus signs, without invisible characters."""
    if text.isascii() or (text := text.translate(_STRAIGHT)).isascii():
        return text
    # Variation selectors choose between drawings of one emoji.
    text = "".join(c for c in text if unicodedata.category(c) != "Cf" and c not in "\ufe0e\ufe0f")
    return unicodedata.normalize("NFKC", text).translate(_STRAIGHT)


def folded(text: str) -> str:
    """Normalised text in lower case."""
    text = normalised(text)
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", text.casefold()).translate(_STRAIGHT)


def spelling(text: str) -> str:
    """The form in which labels are compared: folded, with single spaces in place of spaces and underscores."""
    return re.sub(r"[\s_]+", " ", folded(text)).strip()


def refuse_same_labels(name: str, labels: Sequence[str]) -> None:
    """DataError if two labels of the set `name` have the same spelling: no reader could tell them apart."""
    spelt = [spelling(label) for label in labels]
    for i, key in enumerate(spelt):
        if (first := spelt.index(key)) != i:
            raise DataError(
                f"label set '{name}': expected two or more different labels, but '{labels[first]}' and '{labels[i]}' "
                "are the same label (case, spaces and underscores are ignored); rename one"
            )


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
