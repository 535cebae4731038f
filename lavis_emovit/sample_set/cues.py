"""What can be drawn in the sample set, and how strongly each drawn thing speaks for each emotion.

The emotion of a scene is the one with the largest sum of `CUE_WEIGHTS` over everything drawn in it; see
`docs/sample_set.md`. Names of places, objects and actions are EmoSet's own where EmoSet has one.
"""

from __future__ import annotations

EMOTIONS = ("amusement", "anger", "awe", "contentment", "disgust", "excitement", "fear", "sadness")

# How the person stands in the picture: a face that fills it, the whole figure, a tiny figure far away, nobody.
VIEWS = ("close", "whole", "tiny", "none")
WHO = ("adult", "child", "old person", "clown", "none")
BRIGHTNESS = ("dark", "medium", "bright")
SATURATION = ("grey", "plain", "vivid")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "grey")

INDOOR_PLACES = (
    "bow_window", "bedroom", "stage", "boxing_ring", "jail_cell", "bathroom", "basement", "hospital_room", "none",
)  # fmt: skip
OUTDOOR_PLACES = (
    "amusement_park", "carrousel", "playground", "mountain_snowy", "waterfall", "canyon", "formal_garden", "lake",
    "stadium", "wave", "volcano", "landfill", "swamp", "forest_path", "alley", "cemetery", "railroad_track", "beach",
    "street", "field",
)  # fmt: skip
PLACES = OUTDOOR_PLACES + INDOOR_PLACES

# "none" is a clear sky, or plain air indoors.
INDOOR_AIR = ("none", "confetti", "flies", "smoke")
NIGHT_AIR = ("stars", "moon", "aurora", "fireworks", "lightning")
AIR = (
    "none", "clouds", "rain", "snow", "lightning", "stars", "moon", "aurora", "rainbow", "sunset", "fireworks", "fog",
    "confetti", "flies", "smoke",
)  # fmt: skip

# Our name -> EmoSet's name of the object; None where EmoSet has no such class, so that no annotation is written.
OBJECTS: dict[str, str | None] = {
    "balloon": "Balloon", "ice cream": "Ice cream", "teddy bear": "Teddy bear", "duck": "Duck", "eagle": "Eagle",
    "whale": "Whale", "elephant": "Elephant", "lighthouse": "Lighthouse", "cat": "Cat", "flower": "Flower",
    "teapot": "Teapot", "butterfly": "Butterfly", "guitar": "Guitar", "drum": "Drum", "flag": "Flag", "cake": "Cake",
    "bull": "Bull", "axe": "Axe", "stop sign": "Stop sign", "fire": None, "worm": "Worm",
    "waste container": "Waste container", "toilet": "Toilet", "snail": "Snail", "fish bone": None, "spider": "Spider",
    "skull": "Skull", "snake": "Snake", "bat": "Bat", "ghost": None, "umbrella": "Umbrella", "candle": "Candle",
    "suitcase": "Suitcase", "wheelchair": "Wheelchair", "wilted rose": "Rose", "bench": "Bench", "car": "Car",
    "tree": "Tree",
}  # fmt: skip

# Our name -> EmoSet's name of the action (one of them has a trailing space there).
ACTIONS: dict[str, str | None] = {
    "standing": None, "juggling balls": "juggling balls", "eating ice cream": "eating ice cream", "arms wide": None,
    "pointing up": None, "yoga": "yoga", "reading book": "reading book", "drinking": "drinking",
    "watering plants": "watering plants", "arms up": "celebrating", "jumping": "bouncing on trampoline",
    "dancing": "dancing", "playing guitar": "playing guitar", "surfing": "surfing water", "raising a fist":
    "pumping fist", "boxing": "boxing ", "throwing": "throwing ball", "holding the nose": None,
    "carrying garbage": "garbage collecting", "hands on cheeks": None, "running": "jogging", "wiping eyes": "crying",
    "sitting hunched": None,
}  # fmt: skip
# What hands and arms can show beside a face that fills the picture.
CLOSE_ACTIONS = (
    "standing", "arms up", "raising a fist", "boxing", "hands on cheeks", "wiping eyes", "holding the nose", "drinking",
    "eating ice cream",
)  # fmt: skip

EXPRESSIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "none")
MOUTHS = ("straight", "curved up", "open and curved up", "curved down", "teeth", "round", "crooked", "tongue", "none")
BROWS = ("level", "raised", "lowered", "slanted", "none")
EYES = ("open", "wide", "narrow", "closed", "none")
TEARS = ("yes", "no", "none")

