"""Persons: body, limbs and what they hold, one pose for each action, in units of the head's radius."""

from __future__ import annotations

from dataclasses import dataclass

from lavis_emovit.sample_set.canvas import Canvas, Colour, Point, shade
from lavis_emovit.sample_set.faces import draw_head, skin_of
from lavis_emovit.sample_set.scene import SketchScene

CLOTHES: tuple[Colour, ...] = (
    (214, 64, 60), (58, 110, 200), (70, 160, 90), (236, 178, 52), (150, 84, 180), (90, 96, 110), (238, 238, 232),
)  # fmt: skip
_HIP_Y = 2.85
_SHOULDER: Point = (0.72, 1.35)


@dataclass(frozen=True)
class Pose:
    """Elbows, hands, knees and feet (left, then right, as seen), relative to the head's centre in head radii."""

    elbows: tuple[Point, Point] = ((-1.15, 2.0), (1.15, 2.0))
    hands: tuple[Point, Point] = ((-1.2, 2.75), (1.2, 2.75))
    knees: tuple[Point, Point] = ((-0.42, 3.5), (0.42, 3.5))
    feet: tuple[Point, Point] = ((-0.46, 4.2), (0.46, 4.2))
    lift: float = 0.0


_LOTUS_KNEES: tuple[Point, Point] = ((-1.35, 3.25), (1.35, 3.25))
_LOTUS_FEET: tuple[Point, Point] = ((0.3, 3.4), (-0.3, 3.4))

POSES: dict[str, Pose] = {
    "standing": Pose(),
    "juggling balls": Pose(elbows=((-1.2, 2.1), (1.2, 2.1)), hands=((-1.6, 1.5), (1.6, 1.5))),
    "eating ice cream": Pose(elbows=((-1.15, 2.0), (1.3, 2.0)), hands=((-1.2, 2.75), (0.95, 1.25))),
    "arms wide": Pose(elbows=((-1.5, 1.25), (1.5, 1.25)), hands=((-2.3, 0.85), (2.3, 0.85))),
    "pointing up": Pose(elbows=((-1.15, 2.0), (1.4, 0.75)), hands=((-1.2, 2.75), (1.75, -0.7))),
    "yoga": Pose(((-1.25, 2.1), (1.25, 2.1)), ((-1.4, 2.95), (1.4, 2.95)), _LOTUS_KNEES, _LOTUS_FEET, lift=-0.75),
    "reading book": Pose(elbows=((-1.15, 2.15), (1.15, 2.15)), hands=((-0.6, 2.0), (0.6, 2.0))),
    "drinking": Pose(elbows=((-1.15, 2.0), (1.35, 1.95)), hands=((-1.2, 2.75), (0.7, 0.98))),
    "watering plants": Pose(elbows=((-1.15, 2.0), (1.45, 1.9)), hands=((-1.2, 2.75), (1.75, 2.15))),
    "arms up": Pose(elbows=((-1.35, 0.75), (1.35, 0.75)), hands=((-1.5, -0.65), (1.5, -0.65))),
    "jumping": Pose(
        ((-1.45, 0.9), (1.45, 0.9)), ((-2.0, -0.2), (2.0, -0.2)),
        ((-1.0, 3.2), (1.0, 3.2)), ((-0.75, 3.85), (0.75, 3.85)),
        lift=0.75,
    ),
    "dancing": Pose(
        ((-1.35, 0.75), (1.35, 2.0)), ((-1.75, -0.6), (0.75, 2.55)),
        ((-0.45, 3.5), (1.05, 3.2)), ((-0.5, 4.2), (0.75, 3.9))
    ),
    "playing guitar": Pose(elbows=((-1.35, 1.95), (1.3, 2.0)), hands=((-0.55, 2.4), (1.45, 1.55))),
    "surfing": Pose(
        ((-1.5, 1.5), (1.5, 1.2)), ((-2.2, 1.25), (2.2, 0.75)),
        ((-0.95, 3.25), (0.95, 3.15)), ((-0.85, 3.95), (1.0, 3.95)),
        lift=0.35,
    ),
    "raising a fist": Pose(elbows=((-1.15, 2.05), (1.45, 0.9)), hands=((-0.9, 2.75), (1.45, -0.5))),
    "boxing": Pose(elbows=((-1.3, 2.0), (1.3, 1.9)), hands=((-0.95, 1.2), (1.5, 0.95))),
    "throwing": Pose(
        ((-1.5, 1.6), (1.5, 0.8)), ((-2.2, 1.9), (2.0, -0.2)), ((-0.9, 3.4), (0.6, 3.5)), ((-1.2, 4.2), (0.75, 4.2))
    ),
    "holding the nose": Pose(elbows=((-1.15, 2.0), (1.55, 1.1)), hands=((-1.2, 2.75), (0.16, 0.2))),
    "carrying garbage": Pose(elbows=((-1.15, 2.0), (1.5, 1.9)), hands=((-1.2, 2.75), (1.9, 2.1))),
    "hands on cheeks": Pose(elbows=((-1.45, 1.7), (1.45, 1.7)), hands=((-0.92, 0.42), (0.92, 0.42))),
    "running": Pose(
        ((-1.35, 1.8), (1.25, 2.1)), ((-1.9, 1.2), (1.85, 2.3)),
        ((-1.05, 3.2), (0.85, 3.5)), ((-1.75, 3.65), (0.6, 4.2))
    ),
    "wiping eyes": Pose(elbows=((-1.15, 2.0), (1.45, 1.35)), hands=((-1.2, 2.75), (0.72, 0.3))),
    "sitting hunched": Pose(
        ((-1.05, 2.2), (1.05, 2.2)), ((-0.3, 2.75), (0.3, 2.75)),
        ((-0.62, 2.45), (0.62, 2.45)), ((-0.6, 3.5), (0.6, 3.5)),
        lift=-0.7,
    ),
}  # fmt: skip


