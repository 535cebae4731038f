"""Rewards of the label and of the form.

Properties:
- the exact answer has the maximum, in every template; naming all labels, or none, has no reward of the label;
- the similarity of labels is symmetric in one label set with `farthest: set`, 1 on the diagonal only, 0 for the two
  labels that are farthest apart; the values are those of the published table.
"""

from __future__ import annotations

import itertools

import pytest

from lavis_emovit.emotion.label_affect import affect_of_labels, affect_table
from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.emotion.templates import TEMPLATES
from lavis_emovit.errors import DataError

MIKELS = get_label_set("mikels8")


@pytest.mark.parametrize("name", ["label_exact", "label_vad", "polarity"])
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_exact_answer_has_the_maximum(name, template, make_record, reward_of):
    others = " ".join(MIKELS.labels)  # the reasoning may name every label
    for label in MIKELS.labels:
        written = template.write({part: label if part == "answer" else others for part in template.part_names})
        assert reward_of(name, written, make_record(emotion=label)) == 1.0


@pytest.mark.parametrize("name", ["label_exact", "label_vad", "polarity"])
@pytest.mark.parametrize(
    "answer",
    [
        "",
        ", ".join(MIKELS.labels),
        "<answer>awe</answer><answer>fear</answer>",
        "<think>awe</think>",
        "<think>awe",
        "It is not awe.",
        "awesome",
    ],
)
def test_no_label_no_reward(name, answer, make_record, reward_of):
    assert reward_of(name, answer, make_record()) == 0.0


def test_several_true_labels(make_record, reward_of):
    record = make_record(emotion=None, labels=["anger", "fear"])
    assert [reward_of("label_exact", one, record) for one in ("anger", "fear", "awe")] == [1.0, 1.0, 0.0]
    assert reward_of("label_vad", "fear", record) == 1.0


def test_statements(make_record, reward_of):
    """ "The statement is not correct" is no claim of "correct", and no word with an A means "Correct"."""
    record = make_record(emotion="correct", label_set="labels: correct, incorrect")
    wrong = ("Answer: B", "An image that fits", "The statement is not correct.", "Incorrect", "No", "")
    assert [reward_of("label_exact", one, record) for one in wrong] == [0.0] * len(wrong)
    assert reward_of("label_exact", "<answer>Correct</answer>", record) == 1.0


def test_affect_table():
    # Warriner et al. 2013: anger has 2.50, 5.93 and 5.14 on the scale from 1 to 9.
    assert affect_table().of("anger") == pytest.approx(((2.5 - 5) / 4, (5.93 - 5) / 4, (5.14 - 5) / 4))
    assert affect_table().of("suffering") == affect_table().of("suffer") != affect_table().of("pain")
    assert affect_table().of("chair") is None
    with pytest.raises(DataError, match="known for other; set their `values`"):
        affect_of_labels(get_label_set("aff_wild8"))
    assert affect_of_labels(get_label_set("aff_wild8"), {"other": (0, 0, 0)})["other"] == (0, 0, 0)


@pytest.mark.parametrize("name", ["mikels8", "expressions8", "parrott6", "webemo7", "polarity2"])
def test_similarity_is_symmetric(name, make_record, reward_of):
    labels = get_label_set(name).labels
    found = {
        (true, claimed): reward_of("label_vad", claimed, make_record(emotion=true, label_set=name))
        for true, claimed in itertools.product(labels, labels)
    }
    for (true, claimed), value in found.items():
        assert value == found[claimed, true]
        assert (value == 1.0) == (true == claimed)
    assert min(found.values()) == 0.0


def test_similarity_by_hand(make_record, reward_of):
    values = {"calm": (0.0, 0.0, 0.0), "glad": (1.0, 0.0, 0.0), "wild": (0.0, 1.0, 1.0)}
    record = make_record(emotion="calm", label_set="labels: calm, glad, wild")
    # Distances: calm-glad and calm-wild sqrt(0.5), glad-wild 1.
    expected = 1 - 0.5**0.5
    assert reward_of("label_vad", "glad", record, values=values, power=1) == pytest.approx(expected)
    assert reward_of("label_vad", "glad", record, values=values) == pytest.approx(expected**3)
    assert reward_of("label_vad", "glad", record, values=values, farthest="label") == pytest.approx(0.0)
    assert reward_of("label_vad", "wild", record, values=values, dimensions=(0.5, 0, 0)) == 1.0


def test_similar_labels_earn_more(make_record, reward_of):
    contentment, fear = (reward_of("label_vad", one, make_record()) for one in ("contentment", "fear"))
    assert contentment > 0.5 > 0.1 > fear


def test_polarity(make_record, reward_of):
    assert [reward_of("polarity", one, make_record()) for one in ("excitement", "anger", "positive", "negative")] == [
        1.0,
        0.0,
        1.0,
        0.0,
    ]
    assert reward_of("polarity", "positive", make_record(), words=False) == 0.0


@pytest.mark.parametrize(
    ("answer", "strict", "lenient"),
    [
        ("<think>a</think><answer>awe</answer>", 1.0, 1.0),
        ("Well: <think>a</think><answer>awe</answer>", 0.0, 0.5),
        ("<answer>awe</answer><think>a</think>", 0.0, 0.5),
        ("<think>a</think><answer></answer>", 0.0, 0.0),
        ("<answer>awe</answer>", 0.0, 0.0),
        ("awe", 0.0, 0.0),
    ],
)
def test_format_tags(answer, strict, lenient, make_record, reward_of):
    assert reward_of("format_tags", answer, make_record()) == strict
    assert reward_of("format_tags", answer, make_record(), mode="lenient") == lenient


@pytest.mark.parametrize(
    ("words", "expected"), [(0, 0.0), (9, 0.9), (10, 1.0), (20, 1.0), (25, 0.5), (30, 0.0), (99, 0.0)]
)
def test_length(words, expected, make_record, reward_of):
    settings = {"least": 10, "most": 20, "fade": 10}
    assert reward_of("length", "word " * words, make_record(), **settings) == pytest.approx(expected)
    thought = f"<think>{'word ' * words}</think><answer>awe</answer>"
    assert reward_of("length", thought, make_record(), part="reasoning", **settings) == pytest.approx(expected)
