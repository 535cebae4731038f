"""The sky and what is in the air: the back layer lies behind the place, the front layer before everything."""

from __future__ import annotations

import math
import random

from lavis_emovit.sample_set.canvas import Canvas, Colour, shade, star_points
from lavis_emovit.sample_set.cues import NIGHT_AIR

_CONFETTI: tuple[Colour, ...] = (
    (240, 60, 70),
    (60, 130, 240),
    (250, 210, 50),
    (70, 190, 90),
    (190, 80, 220),
    (250, 140, 40),
)


def draw_sky(canvas: Canvas, air: str, brightness: str, rng: random.Random, free_x: float) -> None:
    """The sky of an outdoor place. Large single things (moon, lightning) stand at `free_x`, away from the person."""
    if air in NIGHT_AIR:
        canvas.gradient(0, 76, (8, 10, 38), (40, 44, 92))
    elif air == "sunset":
        canvas.gradient(0, 64, (250, 120, 60), (255, 214, 120))
    elif air in ("rain", "fog", "smoke", "flies"):
        canvas.gradient(0, 76, (138, 146, 156), (182, 188, 192))
    elif air in ("snow", "clouds"):
        canvas.gradient(0, 76, (150, 182, 214), (214, 226, 236))
    elif brightness == "dark":
        canvas.gradient(0, 76, (52, 66, 108), (120, 128, 150))
    else:
        canvas.gradient(0, 76, (92, 168, 236), (198, 228, 248))
    painter = _BACK.get(air)
    if painter:
        painter(canvas, rng, free_x)
    elif air == "none" and brightness == "bright":
        canvas.disc(free_x, 13, 8, (255, 232, 110))


def draw_front(canvas: Canvas, air: str, rng: random.Random) -> None:
    """Falling, flying and drifting things before the whole picture."""
    painter = _FRONT.get(air)
    if painter:
        painter(canvas, rng)


def _cloud(canvas: Canvas, x: float, y: float, size: float, colour: Colour) -> None:
    for dx, dy, radius in ((-0.9, 0.1, 0.5), (-0.3, -0.2, 0.65), (0.4, -0.1, 0.6), (0.95, 0.15, 0.42)):
        canvas.oval(x + dx * size, y + dy * size, radius * size, 0.8 * radius * size, colour)


def _clouds(canvas: Canvas, rng: random.Random, free_x: float) -> None:
    for x, y in ((free_x, 12), (100 - free_x, 20), (50, 7)):
        _cloud(canvas, x + rng.uniform(-6, 6), y, rng.uniform(10, 14), (252, 253, 255))


def _rain_clouds(canvas: Canvas, rng: random.Random, free_x: float) -> None:
    for x in (8, 34, 62, 90):
        _cloud(canvas, x + rng.uniform(-4, 4), 8, 17, (96, 102, 114))


def _lightning(canvas: Canvas, rng: random.Random, free_x: float) -> None:
    for x in (10.0, 40.0, 70.0, 96.0):
        _cloud(canvas, x, 5, 16, (52, 54, 74))
    for x, size in ((free_x, 1.0), (100 - free_x, 0.7)):
        bolt = [(2, 8), (-7, 30), (-1, 30), (-9, 56), (8, 24), (2, 24), (8, 8)]
        canvas.poly([(x + dx * size * 1.25, dy * size + 2) for dx, dy in bolt], (255, 250, 170))


def _stars(canvas: Canvas, rng: random.Random, free_x: float) -> None:
    for index in range(12):
        canvas.disc(index * 9, 54 - index * 4.4 + rng.uniform(-4, 4), 5, (66, 62, 122))
    for _ in range(70):
        canvas.disc(rng.uniform(0, 100), rng.uniform(0, 62), rng.choice((0.4, 0.5, 0.8)), (255, 255, 240))
    for _ in range(9):
        canvas.poly(star_points(rng.uniform(3, 97), rng.uniform(2, 42), 2.9, 0.8, 4), (255, 255, 225))


def _moon(canvas: Canvas, rng: random.Random, free_x: float) -> None:
    canvas.disc(free_x, 17, 15, (50, 52, 84))
    canvas.disc(free_x, 17, 11, (250, 244, 208))
    for dx, dy, size in ((-3, -3, 2.4), (4, 2, 2), (-1, 5, 1.6)):
        canvas.disc(free_x + dx, 17 + dy, size, (220, 212, 170))
    canvas.oval(free_x + 6, 22, 13, 2.2, (52, 54, 84))


