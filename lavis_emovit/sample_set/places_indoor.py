"""Indoor places: each painter fills the whole picture."""

from __future__ import annotations

import random

from lavis_emovit.sample_set.canvas import Canvas, Colour, shade
from lavis_emovit.sample_set.places_outdoor import Painter


def _room(canvas: Canvas, wall: Colour, floor: Colour, floor_top: float = 70) -> None:
    canvas.gradient(0, floor_top, wall, shade(wall, 0.88))
    canvas.gradient(floor_top, 100, shade(floor, 0.85), floor)
    canvas.rect(0, floor_top - 1.5, 100, floor_top, shade(wall, 0.7))


def plain(canvas: Canvas, rng: random.Random) -> None:
    """No place: a soft backdrop as in a photographer's room."""
    base = rng.choice(((180, 186, 196), (196, 186, 172), (172, 186, 176)))
    canvas.gradient(0, 100, shade(base, 1.12), shade(base, 0.84))


def bow_window(canvas: Canvas, rng: random.Random) -> None:
    """A large window with curtains, a cushioned seat and a plant."""
    _room(canvas, (232, 212, 178), (170, 118, 74), 76)
    canvas.rect(16, 8, 84, 62, (250, 246, 236))
    canvas.gradient(11, 59, (160, 206, 240), (214, 236, 246))
    for x0, x1 in ((0, 16), (84, 100)):
        canvas.rect(x0, 6, x1, 76, (232, 212, 178))
    canvas.oval(30, 60, 16, 12, (110, 168, 96))
    canvas.oval(66, 60, 22, 16, (92, 152, 86))
    canvas.rect(16, 59, 84, 63, (250, 246, 236))
    for x in (38, 62):
        canvas.rect(x - 1.2, 8, x + 1.2, 62, (250, 246, 236))
    canvas.rect(16, 32, 84, 34, (250, 246, 236))
    for x, sign in ((16, 1), (84, -1)):
        canvas.poly(
            [(x - sign * 6, 4), (x + sign * 14, 4), (x + sign * 4, 40), (x + sign * 8, 70), (x - sign * 6, 70)],
            (206, 104, 88),
        )
    canvas.rect(8, 64, 92, 78, (150, 96, 60))
    canvas.rect(10, 62, 90, 69, (224, 150, 96), radius=3)
    x = rng.choice((22, 78))
    canvas.rect(x - 5, 54, x + 5, 62, (190, 92, 56))
    for dx, dy in ((-7, -10), (-2, -14), (3, -13), (8, -9)):
        canvas.line([(x, 55), (x + dx, 55 + dy)], 2, (64, 140, 70), round_ends=True)


def bedroom(canvas: Canvas, rng: random.Random) -> None:
    """A bed with pillows, a lamp and a picture on the wall."""
    _room(canvas, (178, 186, 206), (150, 122, 98), 70)
    side = rng.choice((0, 1))

    def at(x: float) -> float:
        return 100 - x if side else x

    canvas.rect(at(4), 36, at(10), 84, (112, 74, 46))
    canvas.rect(at(8), 60, at(76), 84, (238, 236, 230), radius=3)
    canvas.rect(at(30), 57, at(78), 84, (96, 120, 176), radius=3)
    canvas.rect(at(10), 52, at(27), 62, (250, 250, 248), radius=4)
    canvas.rect(at(82), 58, at(96), 84, (128, 86, 54))
    canvas.line([(at(89), 58), (at(89), 48)], 1.6, (90, 90, 96))
    canvas.poly([(at(82), 49), (at(96), 49), (at(93), 36), (at(85), 36)], (252, 226, 150))
    canvas.rect(at(36), 14, at(62), 34, (112, 74, 46))
    canvas.rect(at(38), 16, at(60), 32, (206, 222, 214))


