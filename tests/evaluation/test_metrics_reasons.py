"""Explanations that are right for the right reason.

- The emotion of a reason is read by its words on a wheel, with the labels removed or not; denied words and ties lead to
  none.
- EEA, FCR, EPC, the four cases of doubly right, step scores, ROUGE-L and REGE are what a count by hand gives; the
  golden case of the step score is reproduced; nothing that fails leaves the denominator.
- A judge's emotions and steps are measured alike; replies that cannot be used are wrong.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from lavis_emovit.chat.request import ChatImage
from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.emotion.answer_reasons import emotions_of_reason, has_words_for, without_labels
from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.evaluation.judging import JudgeSettings, judged_reasons, read_reason, reason_request
from lavis_emovit.evaluation.metrics.instruction_answers import rouge_l
from lavis_emovit.evaluation.metrics.reasons import reason_metrics, steps_of
from lavis_emovit.evaluation.predictions import PredictionRow

MIKELS = get_label_set("mikels8")


@pytest.mark.parametrize(
    ("reason", "masked", "plain"),
    [
        ("The dark sky is full of dread; people panic.", "fear", "fear"),
        ("It is awe, since grandeur and wonder fill the hall.", "awe", "awe"),
        ("People feel fear.", None, "fear"),
        ("There is no terror here.", None, None),
        ("Dread and grief.", None, None),
        ("A dog on the grass.", None, None),
    ],
)
def test_the_emotion_of_a_reason(reason, masked, plain):
    assert emotions_of_reason(reason, MIKELS) == (plain, masked)


def test_labels_are_removed_in_every_form():
    assert without_labels("Sadness, and she is amused.", MIKELS) == "something, and she is something."
    assert has_words_for(get_label_set("emotion6")) and not has_words_for(get_label_set("polarity2"))


def _row(number, label, said, reason, **values):
    return PredictionRow(
        instance_id=f"r{number}", record_id=f"r{number}", label=label, prediction=said,
        answer=f"Predict emotion: {said}. Reason: {reason}", **values,
    )  # fmt: skip


ROWS = [
    _row(0, "fear", "fear", "The storm is full of dread.", slices={"attributes.scene": "storm"}),
    _row(1, "fear", "fear", "A meadow of peace.", slices={"attributes.scene": "street"}),
    _row(2, "fear", "awe", "People panic in terror.", reference="People panic in the street."),
    _row(3, "sadness", "awe", "The hall is a wonder.", reference="Nothing alike."),
    _row(4, "sadness", None, "A chair."),
    PredictionRow(instance_id="r5", record_id="r5", label="awe", prediction=None, error="damaged"),
]


def test_reasons_are_counted():
    found = reason_metrics(ROWS, MIKELS)
    assert (found.num_samples, found.num_errors, found.num_without_emotion, found.source) == (5, 1, 1, "words")
    assert found.eea == pytest.approx(2 / 5) and found.fcr == pytest.approx(1 / 5) and found.epc == pytest.approx(2 / 5)
    cases = (found.right_right, found.right_wrong, found.wrong_right, found.wrong_wrong)
    assert cases == pytest.approx((1 / 5, 1 / 5, 1 / 5, 2 / 5)) and sum(cases) == pytest.approx(1)
    # Facts are known for the first two: one step mentions the storm, one does not mention the street.
    assert found.num_with_steps == 2 and (found.rec_s, found.rea_s, found.cot_s) == (1.0, 0.5, 0.75)
    overlaps = [rouge_l(row.answer, row.reference) for row in ROWS[2:4]]
    assert found.rouge_l == pytest.approx(sum(overlaps) / 2) and found.rege == pytest.approx(sum(overlaps) / 2 + 0)
    labels_only = reason_metrics([_row(0, "positive", "positive", "Peace.")], get_label_set("polarity2"))
    assert labels_only.eea is None and labels_only.right_right is None and labels_only.num_samples == 1


def test_the_step_score_has_its_golden_value():
    answer = "A storm comes. The waves break. The boat turns over. The sun shines."
    row = _row(0, "fear", "fear", answer)
    assert steps_of(row.answer) == ["A storm comes.", "The waves break.", "The boat turns over.", "The sun shines."]
    found = reason_metrics([row], MIKELS, steps={"r0": (True, True, True, False)})
    assert (found.rec_s, found.rea_s, found.cot_s) == (1.0, 0.75, 0.875)
    # A reason without a step, and a step list that is missing, have no right step.
    alone = reason_metrics([row.model_copy(update={"answer": "fear"})], MIKELS, steps={})
    assert (alone.rea_s, alone.cot_s) == (0.0, 0.5)


def test_values_of_other_types_are_no_judgement():
    chat, prompt = ChatSettings(model="judge"), JudgeSettings(chat={"model": "judge"}).load_prompt
    for reply in ("{}", '{"emotion": null}', '{"emotion": ["fear"]}', '{"emotion": 0}'):
        assert read_reason(ROWS[0], reply, "emotion", prompt("emotion"), chat, MIKELS).emotion is None
    for reply in ('{"steps": [true]}', '{"steps": [1.0]}', '{"steps": "1"}'):
        assert read_reason(ROWS[0], reply, "steps", prompt("steps"), chat, MIKELS).steps is None


def test_a_judge_is_measured_alike():
    chat, prompt = ChatSettings(model="judge"), JudgeSettings(chat={"model": "judge"}).load_prompt
    replies = {
        "r0": '{"emotion": "Fear"}', "r1": '{"emotion": "none"}', "r2": '{"emotion": "zeal"}', "r3": "I would say awe",
        "r4": '{"emotion": "sadness"}',
    }  # fmt: skip
    read = prompt("emotion")
    judged = [read_reason(row, replies[row.instance_id], "emotion", read, chat, MIKELS) for row in ROWS[:5]]
    assert [one.emotion for one in judged] == ["fear", "none", None, None, "sadness"]
    steps = [
        read_reason(ROWS[0], '{"steps": [1]}', "steps", prompt("steps"), chat, MIKELS),
        read_reason(ROWS[1], '{"steps": [1, 0]}', "steps", prompt("steps"), chat, MIKELS),
    ]
    assert [one.steps for one in steps] == [(True,), None]
    found = judged_reasons([*judged, *steps], ROWS, MIKELS, None)
    assert (found.source, found.num_samples, found.eea, found.right_right) == ("judge", 5, 2 / 5, 1 / 5)
    assert found.num_without_emotion == 2 and found.num_with_steps == 5 and found.rea_s == pytest.approx(1 / 5)
    assert judged_reasons([], ROWS, MIKELS, None) is None
    image = ChatImage(Path("x.png"), "0" * 64)
    asked = {part: reason_request(ROWS[0], image, part, prompt(part), chat, MIKELS) for part in ("emotion", "steps")}
    texts = {part: request.messages[-1] for part, request in asked.items()}
    assert "storm is full of dread" in texts["emotion"].text and not texts["emotion"].images
    assert "1. The storm is full of dread." in texts["steps"].text and texts["steps"].images == (image,)


def test_the_longest_common_sequence_is_that_of_the_plain_table():
    rng = random.Random(3)

    def plain(one, other):
        table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
        for i, a in enumerate(one):
            for j, b in enumerate(other):
                table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
        return table[-1][-1]

    for _ in range(200):
        one, other = ([rng.choice("abcde") for _ in range(rng.randint(1, 30))] for _ in range(2))
        expected = 2 * plain(one, other) / (len(one) + len(other))
        assert rouge_l(" ".join(one), " ".join(other)) == pytest.approx(expected)