def _aurora(canvas: Canvas, rng: random.Random, free_x: float) -> None:
    for _ in range(30):
        canvas.disc(rng.uniform(0, 100), rng.uniform(0, 50), 0.5, (255, 255, 240))
    phase = rng.uniform(0, math.tau)
    for band, (colour, low) in enumerate((((60, 90, 170), 46), ((50, 190, 150), 38), ((110, 250, 150), 30))):
        for step in range(50):
            x = step * 2
            y = low - 8 + 7 * math.sin(x / 15 + phase + band)
            tall = 20 + 6 * math.sin(x / 7 + band)
            canvas.gradient_bar(x, x + 2, y - tall, y, shade(colour, 0.25), colour)


def _rainbow(canvas: Canvas, rng: random.Random, free_x: float) -> None:
    colours = ((235, 50, 50), (250, 150, 40), (250, 230, 70), (80, 190, 90), (60, 130, 230), (130, 80, 200))
    for index, colour in enumerate(colours):
        canvas.arc(50, 62, 58 - index * 3, 58 - index * 3, 180, 360, 3.2, colour)


def _sunset(canvas: Canvas, rng: random.Random, free_x: float) -> None:
    x = free_x + rng.uniform(-4, 4)
    canvas.disc(x, 44, 22, (255, 186, 96))
    canvas.disc(x, 44, 15, (255, 240, 170))
    for y in (14, 22, 30):
        canvas.oval(rng.uniform(10, 90), y, 20, 1.4, (226, 96, 86))


def _fireworks(canvas: Canvas, rng: random.Random, free_x: float) -> None:
    spots = ((free_x, 20, 18), (100 - free_x, 15, 14), (50, 30, 11))
    for index, (x, y, radius) in enumerate(spots):
        colour = _CONFETTI[(index * 2 + rng.randrange(6)) % 6]
        x += rng.uniform(-4, 4)
        for spoke in range(14):
            angle = math.tau * spoke / 14
            inner, outer = 0.25 * radius, radius
            dx, dy = math.cos(angle), math.sin(angle)
            canvas.line([(x + dx * inner, y + dy * inner), (x + dx * outer, y + dy * outer)], 1.0, colour)
            canvas.disc(x + dx * outer, y + dy * outer, 1.3, (255, 246, 200))
        canvas.disc(x, y, 2, (255, 255, 235))


def _rain(canvas: Canvas, rng: random.Random) -> None:
    for _ in range(52):
        x, y = rng.uniform(-4, 104), rng.uniform(-6, 100)
        canvas.line([(x, y), (x - 2.4, y + 9)], 0.8, (176, 206, 240))


def _snow(canvas: Canvas, rng: random.Random) -> None:
    for _ in range(60):
        canvas.disc(rng.uniform(0, 100), rng.uniform(0, 100), rng.choice((0.9, 1.2, 1.7)), (255, 255, 255))


def _fog(canvas: Canvas, rng: random.Random) -> None:
    for y0, y1, share in ((40, 56, 0.45), (56, 78, 0.6), (78, 100, 0.5)):
        shift = rng.uniform(-2, 2)
        canvas.veil((214, 218, 222), share, y0 + shift, min(100, y1 + shift))


def _confetti(canvas: Canvas, rng: random.Random) -> None:
    for _ in range(46):
        x, y = rng.uniform(0, 100), rng.uniform(0, 98)
        if abs(x - 50) < 34 and 30 < y < 84 and rng.random() < 0.75:
            continue
        dx, dy = rng.uniform(-2, 2), rng.uniform(0.8, 2)
        canvas.poly([(x - 1.3, y), (x + dx, y - dy), (x + 1.3, y + 0.6), (x + dx * 0.3, y + dy)], rng.choice(_CONFETTI))


def _flies(canvas: Canvas, rng: random.Random) -> None:
    for _ in range(13):
        x, y = rng.uniform(3, 97), rng.uniform(3, 92)
        canvas.oval(x - 1.7, y - 1.4, 1.9, 1.0, (222, 230, 236))
        canvas.oval(x + 1.7, y - 1.4, 1.9, 1.0, (222, 230, 236))
        canvas.oval(x, y, 1.3, 1.9, (18, 20, 22))
        canvas.disc(x, y - 1.8, 0.9, (90, 20, 20))


def _smoke(canvas: Canvas, rng: random.Random) -> None:
    for start, lean in ((rng.uniform(2, 7), 1.0), (rng.uniform(93, 98), -1.0)):
        for step in range(9):
            grey = 58 + step * 11
            x = start + lean * 2.2 * math.sin(step * 1.3)
            canvas.disc(x, 98 - step * 10, 6.5 - 0.35 * step, (grey, grey, grey))


_BACK = {
    "clouds": _clouds, "rain": _rain_clouds, "lightning": _lightning, "stars": _stars, "moon": _moon, "aurora": _aurora,
    "rainbow": _rainbow, "sunset": _sunset, "fireworks": _fireworks,
}  # fmt: skip
_FRONT = {"rain": _rain, "snow": _snow, "fog": _fog, "confetti": _confetti, "flies": _flies, "smoke": _smoke}
