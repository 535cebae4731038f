"""Reading an emotion from an answer.

Properties:
- only whole words count, with aliases and inflections; negated, refused and merely mentioned emotions do not count;
- two labels are ambiguous; an announced answer, or a first sentence that is only a label, takes precedence;
- idioms and sentence adverbs are not emotions;
- the order of the labels, case, Markdown and typographic quotes change nothing; no text makes the reader fail.

The answers are written by hand; the expected result is the strict reading of a person.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavis_emovit.emotion.answers import EmotionAnswer, read_emotion
from lavis_emovit.emotion.inflections import word_forms
from lavis_emovit.emotion.labels import LABEL_SETS, LabelSet, get_label_set

MIKELS = get_label_set("mikels8")
EKMAN = get_label_set("ekman7")
FACES = get_label_set("neutral_happy2")

INVALID, AMBIGUOUS, REFUSED, NEGATED = "invalid", "ambiguous", "refused", "negated"

# (answer, its label or its status), all for the eight Mikels classes.
MIKELS_ANSWERS = [
    # Only a label.
    ("awe", "awe"),
    ("Awe", "awe"),
    ("SADNESS.", "sadness"),
    (" fear \n", "fear"),
    ('"disgust"', "disgust"),
    ("**Excitement**", "excitement"),
    ("_anger_", "anger"),
    ("[contentment]", "contentment"),
    ("3. awe", "awe"),
    ("(c) amusement", "amusement"),
    ("Awe\u200b!", "awe"),
    ("Content", "contentment"),
    ("Sad", "sadness"),
    ("sadness?", "sadness"),
    # One emotion that leads, one that is denied, a second thought, and the verb of an alias.
    ("The dominant emotion is excitement, with a hint of fear", "excitement"),
    ("The overall mood is contentment, although some awe can be felt.", "contentment"),
    ("The dominant emotion is fear or sadness.", AMBIGUOUS),
    ("Most likely: awe (0.6), contentment (0.3)", "awe"),
    ("Most likely: awe or contentment", AMBIGUOUS),
    ("Fear is the least likely; contentment fits best", "contentment"),
    ("Anger seems least fitting here. It is amusement.", "amusement"),
    ("Disgust is the least likely.", NEGATED),
    ("My first thought was anger. On reflection, disgust.", "disgust"),
    ("At first it looks like fear. On closer inspection, it is excitement.", "excitement"),
    ("The scene is frightening.", "fear"),
    ("It frightens me.", "fear"),
    ("This is not frightening.", NEGATED),
    # The announced form.
    ("Predict emotion: awe", "awe"),
    ("predict emotion:awe", "awe"),
    ("Predict emotion:\n\nAwe", "awe"),
    ("Predicted emotion: sadness. Reason: there is no joy, no excitement, only fear of tomorrow.", "sadness"),
    ("The scene evokes fear and sadness at once. Predict emotion: fear", "fear"),
    ("Predict emotion: anger, because the disgust on the face is mixed with fear", "anger"),
    ("Predict emotion: awe with a hint of fear", "awe"),
    (
        "Options: amusement, anger, awe, contentment, disgust, excitement, fear, sadness. Predict emotion: disgust",
        "disgust",
    ),
    ("Predict emotion: amusement, anger, awe\nPredict emotion: awe", "awe"),
    ("Predict emotion: awe\nPredict emotion: fear", AMBIGUOUS),
    ("Predict emotion: sadness or fear", AMBIGUOUS),
    ("Predict emotion: sadness/fear", AMBIGUOUS),
    ("Predict emotion: sadness, fear", AMBIGUOUS),
    ("Predict emotion: sadness and sadness", "sadness"),
    ("Predict emotion: happiness", INVALID),
    ("Predict emotion: happiness. The others look sad.", INVALID),
    ("Predict emotion:", INVALID),
    ("Predict emotion: not sadness", NEGATED),
    ("Predict emotion: not sadness but anger", "anger"),
    ("Predict emotion: I cannot determine the emotion", REFUSED),
    ("Predict emotion: danger", INVALID),
    ("Predict emotion: the feeling of awe rather than fear", "awe"),
    ('{"emotion": "awe", "confidence": 0.9}', "awe"),
    ("Emotion = excitement", "excitement"),
    ("Answer: (b) anger", "anger"),
    ("Emotion: fear and anger are both visible. Answer: fear", "fear"),
    ("Question: which emotion, fear or awe? Answer: awe", "awe"),
    ("The predicted emotion is amusement, not excitement.", "amusement"),
    ("The answer is in her eyes: she is sad.", "sadness"),
    ("Predict emotion: awe is not what I see", NEGATED),
    # A first sentence that is only a label.
    ("Sadness. The man sits alone; nothing of the earlier excitement is left.", "sadness"),
    ("Awe\n\nExplanation: the mountain inspires fear in some and excitement in others.", "awe"),
    ("Amusement\nAnger\nAwe\nContentment", AMBIGUOUS),
    ("1. Sadness\n2. Fear", AMBIGUOUS),
    ("Sadness? No.", NEGATED),
    ("Anger: no. Fear: no. Sadness: yes.", "sadness"),
    # Sentences.
    ("The image evokes a feeling of awe.", "awe"),
    ("The person looks amused.", "amusement"),
    ("An amusing scene", "amusement"),
    ("She is very angry about it", "anger"),
    ("He stares angrily at the camera", "anger"),
    ("Everybody is excited!", "excitement"),
    ("What a disgusting plate of food.", "disgust"),
    ("The child seems fearful of the dog", "fear"),
    ("An awe-inspiring view", "awe"),
    ("The crowd was awestruck", "awe"),
    ("This is the saddest picture I know", "sadness"),
    ("The anger's target is out of sight", "anger"),
    ("They look calm and contented", "contentment"),
    ("It's hard not to laugh; pure amusement.", "amusement"),
    ("The fear of the fearful man is frightening", "fear"),
    ("Most likely sadness", "sadness"),
    ("It could be contentment.", "contentment"),
    # Words that only share letters with a label.
    ("danger", INVALID),
    ("A stranger in danger stands at the manger", INVALID),
    ("What an awesome picture", INVALID),
    ("The food looks awful", INVALID),
    ("sadism", INVALID),
    ("Hangers in a wardrobe", INVALID),
    ("An unexcitable clerk", INVALID),
    ("Los Ángeres", INVALID),
    ("label_anger_017.jpg", INVALID),
    ("A bustling street with many people", INVALID),
    ("joy", INVALID),
    ("terrified", INVALID),
    ("", INVALID),
    ("   \n\t ", INVALID),
    ("!!!", INVALID),
    ("悲しい", INVALID),
    # "Content" in the sense of contents.
    ("The content of the image is unpleasant", INVALID),
    ("The content is disgusting", "disgust"),
    ("Its visual content evokes sadness", "sadness"),
    ("This contains sensitive content", INVALID),
    ("Content warning: violence", INVALID),
    ("The cat looks content", "contentment"),
    ("A content smile lies on her face", "contentment"),
    ("She is content with the little she has", "contentment"),
    ("The man seems discontent", NEGATED),
    # Denials.
    ("not sad", NEGATED),
    ("This is not anger.", NEGATED),
    ("She isn't sad", NEGATED),
    ("She isn\u2019t angry at all", NEGATED),
    ("I don't think it is fear", NEGATED),
    ("There is no sign of any fear here", NEGATED),
    ("a scene without sadness", NEGATED),
    ("The complete absence of excitement", NEGATED),
    ("He is hardly excited", NEGATED),
    ("Far from amused", NEGATED),
    ("Anything but content", NEGATED),
    ("Neither anger nor sadness", NEGATED),
    ("no sadness, fear, or anger", NEGATED),
    ("It is not sad, angry or afraid", NEGATED),
    ("The crowd is unamused", NEGATED),
    ("A fearless climber", NEGATED),
    ("non-sad", NEGATED),
    ("a fear-free room", NEGATED),
    ("Sadness is not the emotion here", NEGATED),
    ("Anger is completely absent", NEGATED),
    ("Nobody in the room is excited", NEGATED),
    ("It does not seem to express any particular feeling of awe", NEGATED),
    ("sadness, not anger", "sadness"),
    ("sadness rather than anger", "sadness"),
    ("not sadness but anger", "anger"),
    ("Instead of fear, the picture evokes awe", "awe"),
    ("She is more sad than angry", "sadness"),
    ("Neither anger nor fear; contentment", "contentment"),
    ("Neither sad nor angry, content instead", "contentment"),
    ("It isn't fear. It's excitement.", "excitement"),
    ("He is not smiling and looks sad", "sadness"),
    ("There are no people, just sadness", "sadness"),
    ("No, it is sadness", "sadness"),
    ("No emotion other than awe", "awe"),
    ("This is not without sadness", "sadness"),
    ("One can't help but feel sad", "sadness"),
    ("Without a doubt this is anger", "anger"),
    ("There is no doubt about the fear in her face", "fear"),
    ("Nothing but disgust", "disgust"),
    ("Not only sad but also angry", AMBIGUOUS),
    ("He could not be more excited", "excitement"),
    ("It would be hard not to feel awe.", "awe"),
    ("Fear? Not at all. This is excitement.", "excitement"),
    ("You can't look at it without feeling sad.", "sadness"),
    ("The absence of any people evokes sadness.", "sadness"),
    ("They're not angry with each other, but sad.", "sadness"),
    ("It's not that he is angry, he is just sad.", "sadness"),
    ("A man denies his fear", NEGATED),
    ("Fear could be mistaken for awe", "fear"),
    ("First he is not sad. Later he is sad.", AMBIGUOUS),
    # Several labels.
    ("sadness and fear", AMBIGUOUS),
    ("fear or anger", AMBIGUOUS),
    ("It is somewhere between awe and fear.", AMBIGUOUS),
    ("amusement, anger, awe, contentment, disgust, excitement, fear, sadness", AMBIGUOUS),
    ("The dominant emotion is sadness, with some anger", "sadness"),
    ("amused, amusing amusement", "amusement"),
    # Refusals.
    ("I cannot determine the emotion of this image.", REFUSED),
    ("I'm sorry, but I can't help with that.", REFUSED),
    ("As an AI language model, I do not have feelings.", REFUSED),
    ("I don't know", REFUSED),
    ("I am not sure whether this is fear or anger", REFUSED),
    ("Sadness or fear, I can't tell.", REFUSED),
    ("It is impossible to say if it is awe", REFUSED),
    ("The emotion is unclear", REFUSED),
    ("Unknown", REFUSED),
    ("I'm afraid I can't determine that", REFUSED),
    ("I fear I cannot say", REFUSED),
    ("Sadly, I am unable to identify an emotion", REFUSED),
    ("I'd be happy to help, but I cannot see any image", REFUSED),
    ("I can't be certain, but it looks like sadness", "sadness"),
    ("I'm not sure, maybe awe", "awe"),
    ("As an AI I have no feelings, but the picture evokes disgust", "disgust"),
    ("The woman is sad, but I cannot tell why", "sadness"),
    ("The man looks angry. I can't identify the person.", "anger"),
    ("It's sadness, though I'm not sure", "sadness"),
    # Idioms, sentence adverbs and questions.
    ("I'm afraid this is excitement", "excitement"),
    ("Sadly, the dog is excited", "excitement"),
    ("Amusingly, the cat is angry", "anger"),
    ("Is it fear?", INVALID),
    ("Is the person sad or angry? He is angry.", "anger"),
    ("What emotion does it evoke? Sadness.", "sadness"),
    ("An anger management course", INVALID),
    ("I hope this helps! The emotion shown is contentment.", "contentment"),
]

EKMAN_ANSWERS = [
    ("happy", "happiness"),
    ("joyful", "happiness"),
    ("She smiles happily", "happiness"),
    ("overjoyed", "happiness"),
    ("afraid", "fear"),
    ("I am afraid of the dog", "fear"),
    ("I'm afraid that I can't tell", REFUSED),
    ("scared", "fear"),
    ("a scary mask", "fear"),
    ("contemptuous", "contempt"),
    ("contemptible", INVALID),
    ("surprised", "surprise"),
    ("It is no surprise that she is sad", "sadness"),
    ("Surprisingly, the man is angry", "anger"),
    ("A surprise party makes her happy", "happiness"),
    ("A banner says Happy Birthday, yet she looks sad", "sadness"),
    ("I am happy to help! This is disgust.", "disgust"),
    ("unhappy", NEGATED),
    ("She couldn't be happier", "happiness"),
    ("not happy, not sad, but surprised", "surprise"),
    ("enjoyment", INVALID),
    ("The joyless room", NEGATED),
    ("awe", INVALID),
]

FACES_ANSWERS = [
    ("neutral", "neutral"),
    ("a neutral expression", "neutral"),
    ("The person is smiling", "happy"),
    ("not smiling", NEGATED),
    ("The person is not smiling, the face is neutral", "neutral"),
    ("A happy face before a neutral background", "happy"),
    ("happiness in neutral grey tones", "happy"),
    ("neutral or happy", AMBIGUOUS),
    ("neutrality", "neutral"),
]


def expected(outcome: str) -> EmotionAnswer:
    if outcome in (INVALID, AMBIGUOUS, REFUSED, NEGATED):
        return EmotionAnswer(None, outcome)
    return EmotionAnswer(outcome, "ok")


@pytest.mark.parametrize(("text", "outcome"), MIKELS_ANSWERS)
def test_mikels_answers(text, outcome):
    assert read_emotion(text, MIKELS) == expected(outcome)


@pytest.mark.parametrize(("text", "outcome"), EKMAN_ANSWERS)
def test_ekman_answers(text, outcome):
    assert read_emotion(text, EKMAN) == expected(outcome)


@pytest.mark.parametrize(("text", "outcome"), FACES_ANSWERS)
def test_faces_answers(text, outcome):
    assert read_emotion(text, FACES) == expected(outcome)


def test_tables_are_large_and_cover_every_status():
    answers = MIKELS_ANSWERS + EKMAN_ANSWERS + FACES_ANSWERS
    assert len(answers) == len({(text, outcome) for text, outcome in answers}) >= 150
    assert {INVALID, AMBIGUOUS, REFUSED, NEGATED} | set(MIKELS.labels) <= {outcome for _, outcome in answers}


@pytest.mark.parametrize(("text", "outcome"), MIKELS_ANSWERS)
def test_case_and_order_of_the_labels_change_nothing(text, outcome):
    reversed_set = LabelSet("reversed", MIKELS.labels[::-1], MIKELS.aliases)
    assert read_emotion(text.upper(), reversed_set) == expected(outcome)


@pytest.mark.parametrize("label_set", LABEL_SETS.values(), ids=lambda label_set: label_set.name)
def test_every_label_and_alias_reads_as_itself_in_every_frame(label_set):
    for label in label_set.labels:
        for frame in ("{}", "Predict emotion: {}", "The emotion is {}.", "**{}**\n"):
            assert read_emotion(frame.format(label), label_set) == EmotionAnswer(label, "ok")
        assert read_emotion(f"not {label}", label_set) == EmotionAnswer(None, "negated")
    for alias, label in label_set.aliases.items():
        assert read_emotion(alias, label_set) == EmotionAnswer(label, "ok")


def test_aliases_of_several_words_are_found():
    label_set = LabelSet("custom", ("fear", "pride"), {"scared to death": "fear", "chest out": "pride"})
    assert read_emotion("He is scared to death", label_set) == EmotionAnswer("fear", "ok")
    assert read_emotion("chest\nout", label_set).status == "invalid"


def test_forms_of_two_labels_belong_to_neither():
    label_set = LabelSet("custom", ("happiness", "joy"), {"happy": "happiness"})
    assert word_forms(label_set)["happily"] == "happiness"
    both = LabelSet("custom", ("amused", "amusing"))
    assert word_forms(both) == {"amused": "amused", "amusing": "amusing"}


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from([text for text, _ in MIKELS_ANSWERS] + [": ", ", ", "not", "no ", "?", "content", "-"]),
            st.text(max_size=8),
        ),
        max_size=6,
    )
)
def test_no_text_makes_the_reader_fail(parts):
    answer = read_emotion(" ".join(parts), MIKELS)
    assert (answer.label in MIKELS.labels) == (answer.status == "ok")


def test_long_answers_are_read_quickly():
    text = "The image shows a street, not a person, and no sign of anything. " * 2000 + "It evokes sadness."
    assert read_emotion(text, MIKELS) == EmotionAnswer("sadness", "ok")


def test_reading_needs_no_torch():
    code = "import sys, lavis_emovit.emotion.answers; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "listed",
    [
        "awe; fear", "awe fear", "awe | fear", "awe - fear", "awe\nfear", "awe (fear)", "awe plus fear",
        "awe as well as fear", "awe und fear", "awe\u2192fear", "awe\u3001fear", "awe \u2022 fear \u2022 anger",
    ],
)  # fmt: skip
def test_several_labels_after_an_announcement_claim_none(listed):
    labels = get_label_set("mikels8")
    for answer in (f"Predict emotion: {listed}", f"<answer>{listed}</answer>", f"Final answer: {listed}."):
        assert read_emotion(answer, labels) == EmotionAnswer(None, "ambiguous")


@pytest.mark.parametrize(
    "answer",
    [
        "Predict emotion: awe\nFear is absent.",
        "Predict emotion: awe; fear is absent",
        "Predict emotion: awe (not fear)",
        "Predict emotion: awe. Reason: fear and anger are not visible.",
        "<answer>awe</answer>\nfear would need a threat",
    ],
)
def test_text_about_another_label_behind_the_answer_is_no_list(answer):
    assert read_emotion(answer, get_label_set("mikels8")) == EmotionAnswer("awe", "ok")


def test_signs_between_labels_of_signs():
    labels = get_label_set("labels: \U0001f600, \U0001f622")
    assert read_emotion("Predict emotion: \U0001f600\U0001f622", labels).status == "ambiguous"
