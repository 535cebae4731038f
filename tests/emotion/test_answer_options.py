"""Reading answers that name an option by its mark, and the published rule.

Properties:
- letters and numbers in their usual forms choose the option, in the order of the question;
- a mark that contradicts the word beside it, and several marks, are ambiguous;
- articles, pronouns, counts and marks beyond the list choose nothing; without listed options no mark counts;
- the published rule behaves as documented, including its mistakes.
"""

from __future__ import annotations

import pytest

from lavis_emovit.emotion.answer_options import option_marks
from lavis_emovit.emotion.answers import EmotionAnswer, read_choice, read_emotion
from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics.original_rule import read_emotion_original

INVALID, AMBIGUOUS, REFUSED, NEGATED = "invalid", "ambiguous", "refused", "negated"
STATUSES = {INVALID, AMBIGUOUS, REFUSED, NEGATED}
EKMAN = get_label_set("ekman6")
OPTIONS = ("happiness", "fear", "anger", "disgust", "sadness", "surprise")

OPTION_ANSWERS = [
    ("(b)", "fear"),
    ("B", "fear"),
    ("b.", "fear"),
    ("B. fear", "fear"),
    ("B. Fear", "fear"),
    ("(b) Fear", "fear"),
    ("b) fear", "fear"),
    ("2", "fear"),
    ("2.", "fear"),
    ("2. fear", "fear"),
    ("Option B", "fear"),
    ("option (b)", "fear"),
    ("Option 2: fear", "fear"),
    ("The answer is B.", "fear"),
    ("The answer is (B).", "fear"),
    ("Answer: B", "fear"),
    ("Answer: 2", "fear"),
    ("**B**", "fear"),
    ("**(b)**", "fear"),
    ("Answer: **B. Fear**", "fear"),
    ("\\boxed{B}", "fear"),
    ("<answer>B</answer>", "fear"),
    ("I choose B", "fear"),
    ("I would go with (b).", "fear"),
    ("B. anger", AMBIGUOUS),
    ("(c) fear", AMBIGUOUS),
    ("3. fear", AMBIGUOUS),
    ("A and C", AMBIGUOUS),
    ("A, C", AMBIGUOUS),
    ("a or b", AMBIGUOUS),
    ("(a)/(b)", AMBIGUOUS),
    ("Answer: A or B", AMBIGUOUS),
    ("7", INVALID),
    ("h", INVALID),
    ("0", INVALID),
    ("Answer: 9", INVALID),
    ("G. joy", "happiness"),
    ("A sad man", "sadness"),
    ("A man is crying", INVALID),
    ("I see a dog", INVALID),
    ("a", "happiness"),
    ("A", "happiness"),
    ("(b) because the man trembles", "fear"),
    ("(b), the man looks angry", AMBIGUOUS),
    ("B: the eyes are wide open", "fear"),
    ("B. It is not fear.", AMBIGUOUS),
    ("B. It is not anger.", "fear"),
    ("not B", INVALID),
    ("The answer is not B", INVALID),
    ("The answer is not B but C", INVALID),
    ("B. The image shows fear and sadness", "fear"),
    ("I can't tell, but maybe (b)", REFUSED),
    ("Answer: B\nAnswer: B", "fear"),
    ("Answer: B\nAnswer: C", AMBIGUOUS),
    ("fear", "fear"),
    ("Predict emotion: B", "fear"),
    ("Predict emotion: fear (b)", "fear"),
    ("fear (c)", "fear"),
    ("2/10", INVALID),
    ("3 people stand there", INVALID),
    ("3.5", INVALID),
    ("Two", INVALID),
    ("", INVALID),
    ("e", "sadness"),
    ("E!", INVALID),
    ("The emotion is C", "anger"),
    ("Emotion: c) anger", "anger"),
    ("D. All of the above", "disgust"),
    ('{"answer": "B"}', "fear"),
    ('{"answer": 2}', "fear"),
    ('{"emotion": "b", "reason": "..."}', "fear"),
    ("A. happiness\nB. fear\nC. anger", AMBIGUOUS),
    ("Among (a) happiness and (b) fear, the answer is (b) fear.", "fear"),
    ("选择B", INVALID),
    ("B) Angst", "fear"),
    ("<think>A or B?</think>B", "fear"),
    ("class 2", INVALID),
    ("C is correct", INVALID),
]

