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

CUE_WEIGHTS: dict[str, dict[str, dict[str, float]]] = {
    "expression": {
        "happy": dict(amusement=3, contentment=2, excitement=2),
        "sad": dict(sadness=3),
        "angry": dict(anger=3),
        "fear": dict(fear=3),
        "disgust": dict(disgust=3),
        "surprise": dict(awe=2, excitement=2, fear=1),
        "none": {},
    },
    "mouth": {
        "curved up": dict(contentment=1),
        "open and curved up": dict(amusement=1, excitement=1),
        "curved down": dict(sadness=0.5),
        "teeth": dict(anger=1),
        "tongue": dict(disgust=1),
        "round": dict(awe=0.5),
    },
    "tears": {"yes": dict(sadness=2)},
    "who": {
        "clown": dict(amusement=3),
        "child": dict(amusement=1, fear=0.5),
        "old person": dict(contentment=1, sadness=1),
        "adult": dict(anger=0.5),
        "none": {},
    },
    "view": {
        "close": dict(anger=0.5, disgust=0.5),
        "whole": dict(excitement=0.5),
        "tiny": dict(awe=2, sadness=1),
        "none": dict(awe=0.5),
    },
    "action": {
        "standing": {},
        "juggling balls": dict(amusement=3, excitement=1),
        "eating ice cream": dict(amusement=2, contentment=1),
        "arms wide": dict(awe=3, contentment=1),
        "pointing up": dict(awe=2, fear=1),
        "yoga": dict(contentment=3),
        "reading book": dict(contentment=3),
        "drinking": dict(contentment=2),
        "watering plants": dict(contentment=3),
        "arms up": dict(excitement=3, amusement=1),
        "jumping": dict(excitement=3, amusement=1),
        "dancing": dict(excitement=2, amusement=2),
        "playing guitar": dict(excitement=2, contentment=1),
        "surfing": dict(excitement=3, awe=1),
        "raising a fist": dict(anger=3, excitement=1),
        "boxing": dict(anger=3, excitement=1),
        "throwing": dict(anger=2, amusement=1),
        "holding the nose": dict(disgust=3),
        "carrying garbage": dict(disgust=3),
        "hands on cheeks": dict(fear=2, awe=1),
        "running": dict(fear=3, excitement=1),
        "wiping eyes": dict(sadness=3),
        "sitting hunched": dict(sadness=3, fear=1),
    },
    "place": {
        "amusement_park": dict(amusement=3, excitement=2),
        "carrousel": dict(amusement=3, contentment=1),
        "playground": dict(amusement=3),
        "mountain_snowy": dict(awe=3, excitement=1),
        "waterfall": dict(awe=3, contentment=1),
        "canyon": dict(awe=3),
        "formal_garden": dict(contentment=3),
        "bow_window": dict(contentment=3),
        "lake": dict(contentment=2, awe=1),
        "field": dict(contentment=2, awe=1),
        "beach": dict(contentment=2, amusement=1, excitement=1),
        "bedroom": dict(contentment=1, sadness=1, fear=1),
        "stage": dict(excitement=3, amusement=1),
        "stadium": dict(excitement=3, anger=1),
        "wave": dict(excitement=2, awe=2),
        "boxing_ring": dict(anger=3, excitement=1),
        "jail_cell": dict(anger=2, sadness=2),
        "volcano": dict(anger=2, awe=1, fear=1),
        "street": dict(anger=2),
        "landfill": dict(disgust=3, anger=1),
        "bathroom": dict(disgust=2),
        "swamp": dict(disgust=2, fear=1),
        "forest_path": dict(fear=2, contentment=1),
        "alley": dict(fear=2, anger=1, disgust=1),
        "basement": dict(fear=3, disgust=1),
        "cemetery": dict(sadness=3, fear=1),
        "hospital_room": dict(sadness=3),
        "railroad_track": dict(sadness=2),
        "none": {},
    },
    "object": {
        "balloon": dict(amusement=2, excitement=2),
        "ice cream": dict(amusement=2, contentment=1),
        "teddy bear": dict(amusement=2, contentment=1, sadness=0.5),
        "duck": dict(amusement=3),
        "eagle": dict(awe=3),
        "whale": dict(awe=3),
        "elephant": dict(awe=2, amusement=1),
        "lighthouse": dict(awe=2, contentment=1),
        "cat": dict(contentment=3),
        "flower": dict(contentment=3),
        "teapot": dict(contentment=3),
        "butterfly": dict(contentment=2, awe=1),
        "guitar": dict(excitement=2, contentment=1),
        "drum": dict(excitement=3),
        "flag": dict(excitement=2, anger=1),
        "cake": dict(excitement=2, amusement=1),
        "bull": dict(anger=3, fear=1),
        "axe": dict(anger=2, fear=2),
        "stop sign": dict(anger=2),
        "fire": dict(anger=3, fear=1),
        "worm": dict(disgust=3),
        "waste container": dict(disgust=3),
        "toilet": dict(disgust=3),
        "snail": dict(disgust=2),
        "fish bone": dict(disgust=3),
        "spider": dict(fear=2, disgust=2),
        "skull": dict(fear=3, sadness=1),
        "snake": dict(fear=2, disgust=1),
        "bat": dict(fear=3),
        "ghost": dict(fear=3, amusement=0.5),
        "umbrella": dict(sadness=2),
        "candle": dict(sadness=2, contentment=1),
        "suitcase": dict(sadness=2),
        "wheelchair": dict(sadness=3),
        "wilted rose": dict(sadness=3),
        "bench": dict(sadness=1, contentment=1),
        "car": dict(anger=1, excitement=1),
        "tree": {},
        "none": {},
    },
    "air": {
        "none": {},
        "clouds": dict(contentment=0.5),
        "rain": dict(sadness=3),
        "snow": dict(sadness=1, awe=1),
        "lightning": dict(fear=2, anger=2),
        "stars": dict(awe=3),
        "moon": dict(fear=2, awe=1),
        "aurora": dict(awe=3),
        "rainbow": dict(awe=1, amusement=2),
        "sunset": dict(contentment=2, awe=2),
        "fireworks": dict(excitement=3),
        "fog": dict(fear=2, sadness=1),
        "confetti": dict(excitement=2, amusement=2),
        "flies": dict(disgust=3),
        "smoke": dict(anger=2, disgust=1),
    },
    "brightness": {
        "dark": dict(fear=1.5, sadness=1, anger=0.5),
        "medium": dict(disgust=0.5, awe=0.5),
        "bright": dict(amusement=1, contentment=1, excitement=1),
    },
    "saturation": {
        "grey": dict(sadness=1.5, fear=0.5),
        "plain": dict(disgust=0.5, contentment=0.5),
        "vivid": dict(amusement=1, excitement=1, anger=0.5),
    },
    "colour": {
        "red": dict(anger=2),
        "orange": dict(excitement=1.5),
        "yellow": dict(amusement=1.5),
        "green": dict(disgust=1, contentment=1),
        "blue": dict(awe=1, sadness=0.5),
        "purple": dict(fear=1, excitement=0.5),
        "grey": dict(sadness=0.5),
    },
}
