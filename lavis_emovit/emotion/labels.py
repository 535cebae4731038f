"""Published label sets: canonical names, alternative spellings and polarity.

Your own label set needs no registration: its name lists its labels, `labels:calm, tense, wild`.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator

from lavis_emovit.emotion.label_set import NEUTRAL, LabelSet, refuse_same_labels, spelling
from lavis_emovit.emotion.labels_faces import FACE_SETS
from lavis_emovit.emotion.labels_scenes import COARSER, EMOTIC26, MIKELS8, SCENE_SETS
from lavis_emovit.errors import DataError
from lavis_emovit.settings import nearest_name

CUSTOM_PREFIX = "labels:"
# What a label or a value describes: the feeling that a picture evokes, the expression of a face, or the state of a
# person in a scene.
Subject = Literal["picture", "face", "person"]
# Sets that questions use most come first.
LABEL_SETS: dict[str, LabelSet] = {label_set.name: label_set for label_set in (MIKELS8, *FACE_SETS, *SCENE_SETS[1:])}


def get_label_set(name: str) -> LabelSet:
    """A label set by name, or the set that a name of the form `labels:a, b, c` lists.

    Raises:
        DataError: unknown name (the message names the nearest one), or a list with fewer than two or repeated labels.
    """
    if name in LABEL_SETS:
        return LABEL_SETS[name]
    if name.startswith(CUSTOM_PREFIX):
        return _custom_set(name)
    hint = nearest_name(name, list(LABEL_SETS))
    raise DataError(f"unknown label set '{name}'{hint}. Write your own as '{CUSTOM_PREFIX}calm, tense, wild'.")


def subject_of(label_set: str | None, *, has_units: bool = False, has_box: bool = False) -> Subject:
    """What the labels and values of an image describe, from its label set, action units and box of a person."""
    if has_units or any(label_set == faces.name for faces in FACE_SETS):
        return "face"
    return "person" if has_box or label_set == EMOTIC26.name else "picture"


def joined_labels(labels: Iterable[Any]) -> str:
    """The labels of a list, as the name of a set lists them.

    Raises:
        DataError: a label that contains a comma, or that YAML did not read as it is written.
    """
    listed = list(labels)
    for label in listed:
        # YAML 1.1 reads `1:30` as 90, a number with the base 60.
        is_integer = isinstance(label, int) and not isinstance(label, bool) and abs(label) < 60
        if not is_integer and not isinstance(label, str):
            raise DataError(
                f"YAML reads a label as {label!r}, which is not text; put quotes around it, as in ['yes', 'no']"
            )
        if "," in str(label):
            raise DataError(f"label '{label}' contains a comma, which separates labels; rename it")
    return ", ".join(map(str, listed))


def _named(value: Any) -> Any:
    return f"{CUSTOM_PREFIX} {joined_labels(value)}" if isinstance(value, (list, tuple)) else value


# Type of a setting that names a label set, or lists its labels; rejects unknown names.
LabelSetName = Annotated[str, BeforeValidator(_named), AfterValidator(lambda name: get_label_set(name) and name)]


@functools.lru_cache(maxsize=64)
def _custom_set(name: str) -> LabelSet:
    written = [" ".join(label.split()) for label in name.removeprefix(CUSTOM_PREFIX).split(",")]
    if len(written) < 2 or not all(map(spelling, written)):
        raise DataError(f"label set '{name}': expected two or more different labels after '{CUSTOM_PREFIX}'")
    refuse_same_labels(name, written)
    labels = (unicodedata.normalize("NFC", label).casefold() for label in written)
    return LabelSet(name=name, labels=tuple(sorted(labels)))


def coarser_label(label: str, fine_set: str, coarse_set: str) -> str | None:
    """Map a label to a coarser set, by the hierarchy of a dataset or by polarity; None if it has no counterpart.

    Raises:
        DataError: unknown label or set, or no hierarchy between the sets.
    """
    fine = get_label_set(fine_set)
    get_label_set(coarse_set)
    name = fine.canonical(label)
    if (fine_set, coarse_set) in COARSER:
        return COARSER[fine_set, coarse_set][name]
    if coarse_set == "polarity2" and fine.polarity:
        polarity = fine.polarity[name]
        return None if polarity == NEUTRAL else polarity
    known = ", ".join(f"{one} to {other}" for one, other in COARSER)
    available = f"{known}, any published set to polarity2; your own lists of labels have no coarser set"
    raise DataError(f"no hierarchy leads from '{fine_set}' to '{coarse_set}' (available: {available})")
