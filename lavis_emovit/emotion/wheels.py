"""Emotion wheels: which words of emotion belong together, for answers in open vocabulary.

A wheel divides words into clusters. `wheels.json` contains the wheels of this package with their sources; users can
pass a file of the same format.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from functools import cache, cached_property
from pathlib import Path

from pydantic import model_validator

from lavis_emovit.emotion.label_set import LabelSet, spelling
from lavis_emovit.emotion.public_wheels import public_mapping, wheels_of_mapping
from lavis_emovit.errors import DataError
from lavis_emovit.settings import Settings, nearest_name, read_settings_file

_PACKAGED = Path(__file__).with_name("wheels.json")


class Wheel(Settings):
    """Cluster -> its words, separated by spaces; a word has one cluster. `source` is a key of `Wheels.sources`."""

    source: str
    clusters: dict[str, str]

    @model_validator(mode="after")
    def _is_a_partition(self) -> Wheel:
        counts = Counter(word for words in self.clusters.values() for word in words.split())
        if shared := sorted(word for word, count in counts.items() if count > 1):
            raise ValueError(f"these words are in a cluster twice, or in two: {', '.join(shared)}")
        if empty := [cluster for cluster, words in self.clusters.items() if not words.split()]:
            raise ValueError(f"these clusters have no word: {', '.join(empty)}")
        return self

    @cached_property
    def cluster_of(self) -> dict[str, str]:
        """Word -> its cluster."""
        return {word: cluster for cluster, words in self.clusters.items() for word in words.split()}


class Wheels(Settings):
    """Several wheels; `forms` has other forms of their words, besides those of `emotion/inflections.py`.

    Attributes:
        inflected: False if `forms` has all forms.
    """

    version: int
    sources: dict[str, str]
    wheels: dict[str, Wheel]
    forms: dict[str, str]
    inflected: bool = True

    @model_validator(mode="after")
    def _is_consistent(self) -> Wheels:
        if strays := sorted({wheel.source for wheel in self.wheels.values()} - set(self.sources)):
            raise ValueError(f"wheels cite {strays}, missing in 'sources'")
        if strays := sorted(set(self.forms) - self._words):
            raise ValueError(f"'forms' has words that are on no wheel: {', '.join(strays)}")
        forms = Counter(form for forms in self.forms.values() for form in forms.split())
        if clashes := sorted({form for form, count in forms.items() if count > 1} | (set(forms) & self._words)):
            raise ValueError(f"these forms belong to two words: {', '.join(clashes)}")
        return self

    @cached_property
    def _words(self) -> set[str]:
        return {word for wheel in self.wheels.values() for word in wheel.cluster_of}

    @cached_property
    def lexicon(self) -> LabelSet:
        """All words of all wheels as a label set, so that the readers of labels find them in texts."""
        aliases = {form: word for word, forms in self.forms.items() for form in forms.split()}
        return LabelSet("words of emotion", tuple(sorted(self._words)), aliases, inflected=self.inflected)

    def wheel(self, name: str) -> Wheel:
        """A wheel by name. DataError for an unknown one."""
        if name not in self.wheels:
            raise DataError(f"unknown wheel '{name}'{nearest_name(name, list(self.wheels))}")
        return self.wheels[name]

    def word(self, label: str) -> str | None:
        """The word of the wheels that a label is, or None. Words of several parts have `_` between them in the file."""
        forms = self._word_of_form
        spelt = spelling(label)
        return forms.get(label) or forms.get(spelt) or forms.get(spelt.replace(" ", "_"))

    @cached_property
    def _word_of_form(self) -> dict[str, str]:
        from lavis_emovit.emotion.inflections import word_forms

        return word_forms(self.lexicon)

    def clusters(self, words: Iterable[str], wheel: str) -> frozenset[str]:
        """The clusters of those words that are on a wheel."""
        cluster_of = self.wheel(wheel).cluster_of
        return frozenset(cluster_of[word] for word in words if word in cluster_of)


@cache
def emotion_wheels(path: str | os.PathLike[str] | None = None, *, level: str = "level1") -> Wheels:
    """The wheels of a JSON file, or the packaged ones (None). ConfigError lists all problems of the file.

    The public mapping of MER2026 is read as it is published (`public_wheels.py`); its clusters are those of `level`.
    """
    if path is not None and (mapping := public_mapping(Path(path))) is not None:
        return Wheels.model_validate(wheels_of_mapping(mapping, Path(path), level))
    return read_settings_file(Wheels, _PACKAGED if path is None else Path(path), "wheels")