def stage(canvas: Canvas, rng: random.Random) -> None:
    """Red curtains, coloured light beams and the heads of a crowd."""
    canvas.gradient(0, 100, (46, 24, 66), (84, 40, 96))
    beams = [(255, 90, 170), (90, 190, 255), (255, 220, 80), (130, 255, 150)]
    rng.shuffle(beams)
    for x, target, colour in zip((22.0, 42.0, 60.0, 80.0), (6, 62, 36, 92), beams):
        canvas.poly([(x - 1, 0), (x + 1, 0), (target + 13, 78), (target - 13, 78)], shade(colour, 0.62))
        canvas.disc(x, 2, 3.4, colour)
    canvas.rect(0, 76, 100, 100, (116, 72, 48))
    for x, sign in ((0, 1), (100, -1)):
        for index in range(3):
            left = x + sign * index * 5
            canvas.rect(left, 0, left + sign * 5, 78, (196, 26, 44) if index % 2 else (160, 18, 36))
    canvas.rect(0, 0, 100, 5, (160, 18, 36))
    for index in range(11):
        x = index * 10 + rng.uniform(-2, 2)
        canvas.disc(x, 95, 5.4, (28, 18, 34))
        if rng.random() < 0.5:
            canvas.line([(x + 3, 96), (x + 5, 84)], 2.2, (28, 18, 34), round_ends=True)


def boxing_ring(canvas: Canvas, rng: random.Random) -> None:
    """A ring with red, white and blue ropes under lamps."""
    canvas.gradient(0, 66, (44, 42, 54), (88, 80, 92))
    for _ in range(22):
        canvas.disc(rng.uniform(0, 100), rng.uniform(26, 42), 2.6, (66, 60, 72))
    for x in (28, 72):
        canvas.poly([(x - 5, 6), (x + 5, 6), (x + 24, 64), (x - 24, 64)], (122, 114, 116))
        canvas.rect(x - 7, 2, x + 7, 7, (255, 250, 220))
    canvas.poly([(8, 68), (92, 68), (112, 100), (-12, 100)], (220, 214, 202))
    canvas.rect(0, 68, 100, 70, (120, 30, 36))
    for y, colour in ((42, (216, 36, 44)), (51, (246, 246, 246)), (60, (46, 84, 206))):
        canvas.line([(8, y), (92, y)], 1.9, colour)
        canvas.line([(8, y), (-6, y + 12)], 1.9, colour)
        canvas.line([(92, y), (106, y + 12)], 1.9, colour)
    for x, colour in ((8, (206, 30, 40)), (92, (40, 76, 200))):
        canvas.rect(x - 3, 36, x + 3, 70, colour, radius=1.5)


def jail_cell(canvas: Canvas, rng: random.Random) -> None:
    """Iron bars, a stone wall and a barred little window."""
    _room(canvas, (124, 122, 124), (98, 94, 94), 72)
    for row in range(7):
        y = row * 10
        canvas.line([(0, y), (100, y)], 0.7, (92, 90, 94))
        for column in range(6):
            x = column * 20 + (row % 2) * 10
            canvas.line([(x, y), (x, y + 10)], 0.7, (92, 90, 94))
    x = rng.choice((24, 62))
    canvas.rect(x, 12, x + 18, 28, (190, 210, 226))
    for dx in (4, 9, 14):
        canvas.line([(x + dx, 12), (x + dx, 28)], 1.4, (50, 50, 56))
    canvas.rect(0, 62, 34, 68, (92, 72, 54))
    for x in range(2, 100, 14):
        canvas.rect(x, 0, x + 3.2, 100, (46, 46, 54))
        canvas.rect(x + 0.6, 0, x + 1.4, 100, (112, 112, 122))
    for y in (8, 86):
        canvas.rect(0, y, 100, y + 3, (46, 46, 54))


def bathroom(canvas: Canvas, rng: random.Random) -> None:
    """Stained tiles, a dirty bath and a dripping tap."""
    _room(canvas, (196, 206, 190), (150, 152, 132), 72)
    for gap in range(0, 100, 12):
        canvas.line([(gap, 0), (gap, 70)], 0.7, (140, 150, 134))
    for gap in range(0, 70, 12):
        canvas.line([(0, gap), (100, gap)], 0.7, (140, 150, 134))
    for _ in range(7):
        x, y = rng.uniform(2, 98), rng.uniform(0, 44)
        canvas.oval(x, y, 3.6, 2.6, (126, 124, 64))
        canvas.line([(x, y), (x, y + rng.uniform(8, 22))], 1.5, (126, 124, 64), round_ends=True)
    x = rng.choice((6, 46))
    canvas.rect(x, 58, x + 48, 84, (236, 238, 230), radius=7)
    canvas.rect(x + 3, 60, x + 45, 66, (132, 140, 64), radius=3)
    canvas.rect(x - 2, 56, x + 50, 61, (244, 246, 240), radius=2)
    canvas.line([(x + 42, 57), (x + 42, 48), (x + 34, 48), (x + 34, 51)], 2, (150, 156, 164))


