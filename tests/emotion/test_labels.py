"""Label sets.

- Every set is in alphabetical order, gives each label a polarity and brings every alias to one of its labels.
- EmoSet's two-class mode agrees with the polarity of `mikels8` (positive: amusement, awe, contentment, excitement).
- Case, blanks and underscores don't matter; anything else is refused with the nearest name.
"""

from __future__ import annotations

import pytest

from lavis_emovit.emotion.labels import LABEL_SETS, LabelSet, get_label_set
from lavis_emovit.errors import DataError


@pytest.mark.parametrize("label_set", LABEL_SETS.values(), ids=lambda item: item.name)
def test_every_set_is_consistent(label_set):
    assert list(label_set.labels) == sorted(label_set.labels)
    assert set(label_set.polarity) == set(label_set.labels)
    assert set(label_set.polarity.values()) <= {"positive", "negative", "neutral"}
    for alias, label in label_set.aliases.items():
        assert label_set.canonical(alias) == label
        assert alias == alias.lower()


def test_mikels_has_emosets_classes():
    mikels = get_label_set("mikels8")
    assert len(mikels) == 8
    positive = {label for label in mikels.labels if mikels.polarity[label] == "positive"}
    assert positive == {"amusement", "awe", "contentment", "excitement"}
    assert mikels.index("awe") == 2


@pytest.mark.parametrize("text", ["anger", " Anger ", "ANGRY", "angry\n"])
def test_spellings_of_one_label(text):
    assert get_label_set("mikels8").canonical(text) == "anger"
    assert get_label_set("ekman6").canonical(text) == "anger"


def test_strangers_are_refused_with_the_nearest_name():
    with pytest.raises(DataError, match=r"unknown emotion 'contentmnt' .*did you mean 'contentment'"):
        get_label_set("mikels8").canonical("contentmnt")
    with pytest.raises(DataError, match=r"unknown emotion 'danger' .*its labels: amusement, anger"):
        get_label_set("mikels8").canonical("danger")
    with pytest.raises(DataError, match="did you mean 'mikels8'"):
        get_label_set("mikels")
    with pytest.raises(DataError, match="known: mikels8, ekman6"):
        get_label_set("zzz")


def test_a_set_that_contradicts_itself_cannot_be_made():
    with pytest.raises(ValueError, match="contradicts itself"):
        LabelSet("bad", ("a", "b"), aliases={"c": "d"})
    with pytest.raises(ValueError, match="contradicts itself"):
        LabelSet("bad", ("a", "b"), aliases={"a": "b"})
