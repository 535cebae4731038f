"""Reading an emotion from answers that rank several.

Properties:
- an emotion that dominates, comes first, fits best or has the highest probability is the answer; what is only a hint,
  secondary, an alternative or least likely is not;
- a second thought and a conclusion replace what came before;
- equal ranks, two leaders, a ranking by percentages of a mixture, and leaders that are denied or doubted are ambiguous,
  negated or refused, never guessed;
- words such as "scared" count where the author of the label set lists them, and nowhere else.

The answers are written by hand; the expected result is the strict reading of a person.
"""

from __future__ import annotations

import pytest

from lavis_emovit.emotion.answers import EmotionAnswer, read_emotion
from lavis_emovit.emotion.labels import LabelSet, get_label_set

INVALID, AMBIGUOUS, REFUSED, NEGATED = "invalid", "ambiguous", "refused", "negated"
STATUSES = {INVALID, AMBIGUOUS, REFUSED, NEGATED}

MIKELS = [
    # One emotion leads.
    ("the dominant emotion is excitement, with a hint of fear", "excitement"),
    ("The predominant feeling is awe, though there is a touch of fear.", "awe"),
    ("The primary emotion is sadness, followed by anger.", "sadness"),
    ("The main emotion conveyed here is contentment, with some amusement.", "contentment"),
    ("The dominant emotion evoked by this image is awe, accompanied by excitement.", "awe"),
    ("The strongest emotion is fear. There is also some disgust.", "fear"),
    ("The overriding emotion is anger, mixed with sadness.", "anger"),
    ("Awe is the dominant emotion, with a hint of fear.", "awe"),
    ("Sadness is the primary emotion; anger is secondary.", "sadness"),
    ("Excitement dominates, with fear in the background.", "excitement"),
    ("Fear prevails over sadness.", "fear"),
    ("It shows fear, but sadness dominates.", "sadness"),
    ("There is some fear, but the dominant emotion is excitement.", "excitement"),
    ("Amusement is most prominent, anger less so.", "amusement"),
    ("Mainly contentment, with a touch of sadness.", AMBIGUOUS),
    ("Primarily awe, with some fear.", AMBIGUOUS),
    ("Mostly anger, with hints of disgust.", AMBIGUOUS),
    ("Predominantly sadness with traces of fear", AMBIGUOUS),
    ("Sadness, with a hint of anger.", AMBIGUOUS),
    ("Awe with undertones of fear", AMBIGUOUS),
    ("contentment tinged with sadness", AMBIGUOUS),
    ("The image evokes sadness, with a touch of fear.", AMBIGUOUS),
    ("I feel awe, with just a hint of fear.", AMBIGUOUS),
    ("It evokes amusement more than anything else, although some might feel disgust.", "amusement"),
    # Ranks.
    ("most likely: awe (0.6), contentment (0.3)", "awe"),
    ("Most likely awe, possibly contentment.", AMBIGUOUS),
    ("The most likely emotion is awe; the second most likely is contentment.", "awe"),
    ("Most likely: fear. Least likely: amusement.", "fear"),
    ("Least likely: amusement. Most likely: fear.", "fear"),
    ("Primary: sadness. Secondary: fear.", AMBIGUOUS),
    ("Primary: sadness\nSecondary: fear", AMBIGUOUS),
    ("First choice: awe. Second choice: contentment.", "awe"),
    ("My first choice is awe, my second is contentment.", "awe"),
    ("Top choice: anger; runner-up: disgust", "anger"),
    ("Best fit: anger. Alternative: disgust.", "anger"),
    ("Anger fits best, then disgust.", "anger"),
    ("Anger fits better than disgust.", "anger"),
    ("Contentment fits best; fear is the least likely.", "contentment"),
    ("fear is the least likely; contentment fits best", "contentment"),
    ("Awe is more likely than fear.", "awe"),
    ("Awe is the best answer, though fear is possible.", "awe"),
    ("Awe is the most fitting label; contentment comes second.", "awe"),
    ("Of fear and awe, awe is the better fit.", "awe"),
    # Probabilities.
    ("amusement: 0.1, awe: 0.7", "awe"),
    ("awe: 0.7, amusement: 0.1", "awe"),
    ("amusement: 0.1\nawe: 0.7\nfear: 0.2", "awe"),
    ("amusement = 0.05, awe = 0.9, fear = 0.05", "awe"),
    ("amusement (0.1), awe (0.7), fear (0.2)", "awe"),
    ("Scores: amusement 0.1, awe 0.7", "awe"),
    ("anger: 0.00, disgust: 0.45, fear: 0.55", "fear"),
    ("Amusement: .1, awe: .7", "awe"),
    # Second thoughts and conclusions.
    ("My first thought was anger. On reflection, disgust.", "disgust"),
    ("At first I thought of anger, but on reflection it is disgust.", "disgust"),
    ("Initially it looks like fear; on second thought, excitement.", "excitement"),
    ("It looks like anger at first. Looking closer, it is disgust.", "disgust"),
    ("Anger. Actually, disgust.", "disgust"),
    ("Anger... no, wait: disgust.", "disgust"),
    ("The tears suggest sadness, the fists anger. Overall, the image evokes anger.", "anger"),
    ("There are signs of fear and of awe. In conclusion, awe.", "awe"),
    ("Fear and awe are both possible. Therefore, the emotion is awe.", "awe"),
    ("Some see sadness, some anger. In summary, sadness.", "sadness"),
    # Equal ranks, doubts and denials.
    ("The dominant emotions are awe and fear.", AMBIGUOUS),
    ("Awe and fear dominate.", AMBIGUOUS),
    ("The dominant emotion is either awe or fear.", AMBIGUOUS),
    ("The dominant emotion is not awe.", NEGATED),
    ("The dominant emotion is not awe but fear.", "fear"),
    ("Awe is not the dominant emotion.", NEGATED),
    ("I cannot say which emotion dominates, awe or fear.", REFUSED),
    ("The dominant emotion is unclear: awe or fear.", REFUSED),
    ("amusement: 0.4, awe: 0.4, fear: 0.2", AMBIGUOUS),
    ("amusement: 0.0, awe: 0.0", NEGATED),
    ("amusement: 3, awe: 7", AMBIGUOUS),
    ("amusement: 0.9, awe: 0.9", AMBIGUOUS),
    ("amusement: 10%, awe: 90%", AMBIGUOUS),
    ("most likely: awe (0.5), contentment (0.5)", AMBIGUOUS),
    ("Most likely awe or contentment.", AMBIGUOUS),
    ("equal parts awe and fear", AMBIGUOUS),
    ("Both fear and awe fit best.", AMBIGUOUS),
    ("Neither fear nor awe dominates.", NEGATED),
    ("Fear is the least likely.", NEGATED),
    ("Least likely: fear", NEGATED),
    ("Fear does not fit best.", NEGATED),
    ("On reflection, I cannot say.", REFUSED),
    ("On reflection, anger or disgust.", AMBIGUOUS),
    ("Anger. Actually, I am not sure.", REFUSED),
    ("a hint of fear", "fear"),
    ("with a hint of fear and a touch of awe", AMBIGUOUS),
    ("Anger fits better than disgust, but fear fits best.", "fear"),
    ("Does fear dominate? I would say awe.", "awe"),
    ("The first image: awe. The second image: fear.", AMBIGUOUS),
    ("Therefore fear; therefore awe.", AMBIGUOUS),
    # A preference that others have, or that did not last.
    ("Some would say fear dominates, but it is awe.", AMBIGUOUS),
    ("If fear dominates, awe fades.", AMBIGUOUS),
    ("At first I'd say fear, but it is awe.", AMBIGUOUS),
    ("Some would say the dominant emotion is fear. I see awe.", AMBIGUOUS),
    ("Anger dominates the man, but the viewer feels amusement.", AMBIGUOUS),
    ("Sadness is the most likely cause of his anger.", AMBIGUOUS),
    ("Fear is best avoided; awe is what I see.", AMBIGUOUS),
    ("The mood is awe. Overall composition hints at fear.", AMBIGUOUS),
    ("She fears the dog; therefore she looks angry. The viewer feels amusement.", AMBIGUOUS),
    ("Overall, fear is absent. What remains is awe or sadness.", AMBIGUOUS),
    ("Sadness is the main theme of the song, amusement the mood of the image.", AMBIGUOUS),
    ("Fear dominates in the first image, awe dominates in the second.", AMBIGUOUS),
    ("I doubt that fear dominates; it could be awe or sadness.", AMBIGUOUS),
    ("sadness 0.3, happiness 0.7", "sadness"),
    # Words of fear.
    ("The scene is frightening", "fear"),
    ("She looks frightened, not angry", "fear"),
    ("The man is scared", INVALID),
    ("The man is afraid", INVALID),
    ("Scared and sad", "sadness"),
]
EKMAN = [
    ("The man is scared", "fear"),
    ("The man is afraid of dogs", "fear"),
    ("Dominant emotion: happiness, with a hint of surprise", "happiness"),
    ("happiness: 0.2, surprise: 0.75, fear: 0.05", "surprise"),
    ("Mostly afraid, a bit angry", AMBIGUOUS),
    ("not scared but surprised", "surprise"),
    ("I'm afraid it is anger", "anger"),
    ("Primarily joy, with some surprise", AMBIGUOUS),
]


