"""Plain words for every drawn thing, none of which names or hints an emotion."""

from __future__ import annotations

import re

PLACE_WORDS: dict[str, str] = {
    "amusement_park": "a fair with a big wheel", "carrousel": "a carrousel", "playground": "a playground",
    "mountain_snowy": "high mountains", "waterfall": "a waterfall", "canyon": "a canyon",
    "formal_garden": "a garden", "lake": "a lake", "stadium": "a stadium", "wave": "a big wave",
    "volcano": "a volcano", "landfill": "a rubbish heap", "swamp": "a swamp", "forest_path": "a forest",
    "alley": "an alley", "cemetery": "a cemetery", "railroad_track": "a railroad", "beach": "a beach",
    "street": "a street", "field": "a corn field", "bow_window": "a room with a large window",
    "bedroom": "a bedroom", "stage": "a stage", "boxing_ring": "a boxing ring", "jail_cell": "a jail cell",
    "bathroom": "a bathroom", "basement": "a basement", "hospital_room": "a hospital room", "none": "a plain wall",
}  # fmt: skip
OBJECT_WORDS: dict[str, str] = {
    "balloon": "balloons", "ice cream": "an ice cream", "teddy bear": "a teddy bear", "duck": "a yellow duck",
    "eagle": "an eagle", "whale": "a whale", "elephant": "an elephant", "lighthouse": "a lighthouse", "cat": "a cat",
    "flower": "flowers", "teapot": "a teapot", "butterfly": "a butterfly", "guitar": "a guitar", "drum": "a drum",
    "flag": "a flag", "cake": "a cake", "bull": "a bull", "axe": "an axe", "stop sign": "a stop sign", "fire": "a fire",
    "worm": "worms", "waste container": "a waste bin", "toilet": "a toilet", "snail": "a snail",
    "fish bone": "fish bones", "spider": "a spider", "skull": "a skull", "snake": "a snake", "bat": "a bat",
    "ghost": "a ghost", "umbrella": "an umbrella", "candle": "a candle", "suitcase": "a suitcase",
    "wheelchair": "a wheelchair", "wilted rose": "a wilted rose", "bench": "a bench", "car": "a car", "tree": "a tree",
    "none": "no object",
}  # fmt: skip
ACTION_WORDS: dict[str, str] = {
    "standing": "standing still", "juggling balls": "juggling balls", "eating ice cream": "eating an ice cream",
    "arms wide": "holding both arms wide", "pointing up": "pointing up", "yoga": "sitting with crossed legs",
    "reading book": "reading a book", "drinking": "drinking from a cup", "watering plants": "watering a plant",
    "arms up": "holding both arms up", "jumping": "jumping", "dancing": "dancing", "playing guitar": "playing a guitar",
    "surfing": "surfing on a board", "raising a fist": "raising a fist", "boxing": "boxing with red gloves",
    "throwing": "throwing a stone", "holding the nose": "holding the nose", "carrying garbage": "carrying a black bag",
    "hands on cheeks": "holding both cheeks", "running": "running", "wiping eyes": "wiping the eyes",
    "sitting hunched": "sitting on the ground", "none": "nothing",
}  # fmt: skip
WHO_WORDS: dict[str, str] = {
    "adult": "a person", "child": "a child", "old person": "an old person", "clown": "a clown", "none": "nobody",
}  # fmt: skip
MOUTH_WORDS: dict[str, str] = {
    "straight": "straight", "curved up": "curved up", "open and curved up": "wide open and curved up",
    "curved down": "curved down", "teeth": "showing the teeth", "round": "open and round", "crooked": "a zigzag line",
    "tongue": "showing the tongue",
}  # fmt: skip
BROW_WORDS: dict[str, str] = {
    "level": "level", "raised": "raised", "lowered": "low in the middle", "slanted": "high in the middle",
}  # fmt: skip
EYE_WORDS: dict[str, str] = {"open": "open", "wide": "wide open", "narrow": "narrow", "closed": "closed"}
AIR_WORDS: dict[str, str] = {
    "none": "nothing", "clouds": "white clouds", "rain": "rain", "snow": "snow", "lightning": "lightning",
    "stars": "many stars", "moon": "the moon", "aurora": "green northern lights", "rainbow": "a rainbow",
    "sunset": "a low sun", "fireworks": "fireworks", "fog": "fog", "confetti": "confetti", "flies": "flies",
    "smoke": "smoke",
}  # fmt: skip
BRIGHTNESS_WORDS: dict[str, str] = {"dark": "dark", "medium": "neither dark nor bright", "bright": "bright"}
SATURATION_WORDS: dict[str, str] = {"grey": "grey", "plain": "pale", "vivid": "strong"}
VIEW_WORDS: dict[str, str] = {
    "close": "close", "whole": "in full", "tiny": "far away", "none": "not there",
}  # fmt: skip

# Stems that must not start any word of a description, question or answer: the eight emotions, their relatives in other
# label sets, and words for expressions that name a feeling instead of a shape.
EMOTION_WORDS: tuple[str, ...] = (
    "afraid", "alone", "amus", "anger", "angr", "annoy", "anxi", "awe", "bor", "calm", "celebrat", "cheer", "comfort",
    "content", "cozy", "cry", "delight", "depress", "despair", "disgust", "dread", "eager", "ecsta", "emotion", "enjoy",
    "enthus", "excit", "fear", "feel", "fright", "frown", "fun", "furi", "gloom", "glad", "grief", "grim", "gross",
    "happ", "hate", "horr", "humor", "irrita", "joy", "laugh", "lone", "love", "mad", "melanchol", "merr", "miser",
    "mood", "mourn", "nause", "nerv", "panic", "peace", "play with joy", "pleas", "rage", "relax", "repuls", "revolt",
    "sad", "scar", "scream", "seren", "shock", "sick", "smil", "sneer", "sob", "sorrow", "spook", "startl", "sublim",
    "surpris", "tear-stained", "terr", "thrill", "unhapp", "upset", "weep", "wonder", "worr", "yuck",
)  # fmt: skip
# Plain words that happen to begin like one of those.
_INNOCENT = frozenset({"board", "border", "born", "scarf"})
_WORD = re.compile(r"[a-z]+")
_STEMS = tuple(stem for stem in EMOTION_WORDS if _WORD.fullmatch(stem))


def emotion_words_in(text: str) -> list[str]:
    """The words of a text that name an emotion; empty for every text of the sample set's descriptions."""
    words = _WORD.findall(text.lower())
    return [word for word in words if word not in _INNOCENT and word.startswith(_STEMS)]