# (answer, label by the published rule): the first label of the list that occurs on the first line.
ORIGINAL_ANSWERS = [
    ("Predict emotion: awe", "awe"),
    ("AWE", "awe"),
    ("danger", "anger"),
    ("an awful smell", None),
    ("awesome", "awe"),
    ("not fear", "fear"),
    ("fear and anger", "anger"),
    ("sadness rather than amusement", "amusement"),
    ("the contentment of a stranger", "anger"),
    ("I cannot tell", None),
    ("amused", None),
    ("sad", None),
    ("content", None),
    ("", None),
    ("\nfear", None),
    ("The answer is\nfear", None),
    ("fear\nanger", "fear"),
    ("fear\r\nanger", "fear"),
]


@pytest.mark.parametrize(("text", "outcome"), OPTION_ANSWERS)
def test_marks_of_options(text, outcome):
    expected = EmotionAnswer(None, outcome) if outcome in STATUSES else EmotionAnswer(outcome, "ok")
    assert read_emotion(text, EKMAN, OPTIONS) == expected


@pytest.mark.parametrize("mark", ["(b)", "B", "2", "Answer: B", "Option 2"])
def test_marks_do_not_count_without_listed_options(mark):
    assert read_emotion(mark, EKMAN) == EmotionAnswer(None, "invalid")


@pytest.mark.parametrize("style", ["letters", "numbers"])
@pytest.mark.parametrize("name", ["mikels8", "webemo25", "polarity2"])
def test_every_mark_of_a_question_reads_as_its_option(name, style):
    labels = get_label_set(name).labels[::-1]
    for label, shown in zip(labels, option_marks(labels, style)):
        mark = shown.removesuffix(label).strip()
        for frame in ("{}", "Answer: {}", "The answer is {}", "**{}**"):
            text = frame.format(mark)
            assert read_emotion(text, get_label_set(name), labels) == EmotionAnswer(label, "ok"), text
        assert read_emotion(shown, get_label_set(name), labels) == EmotionAnswer(label, "ok")


def test_invalid_options_and_marks_are_rejected():
    with pytest.raises(DataError, match="unknown emotion 'awe'"):
        read_emotion("(a)", EKMAN, ("awe", "fear"))
    with pytest.raises(ValueError, match="too many for letters"):
        option_marks(["x"] * 27)
    with pytest.raises(ValueError, match="'letters' or 'numbers'"):
        option_marks(["x"], "roman")


@pytest.mark.parametrize(("text", "label"), ORIGINAL_ANSWERS)
def test_the_published_rule(text, label):
    assert read_emotion_original(text, get_label_set("mikels8").labels) == label


@pytest.mark.parametrize("options", [{"A": "x", "a": "y"}, {"1": "x", "01": "y"}, {"B": "x", "C": "y", "b": "z"}])
def test_marks_that_repeat_are_refused(options):
    with pytest.raises(DataError, match="several options have the mark"):
        read_choice("A", options)


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("In these ways: C: Awe. The other options do not fit. A: Anger. B: Fear.", 2),
        ("B. Fear fits. The other answers are incorrect, such as C. Awe.", 1),
        ("A: Anger and B: Fear fit. The other options do not fit.", None),
    ],
)
def test_what_is_before_the_denial_of_the_others_is_chosen(text, outcome):
    assert read_choice(text, ["Anger", "Fear", "Awe"]) == (AMBIGUOUS if outcome is None else "ok", outcome)
