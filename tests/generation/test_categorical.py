"""The categorical instruction.

- Every wording contains every label once and the form of the answer.
- The answer is the prefix and the canonical label.
- Wording and order of options depend on seed and id, not on other records; the fixed order is that of the label set.
- Records without emotion stay unchanged; missing label sets, unknown labels, wordings and orders are rejected.
"""

from __future__ import annotations

import pytest

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.emotion.questions import CATEGORICAL_ANSWER_PREFIX, CATEGORICAL_WORDINGS, categorical_prompt
from lavis_emovit.errors import DataError
from lavis_emovit.generation.categorical import add_categorical
from lavis_emovit.records import EmotionRecord

MIKELS = get_label_set("mikels8")


def _records(count, **changes):
    values = {"image": "a.jpg", "split": "train", "source": "a", "emotion": "awe", "label_set": "mikels8", **changes}
    return [EmotionRecord(id=f"a/{number}", **values) for number in range(count)]


@pytest.mark.parametrize("wording", range(1, len(CATEGORICAL_WORDINGS) + 1))
def test_every_wording_lists_all_options_and_the_answer_form(wording):
    prompt = categorical_prompt(MIKELS, wording=wording)
    for label in MIKELS.labels:
        assert prompt.count(label) == 1
    assert ", ".join(MIKELS.labels) in prompt
    assert CATEGORICAL_ANSWER_PREFIX.strip() in prompt
    assert "{" not in prompt


def test_the_answer_is_prefix_and_canonical_label():
    (instruction,) = next(add_categorical(_records(1, emotion=" Contented "), wordings=(2,))).instructions
    assert instruction.answer == "Predict emotion: contentment"
    assert (instruction.kind, instruction.provenance) == ("categorical", "template:categorical/2")


def test_fixed_order_and_one_wording_give_one_question():
    questions = {record.instructions[0].question for record in add_categorical(_records(20))}
    assert questions == {categorical_prompt(MIKELS)}


def test_choices_depend_on_seed_and_id_only():
    options = {"wordings": (1, 2, 3), "option_order": "shuffled"}
    records = _records(40)
    together = {record.id: record for record in add_categorical(records, seed=3, **options)}
    alone = [next(add_categorical([record], seed=3, **options)) for record in reversed(records)]
    assert all(together[record.id] == record for record in alone)
    other = list(add_categorical(records, seed=4, **options))
    assert sum(together[record.id] != record for record in other) > 30
    assert {record.instructions[0].provenance for record in together.values()} == {
        f"template:categorical/{number}" for number in (1, 2, 3)
    }
    for record in together.values():
        assert all(label in record.instructions[0].question for label in MIKELS.labels)


def test_earlier_instructions_and_unlabelled_records_stay():
    record = next(add_categorical(add_categorical(_records(1))))
    assert len(record.instructions) == 2
    bare = _records(1, emotion=None)
    assert list(add_categorical(bare)) == bare


def test_invalid_records_and_wordings_are_rejected():
    with pytest.raises(DataError, match="names no label set"):
        list(add_categorical(_records(1, label_set=None)))
    with pytest.raises(DataError, match="unknown emotion 'joy'"):
        list(add_categorical(_records(1, emotion="joy")))
    with pytest.raises(DataError, match="categorical wording 9 does not exist"):
        categorical_prompt(MIKELS, wording=9)
    with pytest.raises(DataError, match="open wording 9 does not exist"):
        list(add_categorical(_records(1), wordings=(9,), open_set=True))
    with pytest.raises(DataError, match="are not the labels of 'mikels8'"):
        categorical_prompt(MIKELS, ["awe"])
