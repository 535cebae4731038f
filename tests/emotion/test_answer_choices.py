"""Reading which option of a question an answer chooses.

Properties:
- marks in their usual forms, the words of an option, yes and no, and a final answer after reasoning are read;
- contradictions, several options, denied options, lists that repeat the question and prose that only mentions options
  choose nothing: the reader never guesses;
- an index is returned only if the text names that option by its mark or by its words;
- whatever the text, there is no exception, and the time stays in proportion to its length;
- the published verdicts of four public models are reproduced, apart from differences that `docs/evaluation.md` lists.

The answers are written by hand; the expected result is the strict reading of a person.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import time
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavis_emovit.emotion.answers import ChoiceAnswer, read_choice
from lavis_emovit.errors import DataError

INVALID, AMBIGUOUS, REFUSED, NEGATED = "invalid", "ambiguous", "refused", "negated"
EMOTIONS = ("Anger", "Fear", "Joy", "Sadness")
YES_NO = ("Yes.", "No.")
NO_YES = ("No.", "Yes.")
DEGREES = ("Much lower.", "Much higher.", "About the same.")
IMAGES = ("The second picture.", "The first picture.", "Both pictures.", "Neither pictures.")
SENTENCES = (
    "The dog barks, but people smile at it.",
    "The dog in Figure 1 looks dangerous.",
    "The dog in Figure 2 looks dangerous.",
)
FIGURES = ("Figure 1", "Figure 2", "Figure 1 and Figure 2")
TRUTH = ("True", "False", "Cannot be determined")
COUNTS = ("1", "2", "3", "4")

# (options, answer, number of its option or its status)
CASES = [
    # A last section decides between the options of what comes before.
    (EMOTIONS, "**A: Anger** - none. **D: Sadness** - none.\n\n**Answer:**\nThe absent one is **B: Fear**.", 1),
    (EMOTIONS, "A: Anger is absent.\nD: Sadness is there.\n\n## Conclusion:\nIt is D: Sadness.", 3),
    (EMOTIONS, "A: Anger.\nD: Sadness.\n\nConclusion: both are near.", AMBIGUOUS),
    (EMOTIONS, "Question 1\nAnswer: A\nQuestion 2\nAnswer: D", AMBIGUOUS),
    (YES_NO, "Image 1: Yes, it does.", INVALID),
    (EMOTIONS, "Fear and joy are absent.", NEGATED),
    (EMOTIONS, "Fear and joy are absent, so it is sadness.", 3),
    (EMOTIONS, "It evokes sadness and fear is absent.", 3),
    # Marks.
    (EMOTIONS, "D", 3),
    (EMOTIONS, "d", 3),
    (EMOTIONS, "D.", 3),
    (EMOTIONS, "(D)", 3),
    (EMOTIONS, "[D]", 3),
    (EMOTIONS, "d)", 3),
    (EMOTIONS, "**D**", 3),
    (EMOTIONS, "D: Sadness", 3),
    (EMOTIONS, "D:Sadness</s>", 3),
    (EMOTIONS, "D: Sadness<|im_end|>", 3),
    (EMOTIONS, "D: Sadness<\uff5cend\u2581of\u2581sentence\uff5c>", 3),
    (EMOTIONS, "D - Sadness", 3),
    (EMOTIONS, "D Sadness", 3),
    (EMOTIONS, "D. The man is crying, so the mood is heavy.", 3),
    (EMOTIONS, "Option D", 3),
    (EMOTIONS, "option (d)", 3),
    (EMOTIONS, "Option D: Sadness", 3),
    (EMOTIONS, "4", 3),
    (EMOTIONS, "4. Sadness", 3),
    (EMOTIONS, "Answer: D", 3),
    (EMOTIONS, "Answer: (d)", 3),
    (EMOTIONS, "**Answer:** D: Sadness", 3),
    (EMOTIONS, "The answer is D.", 3),
    (EMOTIONS, "The correct answer is: D", 3),
    (EMOTIONS, "The correct choice would be:\n\nD: Sadness.", 3),
    (EMOTIONS, "I would go with D", 3),
    (EMOTIONS, "I choose option D because of the tears.", 3),
    (EMOTIONS, "\\boxed{D}", 3),
    (EMOTIONS, "So the answer is $\\boxed{\\text{D}}$.", 3),
    (EMOTIONS, "<answer>D</answer>", 3),
    (EMOTIONS, "<think>Could be A or B.</think> <answer>D: Sadness</answer>", 3),
    (EMOTIONS, '{"answer": "D"}', 3),
    (EMOTIONS, '{"choice": "D", "reason": "tears"}', 3),
    (EMOTIONS, "Final answer: D", 3),
    (EMOTIONS, "Therefore, D.", 3),
    (EMOTIONS, "Hence (D) Sadness.", 3),
    ({"w": "Anger", "x": "Fear"}, "(x)", 1),
    ({"w": "Anger", "x": "Fear"}, "b", INVALID),
    (("A. Anger", "B. Fear"), "B", 1),
    (("(a) Anger", "(b) Fear"), "The emotion is fear.", 1),
    (EMOTIONS, "Option C is correct.", 2),
    (EMOTIONS, "C is the correct answer.", 2),
    (EMOTIONS, "Therefore, option **B** is correct", 1),
    (EMOTIONS, "Option A is wrong, so the answer is B.", 1),
    (EMOTIONS, "The answer is B. Not A.", 1),
    (EMOTIONS, "Answer - A", 0),
    (EMOTIONS, "Ans: A", 0),
    (EMOTIONS, "It's A.", 0),
    (EMOTIONS, "I'd say B.", 1),
    (EMOTIONS, "I would say (B).", 1),
    (EMOTIONS, "Option C is wrong.", INVALID),
    (EMOTIONS, "C is not the correct answer.", INVALID),
    (EMOTIONS, "It is a man.", INVALID),
    (EMOTIONS, "It is a sad image", INVALID),
    (EMOTIONS, "I'd say a mix of feelings", INVALID),
    (EMOTIONS, "Joy (option C), not sadness (option D).", 2),
    # A mark beside the words of its option, inside a sentence.
    (EMOTIONS, "The emotion shared by both images is D: Sadness. Both show tears.", 3),
    (EMOTIONS, "Anger and fear are absent, so the shared emotion is (D) Sadness.", 3),
    (EMOTIONS, "It is not A: Anger but D: Sadness.", 3),
    (EMOTIONS, "B: Fear is incorrect. What remains is D: Sadness.", 3),
    # Final answers after reasoning.
    (EMOTIONS, "The first image evokes anger, the second fear. Therefore, the correct answer is D: Sadness.", 3),
    (EMOTIONS, "A: Anger might fit. B: Fear might fit. In conclusion, it is D: Sadness.", 3),
    (EMOTIONS, "Answer: A. Looking closer, this is not right. Therefore, the correct answer is D.", 3),
    (EMOTIONS, "Step 1: anger is out.\nStep 2: fear is out.\n\nAnswer: Sadness", 3),
    (EMOTIONS, "1. The man cries.\n2. The sky is grey.\nSo the answer is sadness.", 3),
    (EMOTIONS, "Which one? Options: A: Anger B: Fear C: Joy D: Sadness\n\nD: Sadness", 3),
    (EMOTIONS, "Choose one of A: Anger, B: Fear, C: Joy, D: Sadness. The answer is D.", 3),
    (EMOTIONS, "A: Anger is not shown.\nB: Fear is not shown.\nThe answer is D.", 3),
    (IMAGES, "A: The second picture evokes fear.\n\nB: The first picture does not evoke fear.", 0),
    # Words.
    (EMOTIONS, "sadness", 3),
    (EMOTIONS, "Sadness.", 3),
    (EMOTIONS, '"Sadness"', 3),
    (EMOTIONS, "The answer is Sadness", 3),
    (EMOTIONS, "I see sadness in this image.", 3),
    (EMOTIONS, "Not anger, but sadness.", 3),
    (EMOTIONS, "It evokes sadness rather than anger.", 3),
    (EMOTIONS, "The dominant emotion is sadness, with a hint of fear.", 3),
    (EMOTIONS, "Both anger and fear seem possible. Overall, the images evoke sadness.", 3),
    (YES_NO, "Yes", 0),
    (YES_NO, "Yes, both images are joyful.", 0),
    (YES_NO, "No. There is no joy in the second one.", 1),
    (YES_NO, "A: Yes. No other emotion is visible.", 0),
    (NO_YES, "B:Yes.", 1),
    (NO_YES, "The answer to the question is B: Yes.", 1),
    (NO_YES, "There is no joy in one, but joy in the other. Answer: No", 0),
    (DEGREES, "Much higher", 1),
    (DEGREES, "The arousal in Figure 2 is much higher than in Figure 1.", 1),
    (DEGREES, "Compared to Figure 1, Figure 2 is about the same in arousal.", 2),
    (DEGREES, "Figure 2 has a significantly lower level of pleasure compared to Figure 1.", 0),
    (IMAGES, "The first picture.", 1),
    (IMAGES, "The first image", 1),
    (IMAGES, "Image 2", 0),
    (IMAGES, "It is the second photo.", 0),
    (IMAGES, "Both images.", 2),
    (IMAGES, "Neither picture", 3),
    (IMAGES, "The first image shows a dog. The second image shows a cat. Therefore, the second image is calmer.", 0),
    (IMAGES, "Both.", 2),
    (IMAGES, "Neither.", 3),
    (FIGURES, "Figure 1 and 2", 2),
    (FIGURES, "Both Figure 1 and Figure 2.", 2),
    (FIGURES, "It is Figure 2.", 1),
    (DEGREES, "Figure 2 is slightly higher.", INVALID),
    (SENTENCES, "I think that the dog in Figure 2 looks dangerous.", 2),
    (SENTENCES, "C", 2),
    (TRUTH, "The statement is true.", 0),
    (TRUTH, "False", 1),
    (TRUTH, "It cannot be determined from the image.", 2),
    (COUNTS, "3", 2),
    (COUNTS, "C", 2),
    (COUNTS, "The answer is 3.", 2),
    # Contradictions, several options, denials.
    (EMOTIONS, "D: Joy", AMBIGUOUS),
    (YES_NO, "A: No.", AMBIGUOUS),
    (EMOTIONS, "The answer is D: Joy", AMBIGUOUS),
    (EMOTIONS, "A and D", AMBIGUOUS),
    (EMOTIONS, "A or D", AMBIGUOUS),
    (EMOTIONS, "A, D", AMBIGUOUS),
    (EMOTIONS, "A/D", AMBIGUOUS),
    (EMOTIONS, "Answer: A and D", AMBIGUOUS),
    (EMOTIONS, "Answer: A\nAnswer: D", AMBIGUOUS),
    (EMOTIONS, "It is A: Anger or D: Sadness.", AMBIGUOUS),
    (EMOTIONS, "A: Anger\nD: Sadness", AMBIGUOUS),
    (EMOTIONS, "A: Anger\nB: Fear\nC: Joy\nD: Sadness", AMBIGUOUS),
    (EMOTIONS, "Choose between A: Anger B: Fear C: Joy D: Sadness", AMBIGUOUS),
    (EMOTIONS, "sadness and fear", AMBIGUOUS),
    (EMOTIONS, "The first image evokes fear, the second sadness.", AMBIGUOUS),
    (EMOTIONS, "not D", INVALID),
    (EMOTIONS, "The answer is not D.", INVALID),
    (EMOTIONS, "not sadness", NEGATED),
    (EMOTIONS, "It isn't D: Sadness.", NEGATED),
    (DEGREES, "Figure 1 is much higher than Figure 2.", AMBIGUOUS),
    (IMAGES, "The first image is bright, the second image is dark.", AMBIGUOUS),
    # Nothing that an option could be read from.
    (EMOTIONS, "", INVALID),
    (EMOTIONS, "A man cries.", INVALID),
    (EMOTIONS, "The answer is a mixture of feelings.", INVALID),
    (EMOTIONS, "I see a dog", INVALID),
    (EMOTIONS, "E", INVALID),
    (EMOTIONS, "9", INVALID),
    (EMOTIONS, "2 people stand there", INVALID),
    (EMOTIONS, "3.5", INVALID),
    (EMOTIONS, "Danger", INVALID),
    (EMOTIONS, "joylessly", NEGATED),
    (EMOTIONS, "None of the above", INVALID),
    (EMOTIONS, "disgust", INVALID),
    (EMOTIONS, "1. The man cries.", INVALID),
    (YES_NO, "There is no joy here.", INVALID),
    (YES_NO, "Nobody knows.", INVALID),
    (EMOTIONS, "I cannot determine the emotion.", REFUSED),
    (EMOTIONS, "I'm sorry, I can't help with that.", REFUSED),
    (YES_NO, "I don't know.", REFUSED),
    (COUNTS, "There are 5 of them.", INVALID),
    (COUNTS, "2.5", INVALID),
]


def expected(outcome: int | str) -> ChoiceAnswer:
    return ChoiceAnswer("ok", outcome) if isinstance(outcome, int) else ChoiceAnswer(outcome, None)


@pytest.mark.parametrize(("options", "text", "outcome"), CASES)
def test_answers(options, text, outcome):
    assert read_choice(text, options) == expected(outcome)


def test_status_and_index_unpack():
    status, index = read_choice("(b)", EMOTIONS)
    assert (status, index) == ("ok", 1)
    assert read_choice("(b)", EMOTIONS).index == 1


CONFLICTS = [(EMOTIONS, "D: Joy", 3), (YES_NO, "A: No.", 0), (EMOTIONS, "The answer is D: Joy", 3)]


@pytest.mark.parametrize(("options", "text", "outcome"), CONFLICTS)
def test_a_mark_beside_other_words_counts_on_request(options, text, outcome):
    assert read_choice(text, options).status == "ambiguous"
    assert read_choice(text, options, conflict="mark") == ChoiceAnswer("ok", outcome)


@pytest.mark.parametrize(("options", "text"), [(EMOTIONS, "A and D"), (EMOTIONS, "A: Anger\nD: Sadness")])
def test_several_options_are_ambiguous_whatever_counts(options, text):
    assert read_choice(text, options, conflict="mark").status == "ambiguous"


FRAMES = [
    "{mark}",
    "({mark})",
    "{mark}.",
    "{mark}: {words}",
    "({mark}) {words}",
    "Answer: {mark}",
    "The answer is {mark}.",
    "{words}",
    "The answer is: {words}",
    "It rains. Therefore, the correct answer is {mark}: {words}",
    "**{mark}**",
    "<think>First A, then B.</think>{mark}",
    "\\boxed{{{mark}}}",
    "<answer>{words}</answer>",
    "Final answer: {words}",
]
OPTIONS = [EMOTIONS, YES_NO, DEGREES, IMAGES, SENTENCES, TRUTH]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: options[0])
@pytest.mark.parametrize("frame", FRAMES)
def test_every_option_is_read_in_every_frame(options, frame):
    for index, words in enumerate(options):
        for mark in ("ABCD"[index], "abcd"[index]):
            assert read_choice(frame.format(mark=mark, words=words), options) == ChoiceAnswer("ok", index)


def test_options_of_the_same_words_have_only_marks():
    options = ("Joy", "joy", "Fear")
    assert read_choice("B", options) == read_choice("B: Joy", options) == ChoiceAnswer("ok", 1)
    assert read_choice("joy", options).status != "ok"


def test_an_option_without_words_has_only_its_mark():
    options = ("Both", "", "Figure 1")
    assert read_choice("B", options) == ChoiceAnswer("ok", 1)
    assert read_choice("nothing", options) == ChoiceAnswer("invalid", None)
    assert read_choice("B: C: Figure 1", options) == ChoiceAnswer("ambiguous", None)


@pytest.mark.parametrize(
    ("options", "message"), [((), "no options"), ({}, "no options"), ({"one": "Joy"}, "marks of options .*'one'")]
)
def test_options_that_cannot_be_asked_are_refused(options, message):
    with pytest.raises(DataError, match=message):
        read_choice("A", options)


PIECES = [*(text for _, text, _ in CASES), *"A|B:|(c)|D.|answer|is|not|:|, |\n|yes|no|\u00df".split("|")]


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8)), max_size=6),
    st.sampled_from([EMOTIONS, YES_NO, TRUTH]),
)
def test_an_index_only_for_an_option_that_the_text_names(parts, options):
    text = " ".join(parts)
    status, index = read_choice(text, options)
    assert (status == "ok") == (index is not None)
    if index is not None:
        folded = unicodedata.normalize("NFKC", text).casefold()
        named = {"abcd"[index], str(index + 1), *re.findall(r"\w+", options[index].casefold())}
        assert named & set(re.findall(r"[^\W_]+", folded)), text


LONG = "A: Anger |answer: |answer is A\n|A. |\nA: Anger|not A, |so |D: Joy\n|<think>|(|a b c d |boxed{|\n|image 1 more "


@pytest.mark.parametrize("piece", LONG.split("|"))
def test_long_repetition_is_read_quickly(piece):
    begin = time.process_time()
    for options in (EMOTIONS, IMAGES, DEGREES):
        read_choice(piece * 3000, options)
    assert time.process_time() - begin < 5


WHICH = "Which of these two images evokes a more positive emotional response, meaning that viewers feel better?"
HOW = "Compared to Figure 1, how does the emotional arousal in Figure 2 measure up?"
LOWER = "Which of these two images has a lower arousal, indicating a milder response?"
IN_BOTH = "In the three main emotions evoked by each of the two images, does the emotion of joy appear in both?"
FEAR_IN = "Which picture evokes the three main emotions, among which the emotion of fear is expressed?"
FEAR_OF = "The emotion of fear is absent in the first image"
MORE_ANGER = "Is the emotion of anger more prominent than the emotion of fear?"
OUTWEIGHS = "Does the emotion of anger outweigh the emotion of fear?"
MORE_PLEASANT = "Is the first image more pleasant than the second image?"
JOY_IN, SURPRISE_IN = (FEAR_IN.replace("fear", emotion) for emotion in ("joy", "surprise"))
DOUBTS = (
    *("hardly appears", "rarely appears", "barely appears", "scarcely appears", "fails to appear", "appears only"),
    *("is unlikely to appear", "is unable to appear", "has little to appear for", "is far from what appears"),
)
# Answers to "Which emotion is absent?" that name no absent emotion, or take it back.
NOT_ABSENT = [
    ("The emotion of fear is not absent.", NEGATED),
    ("The emotion that is absent is not fear.", NEGATED),
    ("Nothing but fear is absent.", AMBIGUOUS),
    (f"{FEAR_OF}, but present in the second.", NEGATED),
    (f"{FEAR_OF}.", NEGATED),
    ("The emotion of fear is hardly absent.", NEGATED),
    ("Sadness and fear were not absent.", AMBIGUOUS),
    ("Sadness and fear weren't missing.", AMBIGUOUS),
    ("Nothing but fear.", AMBIGUOUS),
]
ASKED = [
    (IMAGES, WHICH, "The first image evokes a more positive emotional response. The second image is dark.", 1),
    (
        IMAGES,
        WHICH,
        "The first image evokes a more neutral response. The second evokes a more positive response.",
        0,
    ),
    (IMAGES, WHICH, "The first image is dark. The second image evokes a more positive emotional response.", 0),
    (IMAGES, WHICH, "The first image does not evoke a more positive emotional response.", NEGATED),
    (IMAGES, WHICH, "A: The first picture evokes a more positive emotional response.", AMBIGUOUS),
    (
        IMAGES,
        "Which image primarily evokes fear?",
        "The first image primarily evokes joy. The second is calm.",
        AMBIGUOUS,
    ),
    (IMAGES, "Which image primarily evokes fear?", "The first image primarily evokes fear, the second joy.", 1),
    (EMOTIONS, "Which emotion is shared by both?", "The first evokes joy. The emotion shared by both is fear.", 1),
    (DEGREES, HOW, "The arousal in Figure 1 is much higher than in Figure 2.", 0),
    (DEGREES, HOW, "It is much higher than the arousal of the calm scene in Figure 1. Figure 2 is lively.", 1),
    (DEGREES, HOW, "Figure 1 is calm. Compared to Figure 1, Figure 2 is much higher. Figure 1 is higher.", AMBIGUOUS),
    (DEGREES, HOW, "Figure 1 elicits a much lower arousal, while Figure 2 is lively.", 1),
    # Clauses of one sentence.
    (
        IMAGES,
        LOWER,
        "The first image has a lower arousal, as it is calm, while the second image has a higher arousal.",
        1,
    ),
    (IMAGES, LOWER, "The first image has a higher arousal, but the second image has a lower arousal.", 0),
    (IMAGES, LOWER, "The first image is calm, while the second image has a higher arousal.", AMBIGUOUS),
    # More and less of what the question asks about.
    (DEGREES, HOW, "Figure 1 elicits more emotional arousal than Figure 2.", 0),
    (DEGREES, HOW, "Figure 2 elicits less arousal than Figure 1.", 0),
    (DEGREES, HOW, "In terms of arousal, Figure 2 dominates Figure 1.", 1),
    (DEGREES, HOW, "Figure 2 does not elicit more arousal than Figure 1.", INVALID),
    (DEGREES, HOW, "Figure 2 elicits more pleasure than Figure 1.", INVALID),
    (DEGREES, HOW, "Figure 2 measures up to the arousal of Figure 1, but it is more aligned with calmness.", INVALID),
    (DEGREES, HOW, "Figure 1 has more arousal than Figure 2. Figure 2 has more arousal than Figure 1.", INVALID),
    # Yes and no as statements.
    (YES_NO, IN_BOTH, "The emotion of joy appears in both.", 0),
    (YES_NO, IN_BOTH, "In both images, joy does not appear as an emotion.", 1),
    (YES_NO, IN_BOTH, "Neither image evokes the emotion of joy.", 1),
    (YES_NO, IN_BOTH, "The emotion of joy does appear in both images, which is not sad.", 0),
    (YES_NO, IN_BOTH, "The emotion of joy may appear in both images.", INVALID),
    (YES_NO, IN_BOTH, "Does the emotion of joy appear in both?", INVALID),
    (YES_NO, IN_BOTH, "The emotion of joy appears in the first image.", INVALID),
    (YES_NO, IN_BOTH, "The emotion of fear appears in both.", INVALID),
    (YES_NO, IN_BOTH, "The emotion of joy appears in both. The emotion of joy does not appear in both.", INVALID),
    (YES_NO, IN_BOTH, "The emotion of joy does not fail to appear; not in both.", INVALID),
    (YES_NO, IN_BOTH, "- Image 1: No, there is none.\n- Image 2: No, there is none.", 1),
    (YES_NO, IN_BOTH, "- Image 1: Yes, it does.\n- Image 2: No, it does not.", 1),
    (YES_NO, IN_BOTH, "- Image 1: Yes, it does.\n- Image 2: Yes, too.", 0),
    (YES_NO, IN_BOTH, "- Image 1: Yes, it does.", INVALID),
    (YES_NO, "Is it the case that fear is caused by colors?", "It is not the case that fear is caused by colors.", 1),
    (YES_NO, "The colors evoke a neutral emotion.", "The colors evoke a neutral emotion.", INVALID),
    (YES_NO, "Is joy not evoked by colors?", "Joy is evoked by colors.", INVALID),
    # Of two things that are compared, the order decides.
    (YES_NO, MORE_ANGER, "The emotion of anger is more prominent than the emotion of fear.", 0),
    (YES_NO, MORE_ANGER, "The emotion of anger is not more prominent than the emotion of fear.", 1),
    (YES_NO, MORE_ANGER, "The emotion of fear is more prominent than the emotion of anger.", INVALID),
    (YES_NO, MORE_ANGER, "More prominent than the emotion of anger is the emotion of fear.", INVALID),
    (YES_NO, OUTWEIGHS, "The emotion of anger outweighs the emotion of fear.", 0),
    (YES_NO, OUTWEIGHS, "The emotion of fear outweighs the emotion of anger.", INVALID),
    (YES_NO, MORE_PLEASANT, "The first image is more pleasant than the second image.", 0),
    (YES_NO, MORE_PLEASANT, "The second image is more pleasant than the first image.", INVALID),
    (YES_NO, "Is fear caused by anger?", "Anger is caused by fear.", INVALID),
    # Words that deny or doubt without "not".
    *((YES_NO, IN_BOTH, f"The emotion of joy {words} in both images.", INVALID) for words in DOUBTS),
    (YES_NO, IN_BOTH, "It is false that the emotion of joy appears in both.", INVALID),
    (YES_NO, IN_BOTH, "I doubt that the emotion of joy appears in both.", INVALID),
    (YES_NO, IN_BOTH, "The emotion of joy appears in both images, which is wrong.", INVALID),
    (YES_NO, IN_BOTH, "The emotion of joy appears in both. The emotion of joy rarely appears in both.", INVALID),
    (IMAGES, FEAR_IN, "The first image hardly evokes fear and awe. The second image evokes joy.", AMBIGUOUS),
    (IMAGES, FEAR_IN, "The first evokes fear and awe. Instead, the second evokes awe, not fear.", 1),
    # What is absent.
    *((EMOTIONS, "Which emotion is absent?", text, status) for text, status in NOT_ABSENT),
    (EMOTIONS, "Which of the emotions is completely absent?", "The emotion of fear is completely absent in both.", 1),
    (EMOTIONS, "Which of the emotions is completely absent?", "Fear and joy are absent.", NEGATED),
    (EMOTIONS, "Which emotion is shared by both?", "The emotion of fear is absent in both.", NEGATED),
    # The image of an emotion.
    (IMAGES, FEAR_IN, "The first image evokes joy and awe. The second image evokes fear and sadness.", 0),
    (IMAGES, FEAR_IN, "The first image is scary. It evokes fear. The second image is calm.", 1),
    (IMAGES, FEAR_IN, "The first image evokes fear. The second image does not evoke fear, but joy.", 1),
    (IMAGES, FEAR_IN, "The first image evokes fear.", 1),
    (IMAGES, FEAR_IN, "The first image evokes fear and joy. The second image evokes anger and fear.", 2),
    (
        IMAGES,
        SURPRISE_IN,
        "The first image evokes the emotions of joy and surprise. The second evokes surprise.",
        2,
    ),
    (IMAGES, JOY_IN, "The first image evokes the emotion of anger. The second evokes the emotion of sadness.", 3),
    (IMAGES, JOY_IN, "The first image evokes the emotion of anger. The second evokes sadness.", AMBIGUOUS),
    (IMAGES, JOY_IN, "The first image hardly evokes the emotion of anger. The second evokes that of awe.", AMBIGUOUS),
    (
        IMAGES[:2],
        JOY_IN,
        "The first image evokes the emotion of anger. The second evokes the emotion of awe.",
        AMBIGUOUS,
    ),
    (IMAGES, FEAR_IN, "The first image evokes joy. The second image evokes anger.", AMBIGUOUS),
    (IMAGES, FEAR_IN, "The first image evokes fear, the second joy. Both images evoke fear.", AMBIGUOUS),
    (IMAGES, "Which image evokes more fear?", "The first image evokes fear and awe. The second is calm.", AMBIGUOUS),
    (IMAGES, "Which image does not evoke fear?", "The first image evokes fear and awe. The second is calm.", AMBIGUOUS),
]


@pytest.mark.parametrize(("options", "question", "text", "outcome"), ASKED)
def test_the_question_decides_what_describes_several_options(options, question, text, outcome):
    assert read_choice(text, options, question=question) == expected(outcome)


PUBLISHED = Path(os.environ.get("EMOVIT_SHARED", "../shared")).resolve() / "reference" / "eemo_bench"
DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE, PAGE_OF_TASKS = ((DOCS / name).read_text(encoding="utf-8") for name in ("evaluation.md", "tasks.md"))
# Every difference from a published verdict, by its kind, and who is right.
DIFFERENCES = json.loads(Path(__file__).with_name("eemo_bench_differences.json").read_text(encoding="utf-8"))
# Model -> the most answers that may stay unread of 2,012. Most unread answers name no option: they describe both
# images, or contradict themselves.
LIMITS = {"deepseek-vl2-tiny": 14, "janus_7b": 234, "llava-onevision-72b": 7, "qwen2-7b": 18}


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="EMOVIT_SHARED names no folder with reference/eemo_bench")
@pytest.mark.parametrize("model", LIMITS)
def test_published_verdicts(model):
    with gzip.open(PUBLISHED / "pair_questions.json.gz", "rt", encoding="utf-8") as file:
        questions = {question["id"]: question for question in json.load(file)}
    unread, unread_asked, differing, differing_read, differing_asked = 0, 0, [], [], []
    differing_by_mark, differing_at_all, unread_at_all = [], [], []
    with gzip.open(PUBLISHED / f"pair_{model}.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    assert len(rows) == len(questions) == 2012
    for row in rows:
        question = questions[row["id"]]
        right = list(question["options"]).index(question["correct_answer"])
        status, index = read_choice(row["response"], question["options"])
        asked = read_choice(row["response"], question["options"], question=question["question"])
        unread, unread_asked = unread + (status != "ok"), unread_asked + (asked.status != "ok")
        if str(row["published_result"]) not in ("0", "1"):  # one row has a list
            continue
        verdict = bool(int(row["published_result"]))
        if (index == right) != verdict:
            differing.append(row["id"])
            if index is not None:
                differing_read.append(row["id"])
        differing_asked += [row["id"]] if (asked.index == right) != verdict else []
        assert status != "ok" or asked == (status, index)  # the question only adds answers
        by_mark = read_choice(row["response"], question["options"], conflict="mark").index
        differing_by_mark += [row["id"]] if (by_mark == right) != verdict else []
        both = read_choice(row["response"], question["options"], question=question["question"], conflict="mark")
        differing_at_all += [row["id"]] if (both.index == right) != verdict else []
        unread_at_all += [row["id"]] if both.status != "ok" else []
    listed = DIFFERENCES["models"][model]
    assert sorted(differing) == sorted(number for numbers in listed.values() for number in numbers)
    assert sorted(differing_read) == listed.get("read_otherwise", [])
    # The published verdict of a contradiction counts the mark, and what describes both images follows the question.
    settled, marked = set(differing) - set(differing_by_mark), set(listed.get("contradiction", ()))
    assert settled <= marked and len(settled) >= len(marked) - 1
    asked_about = {
        number for kind in ("both_images", "degree_of_an_image", "no_yes_or_no") for number in listed.get(kind, ())
    }
    assert set(differing) - set(differing_asked) <= asked_about
    otherwise = {int(number) for number in DIFFERENCES["read_otherwise_by_question"].get(model, ())}
    broken = {815} if model == "deepseek-vl2-tiny" else set()  # its right option has no text
    assert set(differing_at_all) - set(unread_at_all) == {*listed.get("read_otherwise", ()), *otherwise, *broken}
    assert len(differing_asked) <= 0.04 * len(rows)
    # Where a person finds an answer, at most 1 % are unread; the docs have the share with the published verdict.
    overlooked = set(DIFFERENCES["unread_though_a_person_finds_an_answer"][model])
    assert overlooked <= set(unread_at_all)
    num_answers = len(rows) - len(unread_at_all) + len(overlooked)
    differing_there = len(set(differing_at_all) - (set(unread_at_all) - overlooked))
    assert len(overlooked) <= 0.01 * num_answers and differing_there <= 0.01 * num_answers
    same_there = f"{1000 * (num_answers - differing_there) // num_answers / 10:.1f} %"  # rounded down
    unread_there = f"{100 * len(overlooked) / num_answers:.1f} %"
    line = f"| {model} | {len(unread_at_all)} | {num_answers:,} | {unread_there} | {same_there} |"
    assert line in PAGE, line
    assert unread <= LIMITS[model]
    shares = (f"{100 - 100 * len(ids) / len(rows):.1f} %" for ids in (differing, differing_asked, differing_at_all))
    same, same_asked, same_at_all = shares
    line = f"| {model} | {unread} | {same} | {unread_asked} | {same_asked} | {same_at_all} |"
    assert line in PAGE, line


def test_every_kind_of_difference_is_explained():
    counts = Counter(kind for model in DIFFERENCES["models"].values() for kind, ids in model.items() for _ in ids)
    assert set(counts) == set(DIFFERENCES["kinds"]) and set(DIFFERENCES["models"]) == set(LIMITS)
    described = counts["both_images"] + counts["degree_of_an_image"] + counts["no_yes_or_no"]
    page = " ".join(PAGE.split())
    for part in (
        f"All {counts.total()} differences are listed by kind",
        f"{described} answers describe the images and name no option",
        f"{counts['contradiction']} have a mark beside the words of another option, {counts['several_options']} choose "
        f"or discuss several options, {counts['other']} name nothing, and {counts['read_otherwise']} are read "
        "otherwise",
    ):
        assert part in page, part


def test_sentences_repeat_the_figures_of_the_tables():
    page, tasks = " ".join(PAGE.split()), " ".join(PAGE_OF_TASKS.split())
    tables = [re.findall(rf"^\| {re.escape(model)} \|(.+)\|$", PAGE, re.M) for model in LIMITS]
    cells = [[[cell.strip(" %") for cell in row.split("|")] for row in rows] for rows in tables]
    assert all([len(row) for row in rows] == [5, 4] for rows in cells)
    unread = max(float(second[2]) for _, second in cells)
    same, same_of_all = (min(float(rows[place][-1]) for rows in cells) for place in (1, 0))
    num_read = 2012 * len(LIMITS) - sum(int(first[0]) for first, _ in cells)
    num_otherwise = sum(len(kinds.get("read_otherwise", ())) for kinds in DIFFERENCES["models"].values())
    assert f"at most {unread} % are unread, and at least {same} % have the published verdict" in page
    assert (same < 99) == ("99 % are not reached for janus_7b" in page)
    assert f"{num_otherwise} of {num_read:,} read answers have another verdict" in page
    assert f"at most {unread} % of the answers in which a person finds one stay unread" in tasks
    assert f"at least {same} % of them have the published verdict" in tasks
    assert f"over all answers it is {same_of_all} % for one model" in tasks


SCALE = ("-1", "0", "1")


@pytest.mark.parametrize(
    ("options", "answer", "expected"),
    [
        (SCALE, "-1", 0),
        (SCALE, "1", 2),
        (SCALE, "+1", 2),
        (SCALE, "\u22121", 0),
        (SCALE, "Final answer: -1", 0),
        (SCALE, "<answer>-1</answer>", 0),
        (SCALE, "\\boxed{-1}", 0),
        (SCALE, "It is -1.", 0),
        (SCALE, "minus 1", 0),
        (SCALE, "A", 0),
        (SCALE, "A: -1", 0),
        (SCALE, "A: 1", AMBIGUOUS),
        (("\u22123", "3"), "-3", 0),
        (("1", "2", "3"), "-3", INVALID),
        (("3.5", "-3.5", "35"), "-3.5", 1),
        (("3 to 5", "-3 to 5"), "-3 to 5", 1),
        (("50%", "-50%"), "The answer is -50%", 1),
        (("$1", "-$1"), "-$1", 1),
        (("a+b", "a-b"), "a-b", 1),
        (("c", "c++", "c#"), "c++", 1),
        (("c", "c++", "c#"), "c", INVALID),  # Markdown removes the sign that tells two of them apart
    ],
)
def test_options_that_differ_by_signs_are_never_confused(options, answer, expected):
    found = read_choice(answer, options)
    assert (found.index if found.index is not None else found.status) == expected
