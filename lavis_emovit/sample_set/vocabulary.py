"""What can be drawn in the sample set, read from `facts/*.json`: words, weights and drawings of every value of a fact.

The emotion of a scene is the one with the largest sum of `CUE_WEIGHTS` over everything drawn in it; see
`docs/sample_set.md`. Names of places, objects and actions are EmoSet's where EmoSet has one.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

EMOTIONS = ("amusement", "anger", "awe", "contentment", "disgust", "excitement", "fear", "sadness")

# Fact -> the file of its values. The order is fixed: models are trained on it.
_FILES = {
    **dict.fromkeys(("view", "who", "expression", "mouth", "brows", "eyes", "tears"), "person"),
    "action": "actions",
    "place": "places",
    "object": "objects",
    "air": "air",
    **dict.fromkeys(("brightness", "saturation", "colour"), "light"),
}


@functools.cache
def read_data(name: str) -> dict[str, Any]:
    """The content of a data file, by its name without the ending."""
    return json.loads((Path(__file__).parent / "facts" / f"{name}.json").read_text(encoding="utf-8"))


# Fact -> value -> what the data file says about it: `words`, `weights`, `common`, `emoset`, ...
FACTS: dict[str, dict[str, dict[str, Any]]] = {fact: read_data(name)[fact] for fact, name in _FILES.items()}

CUE_WEIGHTS: dict[str, dict[str, dict[str, float]]] = {
    fact: {value: entry.get("weights", {}) for value, entry in values.items()} for fact, values in FACTS.items()
}


@functools.cache
def words_of(fact: str) -> dict[str, str]:
    """Value -> plain words for it, none of which names an emotion; values without words are absent."""
    return {value: entry["words"] for value, entry in FACTS[fact].items() if "words" in entry}