def draw_person(canvas: Canvas, scene: SketchScene, x: float, y: float, r: float) -> None:
    """The person with head, body, limbs and things held; (x, y) is the head's centre and r its radius."""
    pose = POSES[scene.action]
    y -= pose.lift * r
    clothes = CLOTHES[(scene.look >> 12) % len(CLOTHES)]
    trousers = shade(CLOTHES[(scene.look >> 16) % len(CLOTHES)], 0.6)
    skin = skin_of(scene)
    _things_behind(canvas, scene, x, y, r)
    hunched = scene.action == "sitting hunched"
    if not hunched:
        _legs(canvas, pose, x, y, r, trousers)
    body = [(-0.78, 1.2), (0.78, 1.2), (0.7, _HIP_Y), (-0.7, _HIP_Y)]
    canvas.rect(x - 0.26 * r, y + 0.7 * r, x + 0.26 * r, y + 1.3 * r, shade(skin, 0.85))
    canvas.poly([(x + dx * r, y + dy * r) for dx, dy in body], clothes)
    for side in (-1, 1):
        canvas.disc(x + side * 0.62 * r, y + 1.36 * r, 0.28 * r, clothes)
    if scene.who == "clown":
        for dy in (1.7, 2.15, 2.6):
            canvas.disc(x, y + dy * r, 0.17 * r, (250, 210, 60))
    if hunched:
        _legs(canvas, pose, x, y, r, trousers)
    draw_head(canvas, scene, x, y + (0.12 * r if hunched else 0.0), r)
    for side, elbow, hand in zip((-1, 1), pose.elbows, pose.hands):
        shoulder = (x + side * _SHOULDER[0] * r, y + _SHOULDER[1] * r)
        at_elbow, at_hand = (x + elbow[0] * r, y + elbow[1] * r), (x + hand[0] * r, y + hand[1] * r)
        canvas.line([shoulder, at_elbow, at_hand], 0.46 * r, shade(clothes, 0.72), round_ends=True)
        canvas.line([shoulder, at_elbow, at_hand], 0.38 * r, clothes, round_ends=True)
        size = 0.19 if scene.action == "holding the nose" and side > 0 else 0.25
        canvas.disc(at_hand[0], at_hand[1], (size + 0.05) * r, shade(skin, 0.72))
        canvas.disc(at_hand[0], at_hand[1], size * r, skin)
    _things_before(canvas, scene, pose, x, y, r)


