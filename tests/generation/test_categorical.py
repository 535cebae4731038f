"""Instructions from templates.

- Every wording contains every label once and the form of the answer.
- The answer is the prefix and the canonical label.
- Wording and order of options depend on seed and id, not on other records; the fixed order is that of the label set.
- Questions ask about what the labels describe: what a picture evokes, what a face or a person shows.
- Valence and arousal are asked with the record's values, once, beside other instructions, and in steps on request.
- Records without emotion stay unchanged; missing label sets, unknown labels, wordings and orders are rejected.
"""

from __future__ import annotations

import json
import re

import pytest

from lavis_emovit.chat.ledger import Ledger
from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.emotion.questions import (
    AFFECT_QUESTIONS,
    CATEGORICAL_ANSWER_PREFIX,
    CATEGORICAL_WORDINGS,
    EXPLANATION_QUESTIONS,
    LEVEL_QUESTIONS,
    LEVELS,
    SCALE,
    SCALE_QUESTIONS,
    categorical_prompt,
)
from lavis_emovit.errors import DataError
from lavis_emovit.generation.categorical import add_affect, add_categorical, categorical_instruction, nearest_step
from lavis_emovit.generation.facts import facts_text, subject
from lavis_emovit.generation.instructions import write_kind
from lavis_emovit.generation.job import Job, JobSettings
from lavis_emovit.generation.kinds import KINDS
from lavis_emovit.generation.pipeline import write_template
from lavis_emovit.records import EmotionRecord, Instruction

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


EMOTIC = {"label_set": "emotic26", "box": (0.0, 0.0, 9.0, 9.0)}


@pytest.mark.parametrize(
    ("changes", "about", "opening"),
    [
        ({}, "picture", "What emotion does this picture call up?"),
        ({"emotion": "sadness", "label_set": "expressions8"}, "face", "What emotion does this face show?"),
        (
            {"emotion": "joy", "label_set": "labels:joy, calm", "action_units": {12: 1.0}},
            "face",
            "What emotion does this",
        ),
        ({"emotion": "peace", **EMOTIC}, "person", "What emotion does this person show?"),
        ({"emotion": "joy", "label_set": "labels:joy, calm"}, "picture", "What emotion does this picture call up?"),
    ],
)
def test_questions_ask_about_what_the_labels_describe(changes, about, opening):
    (record,) = _records(1, **changes)
    assert subject(record) == about
    (instruction,) = next(add_categorical([record], open_set=True)).instructions
    name = "categorical-open" if about == "picture" else f"categorical-open-{about}"
    assert instruction.question.startswith(opening) and instruction.provenance == f"template:{name}/1"
    (instruction,) = next(add_categorical([record])).instructions
    listed = {
        "picture": "Which of these emotions fits the picture best:",
        "face": "Which of these expressions does this face show:",
        "person": "Which of these emotions does this person show:",
    }
    assert instruction.question.startswith(listed[about])
    assert instruction.provenance == f"template:{name.replace('-open', '')}/1"
    shown = {
        "picture": "emotion that people feel: ",
        "face": "emotion that the face shows",
        "person": "emotion that the p",
    }
    assert facts_text(record).startswith(shown[about])
    question = KINDS["explanation"].read('{"reason": "It is so."}', record).pairs[0].question
    assert question in EXPLANATION_QUESTIONS[about]
    texts = json.dumps([KINDS[kind].offline_reply(record, sample) for kind in KINDS for sample in range(9)])
    evoked = ("somebody who looks", "react to this picture", "to a viewer", "Most people would", "makes a mood")
    assert any(words in texts for words in evoked) == (about == "picture")


def test_valence_and_arousal(tmp_path):
    old = Instruction(kind="conversation", question="Why?", answer="So.", provenance="offline/1:conversation/1#0")
    asked = Instruction(kind="conversation", question="?", answer="!", provenance="seke:affect/1 person")
    scene = {"emotion": None, "label_set": None}
    records = [
        *_records(1, valence=0.5, arousal=-0.256, instructions=[old], **scene),
        EmotionRecord(id="b", image="b", split="train", source="b", valence=-1.0, arousal=0.0, label_set="ekman6"),
        EmotionRecord(id="c", image="b", split="train", source="b", valence=1.0, arousal=0.0, instructions=[asked]),
        EmotionRecord(id="d", image="b", split="train", source="b", valence=1.0),
    ]
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        job = Job(records, tmp_path, tmp_path, ledger)
        for _ in range(2):  # a second run replaces the questions
            result = write_template(job, "affect")
            assert (result.num_done, result.num_records) == (2, 4)
        first, second, third, fourth = (record.instructions for record in job.records)
        assert first[0] == old and first[1].question in AFFECT_QUESTIONS["picture"] and len(first) == 2
        assert first[1].answer == "Valence: 0.50, arousal: -0.26." and first[1].kind == "conversation"
        assert second[0].question in AFFECT_QUESTIONS["face"] and second[0].answer == "Valence: -1.00, arousal: 0.00."
        assert second[0].provenance.startswith("template:affect-face/") and third == [asked] and fourth == []
        # Another conversation replaces only the earlier conversation.
        write_kind(job, "conversation")
        assert first[1] in job.records[0].instructions and old not in job.records[0].instructions
        job.settings = JobSettings(about="person")
        write_template(job, "affect")
        assert [item.provenance[:23] for item in job.records[0].instructions].count("template:affect-person/") == 1