def expected(outcome: str) -> EmotionAnswer:
    return EmotionAnswer(None, outcome) if outcome in STATUSES else EmotionAnswer(outcome, "ok")


@pytest.mark.parametrize(("text", "outcome"), MIKELS)
def test_scenes(text, outcome):
    assert read_emotion(text, get_label_set("mikels8")) == expected(outcome)


@pytest.mark.parametrize(("text", "outcome"), EKMAN)
def test_faces(text, outcome):
    assert read_emotion(text, get_label_set("ekman6")) == expected(outcome)


def test_words_of_fear_count_where_the_author_lists_them():
    label_set = LabelSet("mine", ("anger", "fear"), {"scared": "fear", "afraid": "fear", "terrified": "fear"})
    for text in ("scared", "He is afraid.", "terrified", "a scary place", "frightening"):
        assert read_emotion(text, label_set) == EmotionAnswer("fear", "ok")
    assert read_emotion("not scared", label_set) == EmotionAnswer(None, "negated")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The dominant emotion is excitement, with a hint of fear.", None),
        ("The primary emotion is contentment, though there is some sadness.", None),
        ("The main feeling: awe, followed by fear.", None),
        ("It evokes awe with a touch of sadness.", None),
        ("The dominant emotion is excitement. Fear is secondary.", None),
        ("Mostly awe, slightly sad.", None),
        ("The dominant emotion is joy, with a hint of fear.", "happiness"),
        ("The dominant emotion is fear, with a hint of awe.", "fear"),
        ("The dominant emotion is excitement, but fear is stronger.", "fear"),
        ("The dominant color is red, with a hint of fear.", "fear"),
    ],
)
def test_a_lesser_emotion_does_not_stand_for_a_leading_one_outside_of_the_set(text, label):
    found = read_emotion(text, get_label_set("ekman6"))
    assert found == EmotionAnswer(label, "ok" if label else "invalid")
