"""Label sets of emotion in scenes and art."""

from __future__ import annotations

from collections.abc import Mapping

from lavis_emovit.emotion.label_set import aliases, label_set
from lavis_emovit.emotion.labels_faces import EXPRESSIONS8

_NEGATIVE_ALIASES = aliases(anger="angry", disgust="disgusted", fear="fearful", sadness="sad")
_MIKELS_ALIASES = aliases(amusement="amused", contentment="content contented", excitement="excited") | _NEGATIVE_ALIASES
_JOY_ALIASES = aliases(joy="happiness happy joyful", surprise="surprised") | _NEGATIVE_ALIASES
_GOOD, _BAD = ("amusement", "awe", "contentment", "excitement"), ("anger", "disgust", "fear", "sadness")

# Mikels et al., Behavior Research Methods 37 (2005): the eight classes of EmoSet, FI, ArtPhoto and Abstract.
# The aliases are spellings in the files of these datasets.
MIKELS8 = label_set("mikels8", _GOOD, _BAD, (), _MIKELS_ALIASES)

# The eight with "something else": ArtEmis (Achlioptas et al., CVPR 2021).
ARTEMIS9 = label_set("artemis9", _GOOD, _BAD, ("something else",), {**_MIKELS_ALIASES, "other": "something else"})

# Ekman's six with "joy", as Emotion6 (Peng et al., CVPR 2015) and EmotionROI (Peng et al., ICIP 2016) use it.
EMOTION6 = label_set("emotion6", ("joy",), _BAD, ("surprise",), _JOY_ALIASES)

# Parrott, Emotions in Social Psychology (2001), first level: UnBiasedEmo, and six of WEBEmo's middle level.
PARROTT6 = label_set(
    "parrott6",
    ("joy", "love"),
    ("anger", "fear", "sadness"),
    ("surprise",),
    {alias: label for alias, label in _JOY_ALIASES.items() if label != "disgust"},
)

# WEBEmo (Panda et al., ECCV 2018); two aliases are spellings of its folders. Polarities and levels are those of
# category.txt, which its authors publish with the dataset: surprise is positive there, confusion negative.
WEBEMO25 = label_set(
    "webemo25",
    (
        "affection", "cheerfulness", "contentment", "enthrallment", "gratitude", "lust", "optimism", "pride", "relief",
        "surprise", "zest",
    ),
    (
        "confusion", "disappointment", "disgust", "envy", "exasperation", "horror", "irritability", "neglect",
        "nervousness", "rage", "sadness", "shame", "suffering", "sympathy",
    ),
    (),
    {"cheerfullness": "cheerfulness", "irritabilty": "irritability"},
)  # fmt: skip

# The middle level of WEBEmo: Parrott's six, and confusion, which is not in Parrott's tree.
WEBEMO7 = label_set(
    "webemo7",
    ("joy", "love", "surprise"),
    ("anger", "confusion", "fear", "sadness"),
    (),
    {alias: label for alias, label in _JOY_ALIASES.items() if label != "disgust"},
)

# Emotion6's six with neutral: MELD (Poria et al., ACL 2019).
EMOTION7 = label_set("emotion7", ("joy",), _BAD, ("neutral", "surprise"), {**_JOY_ALIASES, "neutrality": "neutral"})

# Plutchik, "A general psychoevolutionary theory of emotion" (1980): VideoEmotion-8 (Jiang et al., AAAI 2014).
PLUTCHIK8 = label_set("plutchik8", ("joy", "trust"), _BAD, ("anticipation", "surprise"), _JOY_ALIASES)

# Cowen and Keltner, PNAS 114 (2017): emotions that videos evoke, in VCE (Mazeika et al., NeurIPS 2022). The polarities
# are ours.
COWEN27 = label_set(
    "cowen27",
    (
        "admiration", "adoration", "aesthetic appreciation", "amusement", "awe", "calmness", "entrancement",
        "excitement", "interest", "joy", "relief", "romance", "satisfaction", "sexual desire",
    ),
    (
        "anger", "anxiety", "awkwardness", "boredom", "confusion", "disgust", "empathic pain", "fear", "horror",
        "sadness",
    ),
    ("craving", "nostalgia", "surprise"),
    {"awe (or wonder)": "awe", "wonder": "awe"},
)  # fmt: skip

# The coarsest level of WEBEmo, and any other set of polarities.
POLARITY2 = label_set("polarity2", ("positive",), ("negative",))

# EMOTIC (Kosti et al., CVPR 2017): a person in a scene may have several categories.
EMOTIC26 = label_set(
    "emotic26",
    (
        "affection", "anticipation", "confidence", "engagement", "esteem", "excitement", "happiness", "peace",
        "pleasure",
    ),
    (
        "anger", "annoyance", "aversion", "disapproval", "disconnection", "disquietment", "doubt/confusion",
        "embarrassment", "fatigue", "fear", "pain", "sadness", "sensitivity", "suffering",
    ),
    ("surprise", "sympathy", "yearning"),
    {"disquitement": "disquietment", "doubt": "doubt/confusion", "confusion": "doubt/confusion"},
)  # fmt: skip

_MIDDLE_OF_WEBEMO = {
    "anger": ("disgust", "envy", "exasperation", "irritability", "rage"),
    "confusion": ("confusion",),
    "fear": ("horror", "nervousness"),
    "joy": ("cheerfulness", "contentment", "enthrallment", "optimism", "pride", "relief", "zest"),
    "love": ("affection", "gratitude", "lust"),
    "sadness": ("disappointment", "neglect", "sadness", "shame", "suffering", "sympathy"),
    "surprise": ("surprise",),
}
_WEBEMO_25_TO_7 = {fine: middle for middle, fines in _MIDDLE_OF_WEBEMO.items() for fine in fines}

# (fine set, coarse set) -> fine label -> coarse label.
COARSER: dict[tuple[str, str], Mapping[str, str | None]] = {
    # AffectNet is reported with eight expressions, and with seven, without the images of contempt.
    ("expressions8", "expressions7"): {label: label if label != "contempt" else None for label in EXPRESSIONS8.labels},
    ("webemo25", "webemo7"): _WEBEMO_25_TO_7,
    ("webemo25", "parrott6"): {fine: None if fine == "confusion" else six for fine, six in _WEBEMO_25_TO_7.items()},
}

SCENE_SETS = (
    MIKELS8, ARTEMIS9, EMOTION6, EMOTION7, PARROTT6, PLUTCHIK8, WEBEMO25, WEBEMO7, POLARITY2, EMOTIC26, COWEN27,
)  # fmt: skip
