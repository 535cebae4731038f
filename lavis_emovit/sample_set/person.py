"""Draws persons: a pose and things for each action, and a face, in units of the head's radius."""

from __future__ import annotations

from lavis_emovit.sample_set.canvas import Canvas, Colour, mix, shade
from lavis_emovit.sample_set.drawing import DrawingFile, Frame, read_colour, read_spot
from lavis_emovit.sample_set.scene import SketchScene
from lavis_emovit.sample_set.vocabulary import FACTS

SKINS: tuple[Colour, ...] = ((250, 212, 178), (236, 188, 148), (198, 140, 98), (146, 96, 64), (255, 224, 196))
HAIRS: tuple[Colour, ...] = ((50, 34, 26), (110, 66, 32), (214, 168, 80), (24, 22, 28), (150, 60, 30))
WIGS: tuple[Colour, ...] = ((230, 50, 40), (40, 140, 230), (60, 180, 70), (240, 150, 30))
CLOTHES: tuple[Colour, ...] = (
    (214, 64, 60), (58, 110, 200), (70, 160, 90), (236, 178, 52), (150, 84, 180), (90, 96, 110), (238, 238, 232),
)  # fmt: skip
_INK: Colour = (30, 22, 26)
PEOPLE = DrawingFile("person")
ACTIONS = DrawingFile("actions")


def draw_person(frame: Frame, scene: SketchScene) -> None:
    """A person with body, limbs, head and things. The origin of the frame is the head, its unit the head's radius."""
    pose = FACTS["action"][scene.action]["pose"]
    canvas, x, r = frame.canvas, frame.x, frame.size
    y = frame.y - pose.get("lift", 0.0) * r
    colours = _colours_of(scene)
    clothes, skin = colours["clothes"], colours["skin"]
    body = Frame(canvas, frame.rng, x, y, r, colours=colours)
    hunched = scene.action == "sitting hunched"

    body.draw(ACTIONS.drawing("action", scene.action, "behind"))
    if not hunched:
        _draw_legs(body, scene.action)
    body.draw(PEOPLE.part("body"))
    if scene.who == "clown":
        body.draw(PEOPLE.part("clown_buttons"))
    if hunched:
        _draw_legs(body, scene.action)
    _draw_head(body.at(x, y + (0.12 * r if hunched else 0.0), r), scene)
    elbows, hands = _joints(body, scene.action, "elbows"), _joints(body, scene.action, "hands")
    for side, elbow, hand in zip((-1, 1), elbows, hands):
        arm = [(x + side * 0.72 * r, y + 1.35 * r), elbow, hand]
        canvas.stroke(shade(clothes, 0.72), arm, 0.46 * r)
        canvas.stroke(clothes, arm, 0.38 * r)
        size = 0.19 if scene.action == "holding the nose" and side > 0 else 0.25
        canvas.disc(shade(skin, 0.72), *hand, (size + 0.05) * r)
        canvas.disc(skin, *hand, size * r)
    for hand, key in zip(hands, ("in_left_hand", "in_hand")):
        if held := ACTIONS.drawing("action", scene.action, key):
            body.at(*hand, r).draw(held)
    body.draw(ACTIONS.drawing("action", scene.action, "before"))


def draw_tiny_person(canvas: Canvas, scene: SketchScene, x: float, y: float, height: float) -> None:
    """A distant figure seen from behind, with its feet at (x, y)."""
    clothes = CLOTHES[(scene.look >> 12) % 4]
    head = 0.15 * height
    top = y - height
    hand_y, reach = {"arms wide": (0.62, 0.42), "arms up": (1.12, 0.3)}.get(scene.action, (0.36, 0.24))
    for side in (-1, 1):
        canvas.line((36, 36, 52), [(x, y - 0.45 * height), (x + side * 0.12 * height, y)], 0.12 * height)
        arm = [(x, top + 0.36 * height), (x + side * reach * height, y - hand_y * height)]
        canvas.stroke(clothes, arm, 0.1 * height)
    canvas.rect(clothes, x - 0.15 * height, top + 0.27 * height, x + 0.15 * height, y - 0.36 * height)
    canvas.disc((44, 30, 26), x, top + head, head)