@pytest.mark.parametrize(
    ("value", "step"),
    [
        (-1.0, "1"),
        (-0.88, "1"),
        (-0.87, "2"),
        (-0.125, "5"),
        (-0.13, "4"),
        (0.0, "5"),
        (0.125, "5"),
        (0.3, "6"),
        (1.0, "9"),
    ],
)
def test_steps_of_valence_and_arousal_are_the_nearest(value, step):
    assert nearest_step(value, SCALE) == step
    # Step 1 is -1, step 9 is 1.
    assert abs((SCALE.index(step) - 4) / 4 - value) <= 0.125


def test_valence_and_arousal_in_steps():
    records = _records(3, valence=0.5, arousal=-0.2)
    asked = [record.instructions for record in add_affect(records, scale=True)]
    for number, of_one in enumerate(asked):
        assert [item.answer for item in of_one] == ["Valence: 0.50, arousal: -0.20.", "7", "4"], number
        for item, axis in zip(of_one[1:], ("valence", "arousal")):
            wording = int(item.provenance.rpartition("/")[2])
            assert item.question == SCALE_QUESTIONS["picture"][axis][wording - 1]
            assert item.provenance == f"template:affect-scale-{axis}-picture/{wording}"
    assert [len(record.instructions) for record in add_affect(records)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("value", "level"),
    [
        (-1.0, "awful"),
        (-0.76, "awful"),
        (-0.75, "bad"),
        (-0.25, "neutral"),
        (0.0, "neutral"),
        (0.26, "good"),
        (1.0, "great"),
    ],
)
def test_levels_of_valence_are_the_nearest(value, level):
    assert nearest_step(value, LEVELS["valence"]) == level


def test_valence_and_arousal_in_levels():
    for record in add_affect(_records(3, valence=0.6, arousal=-0.9), scale="levels"):
        assert [item.answer for item in record.instructions] == ["Valence: 0.60, arousal: -0.90.", "good", "calm"]
        for item, axis in zip(record.instructions[1:], ("valence", "arousal")):
            wording = int(item.provenance.rpartition("/")[2])
            assert item.question == LEVEL_QUESTIONS["picture"][axis][wording - 1]
            assert item.provenance == f"template:affect-levels-{axis}-picture/{wording}"


def test_questions_for_levels_name_all_of_them_in_order():
    for about, axes in LEVEL_QUESTIONS.items():
        assert axes.keys() == LEVELS.keys() == SCALE_QUESTIONS[about].keys()
        for axis, texts in axes.items():
            for text in texts:
                listed = re.split(r", | or ", re.split(r": | as one of ", text.rstrip("?."))[-1])
                assert tuple(listed) == LEVELS[axis], text


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


def test_an_answer_in_the_form_of_a_template() -> None:
    from lavis_emovit.datasets.settings import CategoricalSettings
    from lavis_emovit.emotion.templates import get_template

    template = get_template("answer_confidence")
    made = [
        categorical_instruction(
            EmotionRecord(
                id=f"set/{number}", image="1.jpg", split="train", source="set", emotion="awe", label_set="mikels8"
            ),
            template="answer_confidence",
        )
        for number in range(50)
    ]
    parts = [template.take_apart(one.answer).parts for one in made]
    assert {one["answer"] for one in parts} == {"awe"} and len({one["confidence"] for one in parts}) == 9
    assert all(one.question.endswith(template.instruction()) and "Predict emotion" not in one.question for one in made)
    assert made[0].question.startswith("Which of these emotions fits the picture best: amusement, anger, awe,")
    assert made[0].provenance == "template:categorical-answer_confidence/1"
    with pytest.raises(ValueError, match=r"'think_answer' has the part reasoning.*written instructions"):
        CategoricalSettings(template="think_answer")
    # Shards of earlier versions stay valid.
    assert "template" not in CategoricalSettings().model_dump()
