"""Faces: mouth, brows, eyes and tears, each drawn from its own value, in units of the head's radius."""

from __future__ import annotations

from lavis_emovit.sample_set.canvas import Canvas, Colour, mix, shade
from lavis_emovit.sample_set.scene import SketchScene

SKINS: tuple[Colour, ...] = ((250, 212, 178), (236, 188, 148), (198, 140, 98), (146, 96, 64), (255, 224, 196))
HAIRS: tuple[Colour, ...] = ((50, 34, 26), (110, 66, 32), (214, 168, 80), (24, 22, 28), (150, 60, 30))
_INK: Colour = (30, 22, 26)
_WHITE: Colour = (255, 255, 255)
_LIP: Colour = (150, 40, 48)
_HOLLOW: Colour = (92, 20, 30)
# A face flushes, pales or turns green with its expression, as faces in picture books do.
_FLUSH: dict[str, tuple[Colour, float]] = {
    "angry": ((225, 60, 40), 0.42),
    "disgust": ((150, 190, 70), 0.36),
    "fear": ((222, 228, 245), 0.45),
    "sad": ((200, 200, 225), 0.18),
}


def skin_of(scene: SketchScene) -> Colour:
    """The skin's colour in this scene."""
    if scene.who == "clown":
        return (250, 244, 240)
    base = SKINS[scene.look % len(SKINS)]
    if scene.expression in _FLUSH:
        colour, share = _FLUSH[scene.expression]
        return mix(base, colour, share)
    return base


def draw_head(canvas: Canvas, scene: SketchScene, x: float, y: float, r: float) -> None:
    """The head with hair and face; (x, y) is its centre and r its radius."""
    skin = skin_of(scene)
    _hair_behind(canvas, scene, x, y, r)
    for side in (-1, 1):
        canvas.oval(x + side * 0.97 * r, y + 0.08 * r, 0.16 * r, 0.22 * r, shade(skin, 0.9))
    canvas.oval(x, y, 0.95 * r, r, shade(skin, 0.82))
    canvas.oval(x, y, 0.91 * r, 0.96 * r, skin)
    _hair_before(canvas, scene, x, y, r)
    _eyes(canvas, scene, x, y, r, skin)
    _brows(canvas, scene, x, y, r)
    _nose(canvas, scene, x, y, r, skin)
    _mouth(canvas, scene, x, y, r)
    if scene.tears == "yes":
        for side in (-1, 1):
            left = x + side * 0.4 * r
            canvas.rect(left - 0.07 * r, y + 0.1 * r, left + 0.07 * r, y + 0.6 * r, (120, 190, 250), radius=0.06 * r)
            canvas.disc(left, y + 0.64 * r, 0.14 * r, (90, 165, 245))
            canvas.disc(left - 0.03 * r, y + 0.61 * r, 0.05 * r, (225, 242, 255))
    if scene.mouth in ("curved up", "open and curved up"):
        for side in (-1, 1):
            canvas.oval(x + side * 0.62 * r, y + 0.28 * r, 0.15 * r, 0.1 * r, mix(skin, (240, 90, 90), 0.45))


def _hair_behind(canvas: Canvas, scene: SketchScene, x: float, y: float, r: float) -> None:
    if scene.who == "clown":
        wig = ((230, 50, 40), (40, 140, 230), (60, 180, 70), (240, 150, 30))[scene.look % 4]
        for side in (-1, 1):
            for dx, dy, size in ((0.85, -0.45, 0.42), (1.1, -0.05, 0.42), (0.95, 0.32, 0.34)):
                canvas.disc(x + side * dx * r, y + dy * r, size * r, wig)
        return
    hair = _hair_colour(scene)
    style = (scene.look >> 4) % 3
    if style == 1:
        canvas.rect(x - 1.08 * r, y - 0.5 * r, x + 1.08 * r, y + 1.05 * r, shade(hair, 0.85), radius=0.4 * r)
    elif style == 2 and scene.who == "child":
        for side in (-1, 1):
            canvas.disc(x + side * 1.15 * r, y - 0.25 * r, 0.36 * r, hair)


