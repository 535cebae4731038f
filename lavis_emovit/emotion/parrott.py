"""Parrott's tree of emotions: six primary ones, 25 secondary ones, and words below these.

W. G. Parrott, Emotions in Social Psychology (2001), after Shaver et al., Journal of Personality and Social Psychology
52 (1987). A secondary emotion is one of its own words. The wheel `parrott` of `wheels.json` has the same words by
primary emotion.
"""

from __future__ import annotations

from typing import Literal

Polarity = Literal["pleasant", "unpleasant", "neither"]

# Primary -> secondary -> words, separated by spaces.
TREE: dict[str, dict[str, str]] = {
    "love": {
        "affection": "adoration love fondness liking attraction tenderness compassion sentimentality",
        "lust": "desire passion infatuation",
        "longing": "",
    },
    "joy": {
        "cheerfulness": "amusement bliss gaiety glee jolliness joviality joy delight enjoyment gladness happiness "
        "jubilation elation satisfaction ecstasy euphoria",
        "zest": "enthusiasm zeal excitement thrill exhilaration",
        "contentment": "pleasure",
        "pride": "triumph",
        "optimism": "eagerness hope",
        "enthrallment": "rapture",
        "relief": "",
    },
    "surprise": {"surprise": "amazement astonishment"},
    "anger": {
        "irritation": "aggravation agitation annoyance grouchiness grumpiness",
        "exasperation": "frustration",
        "rage": "anger outrage fury wrath hostility ferocity bitterness hatred loathing scorn spite vengefulness "
        "resentment",
        "disgust": "revulsion contempt",
        "envy": "jealousy",
        "torment": "",
    },
    "sadness": {
        "suffering": "agony anguish",
        "sadness": "depression despair hopelessness gloom glumness unhappiness grief sorrow woe misery melancholy",
        "disappointment": "dismay displeasure",
        "shame": "guilt regret remorse",
        "neglect": "alienation isolation loneliness rejection homesickness dejection insecurity embarrassment "
        "humiliation",
        "sympathy": "pity",
    },
    "fear": {
        "horror": "alarm shock fear fright terror panic hysteria mortification",
        "nervousness": "anxiety tenseness uneasiness apprehension worry distress dread",
    },
}

PRIMARY_OF = {secondary: primary for primary, below in TREE.items() for secondary in below}
SECONDARY_OF = {
    word: secondary
    for below in TREE.values()
    for secondary, words in below.items()
    for word in (secondary, *words.split())
}
_POLARITIES: dict[str, Polarity] = {
    "love": "pleasant", "joy": "pleasant", "surprise": "neither",
    "anger": "unpleasant", "sadness": "unpleasant", "fear": "unpleasant",
}  # fmt: skip


def polarity_of(secondary: str) -> Polarity:
    """Whether a secondary emotion is pleasant. Surprise is neither."""
    return _POLARITIES[PRIMARY_OF[secondary]]