# The geometry that each expression may take: mouths, brows, eyes. Any drawn combination belongs to one expression only.
EXPRESSION_GEOMETRY: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "happy": (("curved up", "open and curved up"), ("level", "raised"), ("open", "closed")),
    "sad": (("curved down",), ("slanted",), ("open", "closed", "narrow")),
    "angry": (("teeth", "curved down"), ("lowered",), ("open", "narrow")),
    "fear": (("crooked", "round"), ("slanted",), ("wide",)),
    "disgust": (("tongue", "crooked"), ("lowered", "level"), ("narrow",)),
    "surprise": (("round",), ("raised",), ("wide",)),
    "none": (("straight",), ("level",), ("open", "closed")),
}

# How much more often than once a value is drawn where the wanted emotion does not say anything about it.
COMMONNESS: dict[str, dict[str, float]] = {
    "who": {"adult": 2.0, "old person": 0.7, "clown": 0.12},
    "action": {"standing": 4.0},
    "air": {
        "none": 5.0, "clouds": 2.0, "fog": 0.6, "confetti": 0.45, "flies": 0.4, "smoke": 0.5, "fireworks": 0.6,
        "lightning": 0.7, "aurora": 0.6, "stars": 0.8,
    },
    "brightness": {"medium": 1.3},
    "saturation": {"grey": 0.3, "vivid": 1.3},
}  # fmt: skip