def _hair_before(canvas: Canvas, scene: SketchScene, x: float, y: float, r: float) -> None:
    if scene.who == "clown":
        canvas.poly([(x - 0.42 * r, y - 0.84 * r), (x + 0.42 * r, y - 0.84 * r), (x, y - 1.62 * r)], (250, 200, 40))
        canvas.disc(x, y - 1.6 * r, 0.16 * r, (230, 50, 60))
        return
    hair = _hair_colour(scene)
    if scene.who == "old person":
        for side in (-1, 1):
            canvas.disc(x + side * 0.88 * r, y - 0.3 * r, 0.26 * r, hair)
            canvas.disc(x + side * 0.7 * r, y - 0.62 * r, 0.24 * r, hair)
        canvas.line([(x - 0.35 * r, y - 0.72 * r), (x + 0.35 * r, y - 0.72 * r)], 0.05 * r, shade(skin_of(scene), 0.75))
        return
    # The fringe ends above the highest brow, so that brows are always seen on skin.
    canvas.chord(x, y - 0.02 * r, 1.0 * r, 1.08 * r, 217, 323, hair)
    for side in (-1, 1):
        canvas.oval(x + side * 0.86 * r, y - 0.5 * r, 0.2 * r, 0.34 * r, hair)
    if (scene.look >> 6) % 2:
        canvas.oval(x + 0.3 * r, y - 0.84 * r, 0.56 * r, 0.2 * r, hair)
    if scene.who == "child":
        canvas.poly([(x - 0.1 * r, y - 1.0 * r), (x + 0.12 * r, y - 1.0 * r), (x + 0.14 * r, y - 1.32 * r)], hair)


def _hair_colour(scene: SketchScene) -> Colour:
    return (206, 206, 210) if scene.who == "old person" else HAIRS[(scene.look >> 8) % len(HAIRS)]


def _eyes(canvas: Canvas, scene: SketchScene, x: float, y: float, r: float, skin: Colour) -> None:
    eye_y = y - 0.1 * r
    for side in (-1, 1):
        eye_x = x + side * 0.4 * r
        if scene.who == "clown":
            canvas.disc(x + side * 0.68 * r, y + 0.3 * r, 0.15 * r, (250, 130, 130))
        if scene.eyes == "wide":
            canvas.oval(eye_x, eye_y, 0.31 * r, 0.36 * r, _INK)
            canvas.oval(eye_x, eye_y, 0.27 * r, 0.32 * r, _WHITE)
            canvas.disc(eye_x, eye_y, 0.11 * r, _INK)
        elif scene.eyes == "open":
            canvas.oval(eye_x, eye_y, 0.2 * r, 0.21 * r, _INK)
            canvas.oval(eye_x, eye_y, 0.17 * r, 0.18 * r, _WHITE)
            canvas.disc(eye_x, eye_y + 0.01 * r, 0.12 * r, _INK)
            canvas.disc(eye_x + 0.04 * r, eye_y - 0.05 * r, 0.04 * r, _WHITE)
        elif scene.eyes == "narrow":
            canvas.oval(eye_x, eye_y + 0.03 * r, 0.22 * r, 0.1 * r, _INK)
            canvas.oval(eye_x, eye_y + 0.04 * r, 0.18 * r, 0.06 * r, _WHITE)
            canvas.disc(eye_x, eye_y + 0.04 * r, 0.07 * r, _INK)
            canvas.line([(eye_x - 0.24 * r, eye_y - 0.04 * r), (eye_x + 0.24 * r, eye_y - 0.04 * r)], 0.07 * r, _INK)
        else:
            # Closed eyes are arcs that open downwards with a smile and upwards otherwise.
            smiling = scene.mouth in ("curved up", "open and curved up")
            start, end = (200, 340) if smiling else (20, 160)
            offset = 0.1 * r if smiling else -0.05 * r
            canvas.arc(eye_x, eye_y + offset, 0.23 * r, 0.2 * r, start, end, 0.09 * r, _INK)


def _brows(canvas: Canvas, scene: SketchScene, x: float, y: float, r: float) -> None:
    heights = {"level": (-0.46, -0.46), "raised": (-0.62, -0.66), "lowered": (-0.24, -0.56), "slanted": (-0.66, -0.42)}
    inner, outer = heights[scene.brows]
    colour = _INK if scene.who == "clown" else shade(_hair_colour(scene), 0.42)
    for side in (-1, 1):
        points = [(x + side * 0.16 * r, y + inner * r), (x + side * 0.64 * r, y + outer * r)]
        if scene.brows == "raised":
            points.insert(1, (x + side * 0.4 * r, y - 0.76 * r))
        canvas.line(points, 0.15 * r if scene.brows == "lowered" else 0.11 * r, colour, round_ends=True)
    if scene.brows == "lowered":
        for side in (-1, 1):
            canvas.line([(x + side * 0.07 * r, y - 0.5 * r), (x + side * 0.05 * r, y - 0.3 * r)], 0.05 * r, colour)


