"""Valence, arousal and dominance of emotion words, and how similar the labels of a set are by them.

`label_affect.json` contains the published values and their source; users can pass values of their own.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, model_validator

from lavis_emovit.emotion.label_set import LabelSet
from lavis_emovit.errors import DataError
from lavis_emovit.settings import Settings, read_settings_file

_PACKAGED = Path(__file__).with_name("label_affect.json")


class Affect(NamedTuple):
    """A point in [-1, 1]^3."""

    valence: float
    arousal: float
    dominance: float


class AffectTable(Settings):
    """Published ratings of words on one scale; `same_as` names the rated word that is used for another one."""

    version: int
    source: str
    scale: tuple[float, float]
    words: dict[str, tuple[float, float, float]]
    same_as: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits(self) -> AffectTable:
        low, high = self.scale
        if outside := [word for word, values in self.words.items() if not all(low <= one <= high for one in values)]:
            raise ValueError(f"values of {outside} are outside of 'scale'")
        if strays := sorted(set(self.same_as.values()) - set(self.words)):
            raise ValueError(f"'same_as' names {strays}, which are not in 'words'")
        return self

    def of(self, word: str) -> Affect | None:
        """The values of a word, scaled to [-1, 1]; None for a word that the table does not have."""
        values = self.words.get(self.same_as.get(word, word))
        if values is None:
            return None
        low, high = self.scale
        return Affect(*((2 * value - low - high) / (high - low) for value in values))


@functools.cache
def affect_table() -> AffectTable:
    """The published ratings in this package."""
    return read_settings_file(AffectTable, _PACKAGED, "label_affect")


def affect_of_labels(
    label_set: LabelSet, values: Mapping[str, tuple[float, float, float]] | None = None
) -> dict[str, Affect]:
    """Label -> its valence, arousal and dominance; `values` in [-1, 1] replace published ones.

    Raises:
        DataError: a label without values.
    """
    own = {label_set.canonical(label): Affect(*numbers) for label, numbers in (values or {}).items()}
    found = {label: own.get(label) or affect_table().of(label) for label in label_set.labels}
    if missing := [label for label, one in found.items() if one is None]:
        raise DataError(
            f"label set '{label_set.name}': no valence, arousal and dominance are known for {', '.join(missing)}; set "
            "their `values`, three numbers between -1 and 1 each"
        )
    return {label: one for label, one in found.items() if one is not None}


def affect_distances(
    affects: Mapping[str, Affect], weights: tuple[float, float, float] = (0.5, 0.3, 0.2)
) -> dict[tuple[str, str], float]:
    """Weighted Euclidean distance of every two labels: sqrt(sum of w (x - y)^2)."""
    return {
        (one, other): sum(w * (x - y) ** 2 for w, x, y in zip(weights, affects[one], affects[other])) ** 0.5
        for one in affects
        for other in affects
    }