CUE_WEIGHTS: dict[str, dict[str, dict[str, float]]] = {
    "expression": {
        "happy": {
            "amusement": 3,
            "contentment": 2.5,
            "excitement": 2,
            "anger": -1.5,
            "disgust": -1.5,
            "fear": -1.5,
            "sadness": -1.5,
        },
        "sad": {"sadness": 3, "amusement": -1, "awe": -1, "contentment": -1, "excitement": -1},
        "angry": {"anger": 3, "amusement": -1, "awe": -1, "contentment": -1, "excitement": -1},
        "fear": {"fear": 3, "amusement": -1, "contentment": -1, "excitement": -1},
        "disgust": {"disgust": 3, "amusement": -1, "awe": -1, "contentment": -1, "excitement": -1},
        "surprise": {"awe": 2, "excitement": 2, "fear": 1},
        "none": {},
    },
    "mouth": {
        "curved up": {"contentment": 1},
        "open and curved up": {"amusement": 1, "excitement": 1},
        "curved down": {"sadness": 0.5},
        "teeth": {"anger": 1},
        "tongue": {"disgust": 1},
        "round": {"awe": 0.5},
    },
    "tears": {"yes": {"sadness": 2}},
    "who": {
        "clown": {"amusement": 3},
        "child": {"amusement": 1, "fear": 0.5},
        "old person": {"contentment": 1, "sadness": 1},
        "adult": {"anger": 0.5},
        "none": {},
    },
    "view": {
        "close": {"anger": 0.5, "disgust": 0.5},
        "whole": {"excitement": 0.5},
        "tiny": {"awe": 2, "sadness": 1},
        "none": {"awe": 0.5},
    },
    "action": {
        "standing": {},
        "juggling balls": {"amusement": 3, "excitement": 1},
        "eating ice cream": {"amusement": 2, "contentment": 1},
        "arms wide": {"awe": 3, "contentment": 1},
        "pointing up": {"awe": 2, "fear": 1},
        "yoga": {"contentment": 3},
        "reading book": {"contentment": 3},
        "drinking": {"contentment": 2},
        "watering plants": {"contentment": 3},
        "arms up": {"excitement": 3, "amusement": 1},
        "jumping": {"excitement": 3, "amusement": 1},
        "dancing": {"excitement": 2, "amusement": 2},
        "playing guitar": {"excitement": 2, "contentment": 1},
        "surfing": {"excitement": 3, "awe": 1},
        "raising a fist": {"anger": 3, "excitement": 1},
        "boxing": {"anger": 3, "excitement": 1},
        "throwing": {"anger": 2, "amusement": 1},
        "holding the nose": {"disgust": 3},
        "carrying garbage": {"disgust": 3},
        "hands on cheeks": {"fear": 2, "awe": 1},
        "running": {"fear": 3, "excitement": 1},
        "wiping eyes": {"sadness": 3},
        "sitting hunched": {"sadness": 3, "fear": 1},
    },
    "place": {
        "amusement_park": {"amusement": 3, "excitement": 2},
        "carrousel": {"amusement": 3, "contentment": 1},
        "playground": {"amusement": 3},
        "mountain_snowy": {"awe": 3, "excitement": 1},
        "waterfall": {"awe": 3, "contentment": 1},
        "canyon": {"awe": 3},
        "formal_garden": {"contentment": 3},
        "bow_window": {"contentment": 3},
        "lake": {"contentment": 2, "awe": 1},
        "field": {"contentment": 2, "awe": 1},
        "beach": {"contentment": 2, "amusement": 1, "excitement": 1},
        "bedroom": {"contentment": 1, "sadness": 1, "fear": 1},
        "stage": {"excitement": 3, "amusement": 1},
        "stadium": {"excitement": 3, "anger": 1},
        "wave": {"excitement": 2, "awe": 2},
        "boxing_ring": {"anger": 3, "excitement": 1},
        "jail_cell": {"anger": 2, "sadness": 2},
        "volcano": {"anger": 2, "awe": 1, "fear": 1},
        "street": {"anger": 2},
        "landfill": {"disgust": 3, "anger": 1},
        "bathroom": {"disgust": 2},
        "swamp": {"disgust": 2, "fear": 1},
        "forest_path": {"fear": 2, "contentment": 1},
        "alley": {"fear": 2, "anger": 1, "disgust": 1},
        "basement": {"fear": 3, "disgust": 1},
        "cemetery": {"sadness": 3, "fear": 1},
        "hospital_room": {"sadness": 3},
        "railroad_track": {"sadness": 2},
        "none": {},
    },
    "object": {
        "balloon": {"amusement": 2, "excitement": 2},
        "ice cream": {"amusement": 2, "contentment": 1},
        "teddy bear": {"amusement": 2, "contentment": 1, "sadness": 0.5},
        "duck": {"amusement": 3},
        "eagle": {"awe": 3},
        "whale": {"awe": 3},
        "elephant": {"awe": 2, "amusement": 1},
        "lighthouse": {"awe": 2, "contentment": 1},
        "cat": {"contentment": 3},
        "flower": {"contentment": 3},
        "teapot": {"contentment": 3},
        "butterfly": {"contentment": 2, "awe": 1},
        "guitar": {"excitement": 2, "contentment": 1},
        "drum": {"excitement": 3},
        "flag": {"excitement": 2, "anger": 1},
        "cake": {"excitement": 2, "amusement": 1},
        "bull": {"anger": 3, "fear": 1},
        "axe": {"anger": 2, "fear": 2},
        "stop sign": {"anger": 2},
        "fire": {"anger": 3, "fear": 1},
        "worm": {"disgust": 3},
        "waste container": {"disgust": 3},
        "toilet": {"disgust": 3},
        "snail": {"disgust": 2},
        "fish bone": {"disgust": 3},
        "spider": {"fear": 2, "disgust": 2},
        "skull": {"fear": 3, "sadness": 1},
        "snake": {"fear": 2, "disgust": 1},
        "bat": {"fear": 3},
        "ghost": {"fear": 3, "amusement": 0.5},
        "umbrella": {"sadness": 2},
        "candle": {"sadness": 2, "contentment": 1},
        "suitcase": {"sadness": 2},
        "wheelchair": {"sadness": 3},
        "wilted rose": {"sadness": 3},
        "bench": {"sadness": 1, "contentment": 1},
        "car": {"anger": 1, "excitement": 1},
        "tree": {},
        "none": {},
    },
    "air": {
        "none": {},
        "clouds": {"contentment": 0.5},
        "rain": {"sadness": 3},
        "snow": {"sadness": 1, "awe": 1},
        "lightning": {"fear": 2, "anger": 2},
        "stars": {"awe": 3},
        "moon": {"fear": 2, "awe": 1},
        "aurora": {"awe": 3},
        "rainbow": {"awe": 1, "amusement": 2},
        "sunset": {"contentment": 2, "awe": 2},
        "fireworks": {"excitement": 3},
        "fog": {"fear": 2, "sadness": 1},
        "confetti": {"excitement": 2, "amusement": 2},
        "flies": {"disgust": 3},
        "smoke": {"anger": 2, "disgust": 1},
    },
    "brightness": {
        "dark": {"fear": 1.5, "sadness": 1, "anger": 0.5},
        "medium": {"disgust": 0.5, "awe": 0.5},
        "bright": {"amusement": 1, "contentment": 1, "excitement": 1},
    },
    "saturation": {
        "grey": {"sadness": 1.5, "fear": 0.5},
        "plain": {"disgust": 0.5, "contentment": 0.5},
        "vivid": {"amusement": 1, "excitement": 1, "anger": 0.5},
    },
    "colour": {
        "red": {"anger": 2},
        "orange": {"excitement": 1.5},
        "yellow": {"amusement": 1.5},
        "green": {"disgust": 1, "contentment": 1},
        "blue": {"awe": 1, "sadness": 0.5},
        "purple": {"fear": 1, "excitement": 0.5},
        "grey": {"sadness": 0.5},
    },
}
