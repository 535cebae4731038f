"""The data files of the sample set.

- Entries have known keys only; weights name emotions; names that refer to other entries exist.
- Every drawing of every file can be painted, in any frame.
- The order of values, on which recorded sets and models depend, begins as it was recorded.
"""

from __future__ import annotations

import random

import pytest

from lavis_emovit.sample_set.canvas import Canvas
from lavis_emovit.sample_set.draw import OBJECTS
from lavis_emovit.sample_set.drawing import Frame
from lavis_emovit.sample_set.person import ACTIONS, PEOPLE
from lavis_emovit.sample_set.scene import CLOSE_ACTIONS, FACT_VALUES
from lavis_emovit.sample_set.scenery import AIR, PLACES
from lavis_emovit.sample_set.vocabulary import EMOTIONS, FACTS, read_data

COMMON_KEYS = {"words", "weights", "common", "colours", "drawing"}
KEYS = {
    "expression": {"mouths", "brows", "eyes", "flush"},
    "mouth": {"smile"},
    "eyes": {"smiling"},
    "action": {"emoset", "pose", "behind", "before", "in_hand", "in_left_hand"},
    "place": {"indoor"},
    "object": {"emoset", "high"},
    "air": {"indoors", "sky", "back", "front"},
}
COLOURS_OF_A_PERSON = dict.fromkeys(("skin", "hair", "wig", "brow", "cheek", "clothes", "trousers"), (9, 9, 9))


@pytest.mark.parametrize("fact", FACTS)
def test_entries_have_known_keys(fact):
    for value, entry in FACTS[fact].items():
        assert set(entry) <= COMMON_KEYS | KEYS.get(fact, set()), value
        assert set(entry.get("weights", {})) <= set(EMOTIONS), value
        assert entry.get("common", 1) > 0, value
        if fact not in ("expression", "tears"):
            assert "words" in entry or value == "none", value


def test_references_exist():
    for entry in FACTS["expression"].values():
        for key, fact in (("mouths", "mouth"), ("brows", "brows"), ("eyes", "eyes")):
            assert set(entry[key]) <= set(FACTS[fact]) - {"none"}
    assert {entry["sky"] for entry in FACTS["air"].values() if "sky" in entry} <= set(read_data("air")["parts"])
    assert set(CLOSE_ACTIONS) <= set(FACTS["action"])
    assert set(FACTS["action"]["standing"]["pose"]) == {"elbows", "hands", "knees", "feet"}
    assert set(read_data("questions")["questions"]) <= set(FACTS)


@pytest.mark.parametrize("file", [OBJECTS, PLACES, AIR, PEOPLE, ACTIONS], ids=lambda file: file.name)
def test_every_drawing_can_be_painted(file):
    content = read_data(file.name)
    drawings = [file.part(name, (1, 2, 3)) for name in content.get("parts", {})]
    for fact in set(content) & set(FACTS):
        keys = {"drawing", *KEYS.get(fact, ())} - {"emoset", "pose", "mouths", "brows", "eyes", "flush"}
        for value, entry in content[fact].items():
            drawings += [file.drawing(fact, value, key) for key in keys if isinstance(entry.get(key), list)]
    assert len(drawings) >= 15
    for drawing in drawings:
        canvas = Canvas(64)
        empty = canvas.image.tobytes()
        Frame(canvas, random.Random(0), 50.0, 50.0, 8.0, colours=COLOURS_OF_A_PERSON).draw(drawing)
        Frame(canvas, random.Random(0), colours=COLOURS_OF_A_PERSON).draw(drawing)
        assert canvas.image.tobytes() != empty


def test_values_keep_their_order():
    assert list(FACT_VALUES) == [
        "view", "who", "expression", "mouth", "brows", "eyes", "tears", "action", "place", "object", "second_object",
        "air", "brightness", "saturation", "colour",
    ]  # fmt: skip
    assert FACT_VALUES["air"][0] == "none"
    assert all(values[-1] == "none" for name, values in FACT_VALUES.items() if "none" in values and name != "air")
    assert FACT_VALUES["object"][:4] == ("balloon", "ice cream", "teddy bear", "duck")
    assert FACT_VALUES["place"][:4] == ("amusement_park", "carrousel", "playground", "mountain_snowy")
