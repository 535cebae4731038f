"""Label sets of emotion in scenes and art."""

from __future__ import annotations

from collections.abc import Mapping

from lavis_emovit.emotion.label_set import LabelSet, polarity_of

MIKELS_ALIASES = {
    "amused": "amusement",
    "angry": "anger",
    "content": "contentment",
    "contented": "contentment",
    "disgusted": "disgust",
    "excited": "excitement",
    "fearful": "fear",
    "sad": "sadness",
}
_JOY_ALIASES = {
    "angry": "anger",
    "disgusted": "disgust",
    "fearful": "fear",
    "happiness": "joy",
    "happy": "joy",
    "joyful": "joy",
    "sad": "sadness",
    "surprised": "surprise",
}

# Mikels et al., Behavior Research Methods 37 (2005): the eight classes of EmoSet, FI, ArtPhoto and Abstract.
# The aliases are spellings in the files of these datasets.
MIKELS8 = LabelSet(
    name="mikels8",
    labels=("amusement", "anger", "awe", "contentment", "disgust", "excitement", "fear", "sadness"),
    aliases=MIKELS_ALIASES,
    polarity=polarity_of(("amusement", "awe", "contentment", "excitement"), ("anger", "disgust", "fear", "sadness")),
)

# The eight with "something else": ArtEmis (Achlioptas et al., CVPR 2021).
ARTEMIS9 = LabelSet(
    name="artemis9",
    labels=(*MIKELS8.labels, "something else"),
    aliases={**MIKELS_ALIASES, "other": "something else"},
    polarity={**MIKELS8.polarity, "something else": "neutral"},
)

# Ekman's six with "joy", as Emotion6 (Peng et al., CVPR 2015) and EmotionROI (Peng et al., ICIP 2016) use it.
EMOTION6 = LabelSet(
    name="emotion6",
    labels=("anger", "disgust", "fear", "joy", "sadness", "surprise"),
    aliases=_JOY_ALIASES,
    polarity=polarity_of(("joy",), ("anger", "disgust", "fear", "sadness"), ("surprise",)),
)

# Parrott, Emotions in Social Psychology (2001), first level: UnBiasedEmo, and the middle level of WEBEmo.
PARROTT6 = LabelSet(
    name="parrott6",
    labels=("anger", "fear", "joy", "love", "sadness", "surprise"),
    aliases={alias: label for alias, label in _JOY_ALIASES.items() if label != "disgust"},
    polarity=polarity_of(("joy", "love"), ("anger", "fear", "sadness"), ("surprise",)),
)

# WEBEmo (Panda et al., ECCV 2018); two aliases are spellings of its folders.
WEBEMO25 = LabelSet(
    name="webemo25",
    labels=(
        "affection", "cheerfulness", "confusion", "contentment", "disappointment", "disgust", "enthrallment", "envy",
        "exasperation", "gratitude", "horror", "irritability", "lust", "neglect", "nervousness", "optimism", "pride",
        "rage", "relief", "sadness", "shame", "suffering", "surprise", "sympathy", "zest",
    ),
    aliases={"cheerfullness": "cheerfulness", "irritabilty": "irritability"},
    polarity=polarity_of(
        (
            "affection", "cheerfulness", "contentment", "enthrallment", "gratitude", "lust", "optimism", "pride",
            "relief", "zest",
        ),
        (
            "disappointment", "disgust", "envy", "exasperation", "horror", "irritability", "neglect", "nervousness",
            "rage", "sadness", "shame", "suffering", "sympathy",
        ),
        ("confusion", "surprise"),
    ),
)  # fmt: skip

# The coarsest level of WEBEmo, and any other set of polarities.
POLARITY2 = LabelSet(
    name="polarity2",
    labels=("negative", "positive"),
    polarity=polarity_of(("positive",), ("negative",)),
)

# EMOTIC (Kosti et al., CVPR 2017): a person in a scene may have several categories.
EMOTIC26 = LabelSet(
    name="emotic26",
    labels=(
        "affection", "anger", "annoyance", "anticipation", "aversion", "confidence", "disapproval", "disconnection",
        "disquietment", "doubt/confusion", "embarrassment", "engagement", "esteem", "excitement", "fatigue", "fear",
        "happiness", "pain", "peace", "pleasure", "sadness", "sensitivity", "suffering", "surprise", "sympathy",
        "yearning",
    ),
    aliases={"disquitement": "disquietment", "doubt": "doubt/confusion", "confusion": "doubt/confusion"},
    polarity=polarity_of(
        (
            "affection", "anticipation", "confidence", "engagement", "esteem", "excitement", "happiness", "peace",
            "pleasure",
        ),
        (
            "anger", "annoyance", "aversion", "disapproval", "disconnection", "disquietment", "doubt/confusion",
            "embarrassment", "fatigue", "fear", "pain", "sadness", "sensitivity", "suffering",
        ),
        ("surprise", "sympathy", "yearning"),
    ),
)  # fmt: skip

_PARROTT_OF_WEBEMO = {
    "anger": ("disgust", "envy", "exasperation", "irritability", "rage"),
    "fear": ("horror", "nervousness"),
    "joy": ("cheerfulness", "contentment", "enthrallment", "optimism", "pride", "relief", "zest"),
    # Gratitude and confusion are missing in Parrott's tree; we chose their branches.
    "love": ("affection", "gratitude", "lust"),
    "sadness": ("disappointment", "neglect", "sadness", "shame", "suffering", "sympathy"),
    "surprise": ("confusion", "surprise"),
}

# (fine set, coarse set) -> fine label -> coarse label. Parrott's tree, secondary to primary emotions.
COARSER: dict[tuple[str, str], Mapping[str, str]] = {
    ("webemo25", "parrott6"): {fine: coarse for coarse, fines in _PARROTT_OF_WEBEMO.items() for fine in fines},
}

SCENE_SETS = (MIKELS8, ARTEMIS9, EMOTION6, PARROTT6, WEBEMO25, POLARITY2, EMOTIC26)