def _colours_of(scene: SketchScene) -> dict[str, Colour]:
    """The colours that the drawings of this person name."""
    # Faces flush, turn pale or turn green with their expression, as in cartoons.
    flush, share = FACTS["expression"][scene.expression].get("flush", ("0/0/0", 0.0))
    skin = mix(SKINS[scene.look % len(SKINS)], read_colour(flush, {}), share)
    skin = (250, 244, 240) if scene.who == "clown" else skin
    hair = (206, 206, 210) if scene.who == "old person" else HAIRS[(scene.look >> 8) % len(HAIRS)]
    return {
        "skin": skin,
        "hair": hair,
        "wig": WIGS[scene.look % len(WIGS)],
        "brow": _INK if scene.who == "clown" else shade(hair, 0.42),
        "cheek": mix(skin, (240, 90, 90), 0.45),
        "clothes": CLOTHES[(scene.look >> 12) % len(CLOTHES)],
        "trousers": shade(CLOTHES[(scene.look >> 16) % len(CLOTHES)], 0.6),
    }


def _joints(body: Frame, action: str, joints: str) -> list[tuple[float, float]]:
    """The left and the right joint on the canvas; missing joints are those of `standing`."""
    pose = {**FACTS["action"]["standing"]["pose"], **FACTS["action"][action]["pose"]}
    return [(body.x + x * body.size, body.y + y * body.size) for x, y, _ in map(read_spot, pose[joints].split())]


def _draw_legs(body: Frame, action: str) -> None:
    canvas, r, trousers = body.canvas, body.size, body.colours["trousers"]
    for side, knee, foot in zip((-1, 1), _joints(body, action, "knees"), _joints(body, action, "feet")):
        leg = [(body.x + side * 0.36 * r, body.y + 2.75 * r), knee, foot]
        canvas.stroke(shade(trousers, 0.75), leg, 0.56 * r)
        canvas.stroke(trousers, leg, 0.48 * r)
        canvas.oval((46, 34, 34), foot[0] + side * 0.12 * r, foot[1] + 0.16 * r, 0.38 * r, 0.2 * r)


def _draw_head(head: Frame, scene: SketchScene) -> None:
    """The head with hair and face."""
    x, y, r = head.x, head.y, head.size
    clown, smiling = scene.who == "clown", "smile" in FACTS["mouth"][scene.mouth]
    behind, before = _hair(scene)
    for part in (*behind, "head", *before):
        head.draw(PEOPLE.part(part))
    eye = PEOPLE.drawing("eyes", scene.eyes, "smiling" if smiling and scene.eyes == "closed" else "drawing")
    for side in (-1, 1):
        if clown:
            Frame(head.canvas, head.rng, x, y, r, mirrored=side < 0).draw(PEOPLE.part("clown_cheek"))
        head.at(x + side * 0.4 * r, y - 0.1 * r, r).draw(eye)
    head.draw(PEOPLE.drawing("brows", scene.brows))
    head.draw(PEOPLE.part("clown_nose" if clown else "nose"))
    if scene.expression == "disgust" and not clown:
        head.draw(PEOPLE.part("wrinkled_nose"))
    mouth = head.at(x, y + 0.54 * r, r)
    if clown:
        mouth.draw(PEOPLE.part("clown_mouth"))
    mouth.draw(PEOPLE.drawing("mouth", scene.mouth))
    if scene.tears == "yes":
        for side in (-1, 1):
            head.at(x + side * 0.4 * r, y, r).draw(PEOPLE.drawing("tears", "yes"))
    if smiling:
        head.draw(PEOPLE.part("smiling_cheeks"))


def _hair(scene: SketchScene) -> tuple[list[str], list[str]]:
    """The parts drawn behind the head and before it."""
    if scene.who == "clown":
        return ["wig"], ["hat"]
    style = (scene.look >> 4) % 3
    behind = ["long_hair"] if style == 1 else ["bunches"] if style == 2 and scene.who == "child" else []
    if scene.who == "old person":
        return behind, ["bald_head"]
    before = ["short_hair"]
    if (scene.look >> 6) % 2:
        before.append("side_parting")
    if scene.who == "child":
        before.append("tuft")
    return behind, before
