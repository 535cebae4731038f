"""Label sets of facial expressions."""

from __future__ import annotations

from lavis_emovit.emotion.label_set import LabelSet, polarity_of

_BASIC_ALIASES = {
    "angry": "anger",
    "disgusted": "disgust",
    "fearful": "fear",
    "afraid": "fear",
    "scared": "fear",
    "happy": "happiness",
    "joy": "happiness",
    "joyful": "happiness",
    "sad": "sadness",
    "surprised": "surprise",
}
_NEUTRAL_ALIASES = {"neutrality": "neutral"}
_CONTEMPT_ALIASES = {"contemptuous": "contempt"}
_BAD = ("anger", "disgust", "fear", "sadness")

# Ekman, Cognition and Emotion 6 (1992). Surprise is neither positive nor negative.
EKMAN6 = LabelSet(
    name="ekman6",
    labels=("anger", "disgust", "fear", "happiness", "sadness", "surprise"),
    aliases=_BASIC_ALIASES,
    polarity=polarity_of(("happiness",), _BAD, ("surprise",)),
)

# The six with contempt, Ekman and Friesen, Motivation and Emotion 10 (1986): the labels of CK+.
EKMAN7 = LabelSet(
    name="ekman7",
    labels=("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise"),
    aliases={**_BASIC_ALIASES, **_CONTEMPT_ALIASES},
    polarity=polarity_of(("happiness",), (*_BAD, "contempt"), ("surprise",)),
)

# The six with neutral: FER2013, the basic part of RAF-DB.
EXPRESSIONS7 = LabelSet(
    name="expressions7",
    labels=("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"),
    aliases={**_BASIC_ALIASES, **_NEUTRAL_ALIASES},
    polarity=polarity_of(("happiness",), _BAD, ("neutral", "surprise")),
)

# With contempt: AffectNet, FERPlus.
EXPRESSIONS8 = LabelSet(
    name="expressions8",
    labels=("anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"),
    aliases={**_BASIC_ALIASES, **_CONTEMPT_ALIASES, **_NEUTRAL_ALIASES},
    polarity=polarity_of(("happiness",), (*_BAD, "contempt"), ("neutral", "surprise")),
)

# With "other": Aff-Wild2.
AFF_WILD8 = LabelSet(
    name="aff_wild8",
    labels=("anger", "disgust", "fear", "happiness", "neutral", "other", "sadness", "surprise"),
    aliases={**_BASIC_ALIASES, **_NEUTRAL_ALIASES},
    polarity=polarity_of(("happiness",), _BAD, ("neutral", "other", "surprise")),
)

# Two expressions at once: the compound part of RAF-DB (Li, Deng and Du, CVPR 2017).
COMPOUND11 = LabelSet(
    name="compound11",
    labels=(
        "angrily disgusted", "angrily surprised", "disgustedly surprised", "fearfully angry", "fearfully surprised",
        "happily disgusted", "happily surprised", "sadly angry", "sadly disgusted", "sadly fearful", "sadly surprised",
    ),
    polarity=polarity_of(
        ("happily surprised",),
        (
            "angrily disgusted", "angrily surprised", "disgustedly surprised", "fearfully angry",
            "fearfully surprised", "sadly angry", "sadly disgusted", "sadly fearful", "sadly surprised",
        ),
        ("happily disgusted",),
    ),
)  # fmt: skip

# The two expressions of each person in the Face Research Lab London Set.
NEUTRAL_HAPPY2 = LabelSet(
    name="neutral_happy2",
    labels=("happy", "neutral"),
    aliases={"smiling": "happy", "happiness": "happy", "neutrality": "neutral"},
    polarity=polarity_of(("happy",), (), ("neutral",)),
)

FACE_SETS = (EKMAN6, EKMAN7, EXPRESSIONS7, EXPRESSIONS8, AFF_WILD8, COMPOUND11, NEUTRAL_HAPPY2)
