"""Label sets of the field: canonical names, the other spellings that datasets use, and polarity."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lavis_emovit.errors import DataError

POSITIVE, NEGATIVE, NEUTRAL = "positive", "negative", "neutral"


@dataclass(frozen=True)
class LabelSet:
    """The classes of a dataset.

    Attributes:
        name: how configs and records call it.
        labels: canonical names in alphabetical order; the order of every confusion matrix and option list.
        aliases: other spellings, in lower case -> canonical name.
        polarity: canonical name -> `positive`, `negative` or `neutral`.
    """

    name: str
    labels: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    polarity: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = set(self.labels)
        strays = {*self.aliases.values(), *self.polarity} - known
        clashes = known & set(self.aliases)
        if len(known) != len(self.labels) or strays or clashes:
            raise ValueError(f"label set '{self.name}' contradicts itself: {sorted(strays | clashes)}")

    def __len__(self) -> int:
        return len(self.labels)

    def index(self, text: str) -> int:
        """Class number of a label or alias."""
        return self.labels.index(self.canonical(text))

    def canonical(self, text: str) -> str:
        """The label that a text names: case, surrounding blanks, underscores and aliases don't matter.

        Raises:
            DataError: no label of this set; the nearest one is named.
        """
        key = re.sub(r"[\s_]+", " ", text).strip().casefold()
        if key in self.labels:
            return key
        if key in self.aliases:
            return self.aliases[key]
        close = difflib.get_close_matches(key, [*self.labels, *self.aliases], n=1, cutoff=0.6)
        hint = f"did you mean '{self.aliases.get(close[0], close[0])}'? " if close else ""
        raise DataError(
            f"unknown emotion '{text}' for label set '{self.name}' ({hint}its labels: {', '.join(self.labels)})"
        )


def _polarity(positive: Iterable[str], negative: Iterable[str], neutral: Iterable[str] = ()) -> dict[str, str]:
    shares = ((POSITIVE, positive), (NEGATIVE, negative), (NEUTRAL, neutral))
    return {label: name for name, labels in shares for label in labels}


_BASIC_ALIASES = {
    "angry": "anger",
    "disgusted": "disgust",
    "fearful": "fear",
    "afraid": "fear",
    "scared": "fear",
    "happy": "happiness",
    "joy": "happiness",
    "joyful": "happiness",
    "sad": "sadness",
    "surprised": "surprise",
}

LABEL_SETS: dict[str, LabelSet] = {
    label_set.name: label_set
    for label_set in (
        # Mikels et al., Behavior Research Methods 37 (2005): the eight classes of EmoSet, FI, ArtPhoto and Abstract.
        # The aliases are the spellings of those datasets' own files.
        LabelSet(
            name="mikels8",
            labels=("amusement", "anger", "awe", "contentment", "disgust", "excitement", "fear", "sadness"),
            aliases={
                "amused": "amusement",
                "angry": "anger",
                "content": "contentment",
                "contented": "contentment",
                "disgusted": "disgust",
                "excited": "excitement",
                "fearful": "fear",
                "sad": "sadness",
            },
            polarity=_polarity(
                ("amusement", "awe", "contentment", "excitement"), ("anger", "disgust", "fear", "sadness")
            ),
        ),
        # Ekman, Cognition and Emotion 6 (1992). Surprise has no sign of its own.
        LabelSet(
            name="ekman6",
            labels=("anger", "disgust", "fear", "happiness", "sadness", "surprise"),
            aliases=_BASIC_ALIASES,
            polarity=_polarity(("happiness",), ("anger", "disgust", "fear", "sadness"), ("surprise",)),
        ),
        # The six with contempt, Ekman and Friesen, Motivation and Emotion 10 (1986).
        LabelSet(
            name="ekman7",
            labels=("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise"),
            aliases={**_BASIC_ALIASES, "contemptuous": "contempt"},
            polarity=_polarity(("happiness",), ("anger", "contempt", "disgust", "fear", "sadness"), ("surprise",)),
        ),
        # The two faces of each person in the Face Research Lab London Set.
        LabelSet(
            name="neutral_happy2",
            labels=("happy", "neutral"),
            aliases={"smiling": "happy", "happiness": "happy", "neutrality": "neutral"},
            polarity=_polarity(("happy",), (), ("neutral",)),
        ),
    )
}


def get_label_set(name: str) -> LabelSet:
    """A label set by its name.

    Raises:
        DataError: no such set; the nearest name is given.
    """
    if name in LABEL_SETS:
        return LABEL_SETS[name]
    close = difflib.get_close_matches(name, LABEL_SETS, n=1, cutoff=0.6)
    hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(LABEL_SETS)}"
    raise DataError(f"unknown label set '{name}' ({hint})")
