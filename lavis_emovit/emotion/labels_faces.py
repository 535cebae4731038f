"""Label sets of facial expressions."""

from __future__ import annotations

from lavis_emovit.emotion.label_set import aliases, label_set

_BASIC_ALIASES = aliases(
    anger="angry",
    disgust="disgusted",
    fear="fearful afraid scared",
    happiness="happy joy joyful",
    sadness="sad",
    surprise="surprised",
)
_NEUTRAL_ALIASES = {**_BASIC_ALIASES, "neutrality": "neutral"}
_CONTEMPT_ALIASES = {**_BASIC_ALIASES, "contemptuous": "contempt"}
_GOOD, _BAD = ("happiness",), ("anger", "disgust", "fear", "sadness")

# Ekman, Cognition and Emotion 6 (1992). Surprise is neither positive nor negative.
EKMAN6 = label_set("ekman6", _GOOD, _BAD, ("surprise",), _BASIC_ALIASES)

# The six with contempt, Ekman and Friesen, Motivation and Emotion 10 (1986): the labels of CK+.
EKMAN7 = label_set("ekman7", _GOOD, (*_BAD, "contempt"), ("surprise",), _CONTEMPT_ALIASES)

# The six with neutral: FER2013, the basic part of RAF-DB.
EXPRESSIONS7 = label_set("expressions7", _GOOD, _BAD, ("neutral", "surprise"), _NEUTRAL_ALIASES)

# With contempt: AffectNet, FERPlus.
EXPRESSIONS8 = label_set(
    "expressions8", _GOOD, (*_BAD, "contempt"), ("neutral", "surprise"), {**_CONTEMPT_ALIASES, **_NEUTRAL_ALIASES}
)

# With "other": Aff-Wild2.
AFF_WILD8 = label_set("aff_wild8", _GOOD, _BAD, ("neutral", "other", "surprise"), _NEUTRAL_ALIASES)

# Two expressions at once: the compound part of RAF-DB (Li, Deng and Du, CVPR 2017).
COMPOUND11 = label_set(
    "compound11",
    ("happily surprised",),
    (
        "angrily disgusted", "angrily surprised", "disgustedly surprised", "fearfully angry", "fearfully surprised",
        "sadly angry", "sadly disgusted", "sadly fearful", "sadly surprised",
    ),
    ("happily disgusted",),
)  # fmt: skip

# The seven compound expressions of C-EXPR-DB with "other" (Kollias, CVPR 2023, "Multi-label compound expression
# recognition").
C_EXPR8 = label_set(
    "c_expr8",
    ("happily surprised",),
    (
        "angrily surprised", "disgustedly surprised", "fearfully surprised", "sadly angry", "sadly fearful",
        "sadly surprised",
    ),
    ("other",),
)  # fmt: skip

# MAFW (Liu et al., ACM MM 2022), alone or several at once.
MAFW11 = label_set(
    "mafw11",
    _GOOD,
    (*_BAD, "anxiety", "contempt", "disappointment", "helplessness"),
    ("neutral", "surprise"),
    {
        **_CONTEMPT_ALIASES,
        **_NEUTRAL_ALIASES,
        "anxious": "anxiety",
        "disappointed": "disappointment",
        "helpless": "helplessness",
    },
)

# The two expressions of each person in the Face Research Lab London Set.
NEUTRAL_HAPPY2 = label_set(
    "neutral_happy2", ("happy",), (), ("neutral",), {"smiling": "happy", "happiness": "happy", "neutrality": "neutral"}
)

FACE_SETS = (EKMAN6, EKMAN7, EXPRESSIONS7, EXPRESSIONS8, AFF_WILD8, COMPOUND11, C_EXPR8, MAFW11, NEUTRAL_HAPPY2)