def draw_tiny_person(canvas: Canvas, scene: SketchScene, x: float, y: float, height: float) -> None:
    """A far figure seen from behind, standing with its feet at (x, y)."""
    clothes = CLOTHES[(scene.look >> 12) % 4]
    head = 0.15 * height
    top = y - height
    for side in (-1, 1):
        canvas.line([(x, y - 0.45 * height), (x + side * 0.12 * height, y)], 0.12 * height, (36, 36, 52))
        hand_y = {"arms wide": 0.62, "arms up": 1.12}.get(scene.action, 0.36)
        reach = {"arms wide": 0.42, "arms up": 0.3}.get(scene.action, 0.24)
        points = [(x, top + 0.36 * height), (x + side * reach * height, y - hand_y * height)]
        canvas.line(points, 0.1 * height, clothes, round_ends=True)
    canvas.rect(x - 0.15 * height, top + 0.27 * height, x + 0.15 * height, y - 0.36 * height, clothes)
    canvas.disc(x, top + head, head, (44, 30, 26))


def _legs(canvas: Canvas, pose: Pose, x: float, y: float, r: float, trousers: Colour) -> None:
    for side, knee, foot in zip((-1, 1), pose.knees, pose.feet):
        hip = (x + side * 0.36 * r, y + (_HIP_Y - 0.1) * r)
        at_knee, at_foot = (x + knee[0] * r, y + knee[1] * r), (x + foot[0] * r, y + foot[1] * r)
        canvas.line([hip, at_knee, at_foot], 0.56 * r, shade(trousers, 0.75), round_ends=True)
        canvas.line([hip, at_knee, at_foot], 0.48 * r, trousers, round_ends=True)
        canvas.oval(at_foot[0] + side * 0.12 * r, at_foot[1] + 0.16 * r, 0.38 * r, 0.2 * r, (46, 34, 34))


def _things_behind(canvas: Canvas, scene: SketchScene, x: float, y: float, r: float) -> None:
    match scene.action:
        case "surfing":
            canvas.oval(x + 0.05 * r, y + 4.25 * r, 2.3 * r, 0.34 * r, (250, 220, 90))
            canvas.oval(x + 0.05 * r, y + 4.22 * r, 1.8 * r, 0.12 * r, (230, 70, 60))
        case "jumping":
            canvas.oval(x, y + 5.1 * r, 1.3 * r, 0.2 * r, (50, 50, 60))
        case "yoga":
            canvas.rect(x - 1.9 * r, y + 3.3 * r, x + 1.9 * r, y + 3.75 * r, (120, 90, 190), radius=0.15 * r)


