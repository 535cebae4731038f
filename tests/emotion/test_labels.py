"""Label sets.

- Every set is in alphabetical order, has a polarity for each label, and maps every alias to one of its labels.
- EmoSet's two-class mode agrees with the polarity of `mikels8` (positive: amusement, awe, contentment, excitement).
- A hierarchy leads from a fine set to a coarse one; the name of a custom set lists its labels.
- Case, spaces and underscores are ignored; other spellings are rejected with the nearest name.
"""

from __future__ import annotations

from collections import Counter

import pytest

from lavis_emovit.emotion.labels import LABEL_SETS, LabelSet, coarser_label, get_label_set
from lavis_emovit.errors import DataError


@pytest.mark.parametrize("label_set", LABEL_SETS.values(), ids=lambda item: item.name)
def test_every_set_is_consistent(label_set):
    assert list(label_set.labels) == sorted(label_set.labels)
    assert len(label_set) == int("".join(c for c in label_set.name if c.isdigit()))
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
    assert mikels.labels.index("awe") == 2


@pytest.mark.parametrize("text", ["anger", " Anger ", "ANGRY", "angry\n"])
def test_spellings_of_one_label(text):
    assert get_label_set("mikels8").canonical(text) == "anger"
    assert get_label_set("ekman6").canonical(text) == "anger"


def test_unknown_names_are_rejected_with_the_nearest_name():
    with pytest.raises(DataError, match=r"unknown emotion 'contentmnt' .*did you mean 'contentment'"):
        get_label_set("mikels8").canonical("contentmnt")
    with pytest.raises(DataError, match=r"unknown emotion 'danger' .*its labels: amusement, anger"):
        get_label_set("mikels8").canonical("danger")
    with pytest.raises(DataError, match="did you mean 'mikels8'"):
        get_label_set("mikels")
    with pytest.raises(DataError, match=r"\(valid: aff_wild8, artemis9"):
        get_label_set("zzz")


def test_name_of_a_custom_set_lists_its_labels():
    custom = get_label_set("labels: Wild,calm , very  tense")
    assert custom.labels == ("calm", "very tense", "wild")
    assert custom.canonical("Very_Tense") == "very tense"
    for name in ("labels:", "labels:calm", "labels:calm,,tense", "labels:calm,Calm"):
        with pytest.raises(DataError, match="two or more different labels"):
            get_label_set(name)


def test_levels_of_a_hierarchy():
    """WEBEmo's 25 classes map to the 7 and the 2 of its authors, and to Parrott's 6, which lack confusion."""
    fine = get_label_set("webemo25")
    middle = {label: coarser_label(label, "webemo25", "webemo7") for label in fine.labels}
    assert set(middle.values()) == set(get_label_set("webemo7").labels)
    assert Counter(middle.values()) == {
        "joy": 7, "sadness": 6, "anger": 5, "love": 3, "fear": 2, "confusion": 1, "surprise": 1,
    }  # fmt: skip
    assert Counter(fine.polarity.values()) == {"negative": 14, "positive": 11}
    six = {coarser_label(label, "webemo25", "parrott6") for label in fine.labels}
    assert six == {None, *get_label_set("parrott6").labels}
    assert (middle["rage"], middle["zest"], middle["affection"], middle["horror"]) == ("anger", "joy", "love", "fear")
    assert coarser_label("cheerfullness", "webemo25", "polarity2") == "positive"
    assert coarser_label("surprise", "webemo25", "polarity2") == "positive"
    assert coarser_label("confusion", "webemo25", "polarity2") == "negative"
    assert coarser_label("surprise", "parrott6", "polarity2") is None
    assert coarser_label("awe", "mikels8", "polarity2") == "positive"
    with pytest.raises(DataError, match="no hierarchy leads from 'mikels8' to 'ekman6'"):
        coarser_label("awe", "mikels8", "ekman6")
    own = "any published set to polarity2; your own lists of labels have no coarser set"
    for fine, coarse in (("labels:awe, fear", "polarity2"), ("labels:joy, rage", "parrott6"), ("ekman6", "parrott6")):
        with pytest.raises(DataError, match=f"no hierarchy leads from '{fine}' to '{coarse}'.*{own}"):
            coarser_label(get_label_set(fine).labels[0], fine, coarse)
    assert all(label_set.polarity for label_set in LABEL_SETS.values())


def test_inconsistent_set_is_rejected():
    with pytest.raises(ValueError, match="is inconsistent"):
        LabelSet("bad", ("a", "b"), aliases={"c": "d"})
    with pytest.raises(ValueError, match="is inconsistent"):
        LabelSet("bad", ("a", "b"), aliases={"a": "b"})