def basement(canvas: Canvas, rng: random.Random) -> None:
    """Stairs, cobwebs and one bare bulb in a cellar."""
    _room(canvas, (74, 70, 70), (52, 48, 48), 72)
    x = rng.uniform(40, 60)
    canvas.poly([(x, 16), (x - 34, 86), (x + 34, 86)], (112, 102, 78))
    side = rng.choice((0, 1))

    def at(value: float) -> float:
        return 100 - value if side else value

    for step in range(6):
        canvas.rect(at(100 - step * 6), 30 + step * 8, at(70 - step * 3), 34 + step * 8, (104, 78, 54))
    canvas.line([(at(68), 30), (at(52), 78)], 1.8, (58, 42, 32))
    for px, direction in ((0, 1), (100, -1)):
        for reach in (10, 18, 26):
            canvas.arc(
                px, 0, reach, reach, 0 if direction > 0 else 90, 90 if direction > 0 else 180, 0.6, (196, 196, 200)
            )
        for dx, dy in ((26, 8), (19, 19), (8, 26)):
            canvas.line([(px, 0), (px + direction * dx, dy)], 0.6, (196, 196, 200))
    canvas.line([(x, 0), (x, 12)], 0.8, (20, 20, 20))
    canvas.disc(x, 15, 3.4, (255, 238, 150))
    canvas.rect(at(6), 56, at(20), 80, (86, 62, 42))
    for y in (60, 68, 76):
        canvas.line([(at(6), y), (at(20), y)], 1, (54, 38, 28))


def hospital_room(canvas: Canvas, rng: random.Random) -> None:
    """A bed with rails, a drip stand, a monitor and a red cross."""
    _room(canvas, (206, 222, 222), (164, 178, 180), 72)
    side = rng.choice((0, 1))

    def at(value: float) -> float:
        return 100 - value if side else value

    canvas.rect(at(14), 54, at(90), 66, (248, 250, 250), radius=2)
    canvas.rect(at(34), 52, at(91), 68, (146, 190, 196), radius=2)
    canvas.rect(at(16), 48, at(32), 57, (255, 255, 255), radius=3)
    for x in (12, 92):
        canvas.line([(at(x), 42), (at(x), 86)], 2, (136, 146, 152))
    canvas.line([(at(12), 70), (at(92), 70)], 2, (136, 146, 152))
    canvas.line([(at(5), 86), (at(5), 14)], 1.3, (120, 130, 136))
    canvas.rect(at(2), 14, at(9), 28, (214, 238, 250), radius=2)
    canvas.line([(at(6), 28), (at(8), 46), (at(18), 52)], 0.8, (196, 60, 60))
    canvas.rect(at(64), 16, at(88), 32, (40, 48, 52), radius=1)
    points = [(66, 25), (71, 25), (73, 19), (76, 30), (78, 25), (86, 25)]
    canvas.line([(at(x), y) for x, y in points], 1, (90, 240, 130))
    canvas.rect(at(36), 12, at(54), 30, (255, 255, 255))
    canvas.rect(at(43), 14, at(47), 28, (216, 40, 44))
    canvas.rect(at(38), 19, at(52), 23, (216, 40, 44))


INDOOR_PAINTERS: dict[str, Painter] = {
    "none": plain, "bow_window": bow_window, "bedroom": bedroom, "stage": stage, "boxing_ring": boxing_ring,
    "jail_cell": jail_cell, "bathroom": bathroom, "basement": basement, "hospital_room": hospital_room,
}  # fmt: skip