def _things_before(canvas: Canvas, scene: SketchScene, pose: Pose, x: float, y: float, r: float) -> None:
    left, right = ((x + dx * r, y + dy * r) for dx, dy in pose.hands)
    match scene.action:
        case "juggling balls":
            for dx, dy, colour in ((-1.5, 0.7, (230, 50, 50)),
                                   (-1.3, -0.7, (60, 120, 230)), (0.0, -1.4, (250, 210, 50)),
                                   (1.3, -0.7, (70, 180, 80)), (1.5, 0.7, (240, 130, 30))):  # fmt: skip
                canvas.disc(x + dx * r, y + dy * r, 0.34 * r, colour)
        case "eating ice cream":
            hx, hy = right
            canvas.poly(
                [(hx - 0.28 * r, hy - 0.25 * r), (hx + 0.28 * r, hy - 0.25 * r), (hx, hy + 0.5 * r)], (220, 160, 80)
            )
            canvas.disc(hx, hy - 0.42 * r, 0.36 * r, (250, 170, 190))
        case "reading book":
            page, cover = (252, 248, 232), (150, 50, 50)
            canvas.rect(x - 0.98 * r, y + 1.42 * r, x + 0.98 * r, y + 2.42 * r, cover)
            canvas.rect(x - 0.9 * r, y + 1.36 * r, x - 0.04 * r, y + 2.32 * r, page)
            canvas.rect(x + 0.04 * r, y + 1.36 * r, x + 0.9 * r, y + 2.32 * r, page)
            for dy in (1.56, 1.78, 2.0):
                canvas.line([(x - 0.75 * r, y + dy * r), (x - 0.2 * r, y + dy * r)], 0.06 * r, (120, 120, 120))
                canvas.line([(x + 0.2 * r, y + dy * r), (x + 0.75 * r, y + dy * r)], 0.06 * r, (120, 120, 120))
        case "drinking":
            hx, hy = right
            canvas.rect(hx - 0.36 * r, hy - 0.4 * r, hx + 0.24 * r, hy + 0.3 * r, (245, 245, 250), radius=0.1 * r)
            canvas.rect(hx - 0.36 * r, hy - 0.12 * r, hx + 0.24 * r, hy + 0.02 * r, (70, 120, 200))
            for dx in (-0.2, 0.05):
                points = [(hx + dx * r, hy - 0.5 * r), (hx + (dx + 0.1) * r, hy - 0.7 * r), (hx + dx * r, hy - 0.9 * r)]
                canvas.line(points, 0.06 * r, (235, 235, 240))
        case "watering plants":
            hx, hy = right
            canvas.rect(hx - 0.2 * r, hy, hx + 0.65 * r, hy + 0.75 * r, (80, 140, 190), radius=0.1 * r)
            canvas.line([(hx + 0.6 * r, hy + 0.55 * r), (hx + 1.25 * r, hy + 0.05 * r)], 0.16 * r, (80, 140, 190))
            for dx, dy in ((1.3, 0.4), (1.45, 0.75), (1.25, 0.9), (1.5, 1.15)):
                canvas.disc(hx + dx * r, hy + dy * r, 0.1 * r, (120, 190, 250))
            canvas.line([(hx + 1.4 * r, y + 4.2 * r), (hx + 1.4 * r, y + 3.7 * r)], 0.12 * r, (60, 140, 60))
            canvas.disc(hx + 1.4 * r, y + 3.6 * r, 0.26 * r, (240, 110, 150))
        case "playing guitar":
            canvas.line([(x - 0.3 * r, y + 2.45 * r), (x + 1.7 * r, y + 1.45 * r)], 0.2 * r, (92, 52, 26))
            canvas.disc(x - 0.55 * r, y + 2.55 * r, 0.62 * r, (206, 120, 48))
            canvas.disc(x + 0.1 * r, y + 2.25 * r, 0.46 * r, (206, 120, 48))
            canvas.disc(x - 0.3 * r, y + 2.42 * r, 0.22 * r, (60, 30, 20))
        case "raising a fist":
            hx, hy = right
            skin = skin_of(scene)
            canvas.rect(hx - 0.4 * r, hy - 0.42 * r, hx + 0.4 * r, hy + 0.3 * r, shade(skin, 0.72), radius=0.14 * r)
            canvas.rect(hx - 0.35 * r, hy - 0.37 * r, hx + 0.35 * r, hy + 0.25 * r, skin, radius=0.12 * r)
            for dx in (-0.16, 0.02, 0.2):
                canvas.line([(hx + dx * r, hy - 0.34 * r), (hx + dx * r, hy - 0.02 * r)], 0.06 * r, shade(skin, 0.6))
        case "boxing":
            for hx, hy in (left, right):
                canvas.disc(hx, hy, 0.5 * r, (120, 16, 20))
                canvas.disc(hx, hy, 0.44 * r, (215, 35, 40))
        case "wiping eyes":
            hx, hy = right
            corners = [(-0.45, -0.5), (0.1, -0.62), (0.35, -0.2), (0.3, 0.3), (-0.1, 0.15), (-0.4, 0.35)]
            canvas.poly([(hx + dx * r, hy + dy * r) for dx, dy in corners], (252, 252, 255))
            canvas.line([(hx - 0.12 * r, hy - 0.4 * r), (hx - 0.05 * r, hy + 0.1 * r)], 0.05 * r, (190, 196, 212))
        case "throwing":
            canvas.disc(right[0], right[1] - 0.3 * r, 0.36 * r, (110, 106, 104))
        case "carrying garbage":
            hx, hy = right
            canvas.oval(hx + 0.05 * r, hy + 0.85 * r, 0.72 * r, 0.8 * r, (44, 48, 50))
            canvas.poly(
                [(hx - 0.2 * r, hy + 0.2 * r), (hx + 0.25 * r, hy + 0.2 * r), (hx, hy - 0.15 * r)], (44, 48, 50)
            )
            canvas.oval(hx - 0.15 * r, hy + 0.7 * r, 0.14 * r, 0.3 * r, (92, 98, 100))