def _nose(canvas: Canvas, scene: SketchScene, x: float, y: float, r: float, skin: Colour) -> None:
    if scene.who == "clown":
        canvas.disc(x, y + 0.2 * r, 0.24 * r, (228, 32, 40))
        canvas.disc(x - 0.07 * r, y + 0.13 * r, 0.07 * r, (255, 170, 170))
        return
    dark = shade(skin, 0.72)
    canvas.arc(x, y + 0.14 * r, 0.13 * r, 0.12 * r, 20, 160, 0.06 * r, dark)
    if scene.expression == "disgust":
        for dy in (-0.12, 0.0, 0.12):
            canvas.line(
                [(x - 0.13 * r, y + dy * r), (x, y + (dy + 0.05) * r), (x + 0.13 * r, y + dy * r)], 0.05 * r, dark
            )


def _mouth(canvas: Canvas, scene: SketchScene, x: float, y: float, r: float) -> None:
    mouth_y = y + 0.54 * r
    line = 0.09 * r
    if scene.who == "clown":
        canvas.oval(x, mouth_y, 0.6 * r, 0.33 * r, (236, 92, 84))
    match scene.mouth:
        case "straight":
            canvas.line([(x - 0.26 * r, mouth_y), (x + 0.26 * r, mouth_y)], line, _LIP, round_ends=True)
        case "curved up":
            canvas.arc(x, mouth_y - 0.26 * r, 0.46 * r, 0.42 * r, 25, 155, 1.2 * line, _LIP)
        case "open and curved up":
            canvas.pie(x, mouth_y - 0.16 * r, 0.52 * r, 0.52 * r, 0, 180, _HOLLOW)
            canvas.oval(x, mouth_y + 0.24 * r, 0.26 * r, 0.11 * r, (235, 100, 105))
            canvas.rect(x - 0.48 * r, mouth_y - 0.16 * r, x + 0.48 * r, mouth_y - 0.03 * r, _WHITE)
        case "curved down":
            canvas.arc(x, mouth_y + 0.3 * r, 0.4 * r, 0.36 * r, 205, 335, 1.2 * line, _LIP)
        case "teeth":
            canvas.rect(x - 0.48 * r, mouth_y - 0.2 * r, x + 0.48 * r, mouth_y + 0.24 * r, _HOLLOW, radius=0.14 * r)
            canvas.rect(x - 0.42 * r, mouth_y - 0.14 * r, x + 0.42 * r, mouth_y + 0.18 * r, _WHITE, radius=0.08 * r)
            canvas.line([(x - 0.42 * r, mouth_y + 0.02 * r), (x + 0.42 * r, mouth_y + 0.02 * r)], 0.05 * r, _HOLLOW)
            for step in (-0.22, 0.0, 0.22):
                canvas.line([(x + step * r, mouth_y - 0.14 * r), (x + step * r, mouth_y + 0.18 * r)], 0.05 * r, _HOLLOW)
        case "round":
            canvas.oval(x, mouth_y + 0.06 * r, 0.25 * r, 0.32 * r, _LIP)
            canvas.oval(x, mouth_y + 0.07 * r, 0.2 * r, 0.26 * r, (50, 10, 18))
        case "crooked":
            heights = (0.06, -0.08, 0.08, -0.08, 0.06)
            points = [(x + (-0.42 + 0.21 * index) * r, mouth_y + dy * r) for index, dy in enumerate(heights)]
            canvas.line(points, 1.1 * line, _LIP, round_ends=True)
        case "tongue":
            canvas.oval(x, mouth_y, 0.38 * r, 0.17 * r, _HOLLOW)
            canvas.rect(
                x - 0.18 * r, mouth_y - 0.02 * r, x + 0.2 * r, mouth_y + 0.42 * r, (238, 100, 120), radius=0.17 * r
            )
            canvas.line(
                [(x + 0.01 * r, mouth_y + 0.04 * r), (x + 0.01 * r, mouth_y + 0.28 * r)], 0.04 * r, (190, 60, 80)
            )
