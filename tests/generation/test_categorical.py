"""The categorical instruction.

- Every wording lists every label once, tells the form of the answer and reveals no more about one label than another.
- The answer is the prefix and the canonical label.
- Wording and order of options depend on seed and id, not on the records around; fixed order is the label set's.
- Records without emotion pass; ones without a label set, and wordings or orders that don't exist, are refused.
"""

from __future__ import annotations

import pytest

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.emotion.questions import CATEGORICAL_ANSWER_PREFIX, CATEGORICAL_WORDINGS, categorical_prompt
from lavis_emovit.errors import DataError
from lavis_emovit.generation.categorical import add_categorical, categorical_instruction
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
    record = _records(1, emotion=" Contented ")[0]
    instruction = categorical_instruction(record, MIKELS, wording=2)
    assert instruction.answer == "Predict emotion: contentment"
    assert (instruction.kind, instruction.provenance) == ("categorical", "template:categorical/2")


def test_fixed_order_and_one_wording_ask_everybody_the_same():
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


def test_earlier_instructions_stay_and_unlabelled_records_pass():
    record = next(add_categorical(add_categorical(_records(1))))
    assert len(record.instructions) == 2
    bare = _records(1, emotion=None)
    assert list(add_categorical(bare)) == bare


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(DataError, match="names no label set"):
        list(add_categorical(_records(1, label_set=None)))
    with pytest.raises(DataError, match="unknown emotion 'joy'"):
        list(add_categorical(_records(1, emotion="joy")))
    with pytest.raises(DataError, match="has no emotion"):
        categorical_instruction(_records(1, emotion=None)[0], MIKELS)
    with pytest.raises(DataError, match="wording 9 does not exist"):
        categorical_prompt(MIKELS, wording=9)
    with pytest.raises(DataError, match="are not the labels of 'mikels8'"):
        categorical_prompt(MIKELS, ["awe"])
