"""Outdoor places: each painter draws what stands before the sky, with the horizon at about y = 60."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

from lavis_emovit.sample_set.canvas import Canvas, Colour, Point, shade

Painter = Callable[[Canvas, random.Random], None]
GRASS: Colour = (98, 168, 74)


def _ground(canvas: Canvas, top: float, colour: Colour) -> None:
    canvas.gradient(top, 100, shade(colour, 1.1), shade(colour, 0.8))


def _tree(canvas: Canvas, x: float, base: float, height: float, leaves: Colour = (50, 120, 56)) -> None:
    canvas.rect(x - 0.06 * height, base - 0.45 * height, x + 0.06 * height, base, (96, 62, 38))
    for dx, dy, size in ((-0.2, -0.55, 0.25), (0.2, -0.55, 0.25), (0.0, -0.78, 0.27)):
        canvas.disc(x + dx * height, base + dy * height, size * height, leaves)


def _bare_tree(canvas: Canvas, x: float, base: float, height: float, colour: Colour = (38, 30, 34)) -> None:
    canvas.line([(x, base), (x, base - 0.6 * height)], 0.12 * height, colour)
    for dx, dy, from_y in ((-0.3, -0.95, -0.5), (0.28, -1.0, -0.55), (-0.34, -0.62, -0.32), (0.36, -0.66, -0.38)):
        canvas.line([(x, base + from_y * height), (x + dx * height, base + dy * height)], 0.06 * height, colour)
        end = (x + dx * 1.35 * height, base + (dy + 0.02) * height)
        canvas.line(
            [(x + dx * 0.6 * height, base + (from_y + (dy - from_y) * 0.6) * height), end], 0.035 * height, colour
        )


def _tent(canvas: Canvas, x: float, base: float, width: float, height: float, colour: Colour) -> None:
    canvas.rect(x - width / 2, base - 0.55 * height, x + width / 2, base, (250, 246, 236))
    stripe = width / 6
    for index in range(0, 6, 2):
        canvas.rect(
            x - width / 2 + index * stripe, base - 0.55 * height, x - width / 2 + (index + 1) * stripe, base, colour
        )
    canvas.poly(
        [(x - 0.58 * width, base - 0.55 * height), (x + 0.58 * width, base - 0.55 * height), (x, base - height)], colour
    )
    canvas.poly([(x, base - height), (x, base - 1.18 * height), (x + 0.2 * width, base - 1.1 * height)], (250, 210, 50))


def amusement_park(canvas: Canvas, rng: random.Random) -> None:
    """A big wheel with coloured cabins and striped tents."""
    _ground(canvas, 72, (190, 170, 120))
    x, y, radius = rng.choice((24, 76)), 38, 28
    colours = ((230, 60, 60), (60, 130, 230), (250, 200, 50), (70, 180, 90), (170, 80, 200), (245, 140, 40))
    canvas.line([(x, y), (x - 14, 75)], 2.4, (120, 120, 140))
    canvas.line([(x, y), (x + 14, 75)], 2.4, (120, 120, 140))
    canvas.ring(x, y, radius, radius, 1.8, (245, 245, 250))
    turn = rng.random()
    for index in range(10):
        angle = math.tau * (index + turn) / 10
        end = (x + radius * math.cos(angle), y + radius * math.sin(angle))
        canvas.line([(x, y), end], 0.8, (235, 235, 240))
        canvas.disc(end[0], end[1], 4.2, colours[index % 6])
    canvas.disc(x, y, 3, (250, 210, 60))
    _tent(canvas, 100 - x, 76, 34, 34, (225, 50, 60))
    _tent(canvas, 100 - x + (22 if x > 50 else -22), 77, 22, 24, (50, 110, 220))


def carrousel(canvas: Canvas, rng: random.Random) -> None:
    """A round roof with stripes over poles and wooden horses."""
    _ground(canvas, 74, (170, 150, 140))
    canvas.rect(8, 76, 92, 84, (180, 60, 80), radius=2)
    canvas.rect(43, 34, 57, 76, (245, 220, 160))
    for index in range(5):
        x = 14 + index * 18
        canvas.line([(x, 32), (x, 76)], 1.4, (250, 205, 80))
        y = 58 + rng.choice((-4, 0, 4))
        horse = ((250, 250, 250), (150, 90, 50), (60, 60, 70), (240, 180, 190), (230, 210, 160))[index]
        canvas.oval(x, y, 7, 4, horse)
        canvas.poly([(x + 4, y - 1), (x + 8, y - 10), (x + 12, y - 6), (x + 7, y + 2)], horse)
        canvas.rect(x - 2.5, y - 5.5, x + 2.5, y - 1, (225, 50, 60))
        for dx in (-5, -3, 3, 5):
            canvas.line([(x + dx, y + 2), (x + dx * 1.2, y + 10)], 1.3, horse)
    for index in range(8):
        colour = (235, 60, 70) if index % 2 else (252, 244, 220)
        left = 4 + index * 11.5
        canvas.poly([(left, 34), (left + 11.5, 34), (50, 6)], colour)
        canvas.pie(left + 5.75, 34, 5.75, 5, 0, 180, colour)
    canvas.disc(50, 6, 2.6, (250, 205, 60))


def playground(canvas: Canvas, rng: random.Random) -> None:
    """A slide with a ladder and a swing on grass."""
    _ground(canvas, 62, GRASS)
    side = rng.choice((0, 1))

    def at(x: float) -> float:
        return 100 - x if side else x

    canvas.rect(at(8), 26, at(26), 30, (240, 90, 50))
    canvas.poly([(at(6), 27), (at(28), 27), (at(17), 12)], (60, 120, 230))
    for x in (9, 25):
        canvas.line([(at(x), 28), (at(x), 82)], 2.6, (245, 180, 40))
    for y in (38, 48, 58, 68, 78):
        canvas.line([(at(9), y), (at(25), y)], 1.4, (245, 180, 40))
    canvas.line([(at(25), 30), (at(44), 78), (at(54), 81)], 6.5, (225, 50, 50), round_ends=True)
    canvas.line([(at(25), 29), (at(44), 77), (at(54), 80)], 3.4, (255, 140, 120), round_ends=True)
    for x in (62, 94):
        canvas.line([(at(x - 3), 82), (at(x), 24)], 2, (70, 90, 190))
        canvas.line([(at(x + 3), 82), (at(x), 24)], 2, (70, 90, 190))
    canvas.line([(at(62), 24), (at(94), 24)], 2.4, (70, 90, 190))
    for x in (73, 84):
        canvas.line([(at(x - 3), 24), (at(x - 3), 66)], 0.8, (60, 60, 60))
        canvas.line([(at(x + 3), 24), (at(x + 3), 66)], 0.8, (60, 60, 60))
        canvas.rect(at(x - 4.5), 65, at(x + 4.5), 68, (225, 50, 60))


def mountain_snowy(canvas: Canvas, rng: random.Random) -> None:
    """High pointed mountains with white tops over a valley."""
    for x, top, width, colour in (
        (rng.uniform(12, 26), 26, 38, (122, 138, 172)),
        (rng.uniform(74, 90), 20, 40, (112, 128, 164)),
        (rng.uniform(44, 56), 6, 46, (92, 108, 148)),
    ):
        canvas.poly([(x - width, 76), (x, top), (x + width, 76)], colour)
        canvas.poly(
            [(x, top), (x + width, 76), (x + 0.2 * width, 76), (x + 0.06 * width, top + 22)], shade(colour, 0.75)
        )
        low = top + 19
        edge = 0.7 * width * 19 / (76 - top)
        canvas.poly(
            [(x, top), (x + 1.35 * edge, low), (x + 0.5 * edge, low - 4), (x + 0.1 * edge, low + 5),
             (x - 0.5 * edge, low - 3), (x - 1.35 * edge, low + 1)], (250, 252, 255)
        )  # fmt: skip
    canvas.oval(20, 92, 60, 20, (150, 172, 160))
    canvas.oval(82, 94, 56, 20, (128, 154, 140))
    canvas.rect(0, 92, 100, 100, (128, 154, 140))


def waterfall(canvas: Canvas, rng: random.Random) -> None:
    """White water that falls from a high cliff between rocks."""
    rock = (98, 96, 88)
    x = rng.uniform(40, 60)
    canvas.poly([(0, 10), (14, 12), (x - 13, 18), (x - 11, 100), (0, 100)], rock)
    canvas.poly([(100, 8), (88, 12), (x + 13, 18), (x + 11, 100), (100, 100)], shade(rock, 0.85))
    for dx, dy in ((0.1, 30), (0.2, 52), (0.06, 68), (0.84, 28), (0.93, 48), (0.8, 62)):
        canvas.poly([(dx * 100, dy), (dx * 100 + 9, dy + 3), (dx * 100 + 4, dy + 15)], shade(rock, 0.7))
    canvas.rect(0, 8, x - 13, 14, (70, 130, 66))
    canvas.rect(x + 13, 8, 100, 14, (70, 130, 66))
    canvas.rect(x - 13, 18, x + 13, 84, (226, 242, 252))
    for index in range(7):
        left = x - 11 + index * 3.6
        canvas.line([(left, 20 + rng.uniform(0, 14)), (left + rng.uniform(-1, 1), 80)], 1.1, (150, 196, 232))
    canvas.rect(0, 84, 100, 100, (84, 158, 206))
    for index in range(9):
        canvas.oval(x - 20 + index * 5, 84 + rng.uniform(-3, 3), 7, 4.5, (244, 250, 255))


def canyon(canvas: Canvas, rng: random.Random) -> None:
    """Deep red walls in layers on both sides of a gorge."""
    _ground(canvas, 56, (206, 128, 78))
    for left, right, top, colour in ((-10, 34, 30, (196, 104, 62)), (68, 112, 24, (184, 92, 54))):
        jitter = rng.uniform(-4, 4)
        canvas.poly([(left, top + jitter), (right - 8, top + jitter), (right, 60), (right + 6, 92), (left, 92)], colour)
        for step in range(5):
            y = top + jitter + 6 + step * 10
            canvas.line([(left, y), (right - 5 + step * 2, y)], 2.2, shade(colour, 0.78 if step % 2 else 1.22))
    canvas.poly([(44, 46), (60, 46), (60, 58), (44, 58)], (214, 140, 92))
    canvas.poly([(38, 100), (46, 58), (56, 58), (70, 100)], (112, 56, 44))
    canvas.poly([(48, 100), (50, 60), (53, 60), (58, 100)], (70, 140, 190))


def formal_garden(canvas: Canvas, rng: random.Random) -> None:
    """Hedges, a fence and beds full of flowers."""
    _ground(canvas, 56, GRASS)
    for x in (8.0, 30.0, 70.0, 92.0):
        canvas.oval(x, 50, 11, 15, (54, 128, 62))
        canvas.oval(x - 2, 47, 8, 10, (72, 150, 76))
    for post in range(3, 100, 8):
        canvas.rect(post - 1.2, 50, post + 1.2, 64, (250, 250, 245))
    canvas.rect(0, 54, 100, 56.5, (250, 250, 245))
    canvas.poly([(44, 64), (56, 64), (72, 100), (28, 100)], (226, 206, 162))
    colours = ((236, 70, 110), (250, 210, 60), (180, 90, 220), (250, 140, 60), (255, 255, 255))
    for _ in range(26):
        x, y = rng.uniform(2, 98), rng.uniform(67, 96)
        if abs(x - 50) < 8 + (y - 64) * 0.4:
            continue
        canvas.line([(x, y), (x, y + 4)], 0.9, (50, 120, 50))
        canvas.disc(x, y, 2.5, rng.choice(colours))
        canvas.disc(x, y, 0.9, (250, 220, 80))


def lake(canvas: Canvas, rng: random.Random) -> None:
    """Still water with hills, reeds and a small boat."""
    canvas.oval(20, 60, 46, 18, (96, 150, 104))
    canvas.oval(84, 62, 44, 22, (80, 136, 96))
    canvas.gradient(58, 100, (150, 200, 228), (72, 136, 190))
    for _ in range(9):
        x, y = rng.uniform(5, 90), rng.uniform(63, 97)
        canvas.line([(x, y), (x + 9, y)], 0.8, (206, 232, 246))
    x = rng.uniform(30, 70)
    canvas.poly([(x - 12, 66), (x + 12, 66), (x + 8, 71), (x - 8, 71)], (150, 92, 50))
    canvas.line([(x, 66), (x, 48)], 1, (110, 70, 40))
    canvas.poly([(x + 1, 49), (x + 10, 64), (x + 1, 64)], (252, 250, 240))
    for x in (2, 6, 10, 90, 94, 98):
        canvas.line([(x, 100), (x + rng.uniform(-2, 2), 74)], 1.2, (70, 120, 60))
        canvas.oval(x, 76, 1.4, 4, (120, 76, 40))


def stadium(canvas: Canvas, rng: random.Random) -> None:
    """Rows of people behind a green pitch, with floodlights."""
    canvas.rect(0, 24, 100, 66, (92, 96, 116))
    for row in range(5):
        for column in range(17):
            x, y = column * 6.2 + (row % 2) * 3, 29 + row * 7.6
            canvas.disc(x, y, 2.2, (236, 192, 156))
            canvas.rect(
                x - 2.6,
                y + 2,
                x + 2.6,
                y + 5.4,
                rng.choice(((230, 60, 60), (60, 110, 220), (250, 210, 60), (245,) * 3)),
            )
    for x in (9, 91):
        canvas.line([(x, 66), (x, 8)], 2, (150, 150, 160))
        canvas.rect(x - 8, 4, x + 8, 13, (255, 255, 215))
    _ground(canvas, 66, (62, 158, 66))
    for index in range(0, 5, 2):
        canvas.rect(index * 20, 66, index * 20 + 20, 100, (76, 176, 78))
    canvas.line([(0, 68), (100, 68)], 1.2, (250, 250, 250))
    canvas.arc(50, 88, 26, 9, 0, 360, 1.2, (250, 250, 250))


def wave(canvas: Canvas, rng: random.Random) -> None:
    """A high curling wave with foam."""
    canvas.gradient(52, 100, (40, 130, 190), (14, 80, 140))
    flip = rng.random() < 0.5

    def at(points: Sequence[Point]) -> list[Point]:
        return [(100 - x, y) if flip else (x, y) for x, y in points]

    body = [
        (100, 100),
        (100, 44),
        (88, 22),
        (66, 12),
        (44, 18),
        (34, 32),
        (46, 30),
        (56, 38),
        (54, 58),
        (36, 78),
        (0, 84),
        (0, 100),
    ]
    canvas.poly(at(body), (28, 120, 186))
    canvas.poly(at([(100, 100), (100, 60), (84, 38), (66, 30), (64, 50), (52, 74), (30, 88), (30, 100)]), (20, 92, 158))
    foam = [(34, 33), (38, 26), (45, 19), (55, 14), (66, 11), (78, 15), (88, 22), (95, 33), (30, 39)]
    for x, y in at(foam):
        canvas.disc(x, y, 5, (246, 252, 255))
    for _ in range(12):
        ((x, y),) = at([(rng.uniform(4, 60), rng.uniform(82, 97))])
        canvas.oval(x, y, 5, 1.5, (214, 238, 250))


def volcano(canvas: Canvas, rng: random.Random) -> None:
    """A black cone with red lava and sparks."""
    x = rng.uniform(38, 62)
    for dx, dy, size in ((-6, 16, 10), (6, 12, 11), (-2, 4, 12), (12, 3, 9)):
        canvas.disc(x + dx, dy, size, (88, 76, 78))
    canvas.poly([(x - 52, 90), (x - 9, 30), (x + 9, 30), (x + 52, 90)], (74, 52, 50))
    canvas.poly(
        [(x - 9, 30), (x + 9, 30), (x + 7, 46), (x + 16, 72), (x + 4, 60), (x - 3, 84), (x - 6, 54), (x - 16, 66)],
        (255, 92, 20),
    )
    canvas.poly([(x - 5, 30), (x + 5, 30), (x + 3, 46), (x - 2, 62), (x - 3, 46)], (255, 212, 60))
    for _ in range(16):
        canvas.disc(x + rng.uniform(-24, 24), rng.uniform(4, 30), rng.uniform(1, 2), (255, 140, 30))
    _ground(canvas, 86, (58, 40, 40))
    canvas.poly([(x - 8, 86), (x + 8, 86), (x + 30, 100), (x + 4, 100)], (255, 92, 20))


def landfill(canvas: Canvas, rng: random.Random) -> None:
    """Heaps of waste: bags, tins, bottles and peel."""
    _ground(canvas, 60, (128, 116, 80))
    canvas.oval(20, 72, 36, 30, (112, 104, 72))
    canvas.oval(82, 74, 38, 36, (104, 96, 66))
    for _ in range(30):
        x = rng.uniform(2, 98)
        y = rng.uniform(52 if abs(x - 50) > 22 else 68, 97)
        kind = rng.randrange(5)
        if kind == 0:
            canvas.oval(x, y, 6, 5.4, (46, 48, 52))
            canvas.poly([(x - 2, y - 4), (x + 2, y - 4), (x, y - 8)], (46, 48, 52))
        elif kind == 1:
            canvas.rect(x - 2.4, y - 4, x + 2.4, y + 3, rng.choice(((200, 50, 50), (170, 176, 184), (60, 100, 180))))
            canvas.oval(x, y - 4, 2.4, 1, (220, 224, 228))
        elif kind == 2:
            canvas.rect(x - 1.7, y - 4, x + 1.7, y + 5, (90, 140, 70), radius=1)
            canvas.rect(x - 0.7, y - 8, x + 0.7, y - 3, (90, 140, 70))
        elif kind == 3:
            canvas.arc(x, y, 5, 4, 20, 170, 2.2, (206, 190, 50))
        else:
            canvas.poly([(x - 5, y - 2), (x + 3, y - 5), (x + 6, y + 2), (x - 3, y + 4)], (176, 140, 96))


def swamp(canvas: Canvas, rng: random.Random) -> None:
    """Murky green water with bubbles, slime and dead trees."""
    canvas.rect(0, 44, 100, 62, (72, 84, 50))
    for x in (10.0, 28.0, 74.0, 93.0):
        _bare_tree(canvas, x + rng.uniform(-3, 3), 66, rng.uniform(46, 60), (58, 52, 38))
    canvas.gradient(60, 100, (116, 128, 52), (66, 82, 34))
    for _ in range(12):
        canvas.oval(rng.uniform(0, 100), rng.uniform(64, 98), rng.uniform(4, 10), rng.uniform(1.4, 3), (146, 164, 58))
    for _ in range(9):
        x, y, size = rng.uniform(5, 95), rng.uniform(66, 96), rng.uniform(1.4, 3.2)
        canvas.disc(x, y, size, (178, 192, 92))
        canvas.disc(x - 0.3 * size, y - 0.3 * size, 0.35 * size, (226, 232, 170))


def forest_path(canvas: Canvas, rng: random.Random) -> None:
    """A narrow path between bare black trees."""
    canvas.gradient(36, 100, (60, 70, 62), (34, 38, 32))
    canvas.poly([(47, 56), (53, 56), (72, 100), (24, 100)], (116, 102, 82))
    for x, base, height in ((36, 62, 48), (63, 62, 50), (24, 70, 62), (77, 70, 64), (7, 84, 88), (93, 84, 90)):
        _bare_tree(canvas, x + rng.uniform(-2, 2), base, height)
    for x in (14, 86):
        canvas.oval(x, 90, 10, 5, (30, 40, 30))


def alley(canvas: Canvas, rng: random.Random) -> None:
    """A narrow way between high brick walls with a lamp."""
    canvas.poly([(0, 0), (34, 26), (34, 66), (0, 100)], (104, 66, 56))
    canvas.poly([(100, 0), (66, 26), (66, 66), (100, 100)], (88, 56, 50))
    for step in range(1, 8):
        left = 0.26 + step * 0.09
        canvas.line([(0, left * 110 - 14), (34, 26 + step * 5)], 0.7, (64, 40, 36))
        canvas.line([(100, left * 110 - 14), (66, 26 + step * 5)], 0.7, (56, 34, 32))
    canvas.poly([(34, 66), (66, 66), (100, 100), (0, 100)], (72, 70, 74))
    canvas.rect(34, 40, 66, 66, (34, 32, 42))
    for x in (10, 84):
        canvas.rect(x, 34, x + 8, 48, (28, 28, 36))
    x = rng.choice((26, 74))
    canvas.line([(x, 72), (x, 34)], 1.4, (30, 30, 34))
    canvas.poly([(x, 34), (x - 9, 74), (x + 9, 74)], (150, 130, 70))
    canvas.disc(x, 33, 3, (255, 232, 140))


def cemetery(canvas: Canvas, rng: random.Random) -> None:
    """Grave stones and crosses on a hill with a bare tree."""
    canvas.oval(50, 96, 90, 40, (92, 108, 88))
    canvas.rect(0, 84, 100, 100, (84, 98, 80))
    _bare_tree(canvas, rng.choice((12, 88)), 66, 50)
    for x, base, size in (
        (26.0, 66, 12),
        (52, 64, 12),
        (76, 67, 12),
        (12, 88, 19),
        (40, 90, 20),
        (66, 88, 19),
        (92, 90, 20),
    ):
        x += rng.uniform(-2, 2)
        stone = (172, 174, 180)
        if rng.random() < 0.35:
            canvas.rect(x - 0.12 * size, base - 1.25 * size, x + 0.12 * size, base, stone)
            canvas.rect(x - 0.42 * size, base - 0.98 * size, x + 0.42 * size, base - 0.74 * size, stone)
        else:
            canvas.rect(x - 0.42 * size, base - 0.72 * size, x + 0.42 * size, base, stone)
            canvas.pie(x, base - 0.7 * size, 0.42 * size, 0.42 * size, 180, 360, stone)
            canvas.line(
                [(x - 0.2 * size, base - 0.6 * size), (x + 0.2 * size, base - 0.6 * size)], 0.9, (110, 112, 118)
            )
            canvas.line(
                [(x - 0.2 * size, base - 0.4 * size), (x + 0.2 * size, base - 0.4 * size)], 0.9, (110, 112, 118)
            )
        canvas.oval(x, base + 0.5, 0.6 * size, 1.6, (66, 80, 64))


def railroad_track(canvas: Canvas, rng: random.Random) -> None:
    """Rails that run to the horizon."""
    _ground(canvas, 50, (146, 138, 116))
    x = rng.uniform(44, 56)
    canvas.poly([(x - 3, 50), (x + 3, 50), (x + 46, 100), (x - 46, 100)], (112, 106, 100))
    for step in range(9):
        depth = (step + 1) / 9
        y, half = 50 + 50 * depth**1.8, 3 + 34 * depth**1.8
        canvas.rect(x - half, y - 3.4 * depth, x + half, y, (78, 52, 36))
    for side in (-1, 1):
        canvas.poly(
            [(x + side * 1.2, 50), (x + side * 2, 50), (x + side * 28, 100), (x + side * 23, 100)], (206, 208, 214)
        )
    for pole in (6, 92):
        canvas.line([(pole, 78), (pole, 22)], 1.6, (66, 48, 36))
        canvas.line([(pole - 6, 28), (pole + 6, 28)], 1.4, (66, 48, 36))


def beach(canvas: Canvas, rng: random.Random) -> None:
    """Sand, sea and a palm tree."""
    canvas.gradient(50, 68, (40, 140, 200), (110, 200, 224))
    _ground(canvas, 66, (242, 218, 158))
    for index in range(10):
        canvas.oval(index * 11, 67, 7, 1.8, (246, 252, 255))
    x = rng.choice((10, 90))
    lean = 6 if x < 50 else -6
    canvas.line([(x, 84), (x + lean * 0.4, 56), (x + lean, 32)], 3, (140, 98, 56))
    for dx, dy in ((-16, 4), (-13, -8), (2, -13), (14, -7), (17, 5), (-6, 10), (9, 11)):
        points = [(x + lean, 31), (x + lean + dx * 0.6, 29 + dy * 0.7), (x + lean + dx, 34 + dy)]
        canvas.line(points, 2.6, (52, 146, 66), round_ends=True)
    canvas.pie(100 - x, 76, 13, 12, 180, 360, (230, 60, 70))
    canvas.pie(100 - x, 76, 5, 12, 180, 360, (255, 255, 255))
    canvas.line([(100 - x, 72), (100 - x, 88)], 1.2, (250, 250, 250))


def street(canvas: Canvas, rng: random.Random) -> None:
    """Houses in a row, a road with a white line, cars."""
    left = -3.0
    while left < 100:
        width, top = rng.uniform(18, 26), rng.uniform(16, 36)
        wall = rng.choice(((186, 142, 118), (166, 166, 172), (206, 188, 150), (150, 120, 110), (136, 150, 166)))
        canvas.rect(left, top, left + width - 0.8, 72, wall)
        y = top + 5
        while y < 60:
            for part in (0.16, 0.44, 0.72):
                canvas.rect(left + part * width, y, left + (part + 0.16) * width, y + 6, (66, 82, 106))
            y += 11
        left += width
    canvas.rect(0, 72, 100, 76, (176, 174, 170))
    canvas.rect(0, 76, 100, 100, (80, 80, 88))
    for dash in range(0, 100, 18):
        canvas.rect(dash, 90, dash + 10, 92, (246, 246, 240))
    for x, colour in ((rng.uniform(4, 20), (206, 44, 44)), (rng.uniform(66, 80), (226, 176, 40))):
        canvas.rect(x, 72, x + 22, 80, colour, radius=2)
        canvas.poly([(x + 4, 73), (x + 7, 66), (x + 16, 66), (x + 19, 73)], shade(colour, 0.7))
        for dx in (5, 17):
            canvas.disc(x + dx, 80, 2.8, (26, 26, 30))


def field(canvas: Canvas, rng: random.Random) -> None:
    """Golden corn under a wide sky with a lone tree."""
    canvas.oval(24, 66, 56, 14, (128, 172, 92))
    canvas.gradient(60, 100, (236, 204, 100), (196, 150, 52))
    _tree(canvas, rng.choice((14, 86)), 64, 34)
    for _ in range(60):
        x, y = rng.uniform(0, 100), rng.uniform(68, 102)
        canvas.line([(x, y), (x + 0.6, y - 9)], 0.7, (168, 122, 36))
        canvas.oval(x + 0.6, y - 9, 0.9, 2.6, (250, 224, 120))


OUTDOOR_PAINTERS: dict[str, Painter] = {
    "amusement_park": amusement_park, "carrousel": carrousel, "playground": playground,
    "mountain_snowy": mountain_snowy, "waterfall": waterfall, "canyon": canyon, "formal_garden": formal_garden,
    "lake": lake, "stadium": stadium, "wave": wave, "volcano": volcano, "landfill": landfill, "swamp": swamp,
    "forest_path": forest_path, "alley": alley, "cemetery": cemetery, "railroad_track": railroad_track,
    "beach": beach, "street": street, "field": field,
}  # fmt: skip
