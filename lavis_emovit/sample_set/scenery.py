"""Drawings of places and of what is in the air, with functions for things that lines of data cannot draw."""

from __future__ import annotations

import math

from lavis_emovit.sample_set.canvas import Colour, mix, shade
from lavis_emovit.sample_set.drawing import DrawingFile, Frame

_BRIGHT: tuple[Colour, ...] = (
    (240, 60, 70), (60, 130, 240), (250, 210, 50), (70, 190, 90), (190, 80, 220), (250, 140, 40),
)  # fmt: skip


def ground(frame: Frame, colour: Colour, top: float) -> None:
    """Ground from a height to the lower edge."""
    frame.canvas.gradient(shade(colour, 1.1), shade(colour, 0.8), top, 100)


def backdrop(frame: Frame, colour: Colour) -> None:
    frame.canvas.gradient(shade(colour, 1.12), shade(colour, 0.84), 0, 100)


def room(frame: Frame, wall: Colour, floor: Colour, floor_top: float = 70) -> None:
    canvas = frame.canvas
    canvas.gradient(wall, shade(wall, 0.88), 0, floor_top)
    canvas.gradient(shade(floor, 0.85), floor, floor_top, 100)
    canvas.rect(shade(wall, 0.7), 0, floor_top - 1.5, 100, floor_top)


def wheel_and_tents(frame: Frame) -> None:
    """A big wheel with coloured cabins on one side, two striped tents on the other."""
    canvas, rng = frame.canvas, frame.rng
    x, y, radius = rng.choice((24, 76)), 38, 28
    cabins = ((230, 60, 60), (60, 130, 230), (250, 200, 50), (70, 180, 90), (170, 80, 200), (245, 140, 40))
    for foot in (x - 14, x + 14):
        canvas.line((120, 120, 140), [(x, y), (foot, 75)], 2.4)
    canvas.ring((245, 245, 250), x, y, radius, radius, 1.8)
    turn = rng.random()
    for index in range(10):
        angle = math.tau * (index + turn) / 10
        end = (x + radius * math.cos(angle), y + radius * math.sin(angle))
        canvas.line((235, 235, 240), [(x, y), end], 0.8)
        canvas.disc(cabins[index % 6], *end, 4.2)
    canvas.disc((250, 210, 60), x, y, 3)
    frame.at(100 - x, 76).draw(PLACES.part("large_tent"))
    frame.at(100 - x + (22 if x > 50 else -22), 77).draw(PLACES.part("small_tent"))


def falling_water(frame: Frame) -> None:
    for index in range(7):
        left = frame.x - 11 + index * 3.6
        points = [(left, 20 + frame.rng.uniform(0, 14)), (left + frame.rng.uniform(-1, 1), 80)]
        frame.canvas.line((150, 196, 232), points, 1.1)


def flower_beds(frame: Frame) -> None:
    canvas, rng = frame.canvas, frame.rng
    colours = ((236, 70, 110), (250, 210, 60), (180, 90, 220), (250, 140, 60), (255, 255, 255))
    for _ in range(26):
        x, y = rng.uniform(2, 98), rng.uniform(67, 96)
        if abs(x - 50) < 8 + (y - 64) * 0.4:
            continue
        canvas.line((50, 120, 50), [(x, y), (x, y + 4)], 0.9)
        canvas.disc(rng.choice(colours), x, y, 2.5)
        canvas.disc((250, 220, 80), x, y, 0.9)


def rows_of_people(frame: Frame) -> None:
    """The spectators of a stadium."""
    shirts = ((230, 60, 60), (60, 110, 220), (250, 210, 60), (245, 245, 245))
    for row in range(5):
        for column in range(17):
            x, y = column * 6.2 + (row % 2) * 3, 29 + row * 7.6
            frame.canvas.disc((236, 192, 156), x, y, 2.2)
            frame.canvas.rect(frame.rng.choice(shirts), x - 2.6, y + 2, x + 2.6, y + 5.4)


def breaking_wave(frame: Frame) -> None:
    """A high curling wave with foam, from the left or from the right."""
    flipped = Frame(frame.canvas, frame.rng, 100.0, mirrored=True)
    (flipped if frame.rng.random() < 0.5 else frame).draw(PLACES.part("breaker"))


def scattered_waste(frame: Frame) -> None:
    """Bags, tins, bottles and peel on heaps."""
    rng = frame.rng
    kinds = ("waste_bag", "waste_tin", "waste_bottle", "waste_peel", "waste_paper")
    for _ in range(30):
        x = rng.uniform(2, 98)
        y = rng.uniform(52 if abs(x - 50) > 22 else 68, 97)
        frame.at(x, y).draw(PLACES.part(kinds[rng.randrange(5)]))


def bricks_of_alley(frame: Frame) -> None:
    """The joints of the brick walls on both sides of an alley."""
    for step in range(1, 8):
        y = (0.26 + step * 0.09) * 110 - 14
        frame.canvas.line((64, 40, 36), [(0, y), (34, 26 + step * 5)], 0.7)
        frame.canvas.line((56, 34, 32), [(100, y), (66, 26 + step * 5)], 0.7)


def grave_stones(frame: Frame) -> None:
    canvas, rng, stone = frame.canvas, frame.rng, (172, 174, 180)
    graves = ((26, 66, 12), (52, 64, 12), (76, 67, 12), (12, 88, 19), (40, 90, 20), (66, 88, 19), (92, 90, 20))
    for place, base, size in graves:
        x = place + rng.uniform(-2, 2)
        if rng.random() < 0.35:
            canvas.rect(stone, x - 0.12 * size, base - 1.25 * size, x + 0.12 * size, base)
            canvas.rect(stone, x - 0.42 * size, base - 0.98 * size, x + 0.42 * size, base - 0.74 * size)
        else:
            canvas.rect(stone, x - 0.42 * size, base - 0.72 * size, x + 0.42 * size, base)
            canvas.pie(stone, x, base - 0.7 * size, 0.42 * size, 0.42 * size, 180, 360)
            for height in (0.6, 0.4):
                y = base - height * size
                canvas.line((110, 112, 118), [(x - 0.2 * size, y), (x + 0.2 * size, y)], 0.9)
        canvas.oval((66, 80, 64), x, base + 0.5, 0.6 * size, 1.6)


def sleepers(frame: Frame) -> None:
    """The sleepers of a railway, narrower towards the horizon."""
    for step in range(9):
        depth = (step + 1) / 9
        y, half = 50 + 50 * depth**1.8, 3 + 34 * depth**1.8
        frame.canvas.rect((78, 52, 36), frame.x - half, y - 3.4 * depth, frame.x + half, y)


def palm_and_parasol(frame: Frame) -> None:
    """A palm tree that leans towards a parasol on the other side."""
    canvas = frame.canvas
    x = frame.rng.choice((10, 90))
    lean = 6 if x < 50 else -6
    canvas.line((140, 98, 56), [(x, 84), (x + lean * 0.4, 56), (x + lean, 32)], 3)
    for dx, dy in ((-16, 4), (-13, -8), (2, -13), (14, -7), (17, 5), (-6, 10), (9, 11)):
        leaf = [(x + lean, 31), (x + lean + dx * 0.6, 29 + dy * 0.7), (x + lean + dx, 34 + dy)]
        canvas.stroke((52, 146, 66), leaf, 2.6)
    canvas.pie((230, 60, 70), 100 - x, 76, 13, 12, 180, 360)
    canvas.pie((255, 255, 255), 100 - x, 76, 5, 12, 180, 360)
    canvas.line((250, 250, 250), [(100 - x, 72), (100 - x, 88)], 1.2)


def row_of_houses(frame: Frame) -> None:
    canvas, rng = frame.canvas, frame.rng
    walls = ((186, 142, 118), (166, 166, 172), (206, 188, 150), (150, 120, 110), (136, 150, 166))
    left = -3.0
    while left < 100:
        width, top = rng.uniform(18, 26), rng.uniform(16, 36)
        canvas.rect(rng.choice(walls), left, top, left + width - 0.8, 72)
        y = top + 5
        while y < 60:
            for part in (0.16, 0.44, 0.72):
                canvas.rect((66, 82, 106), left + part * width, y, left + (part + 0.16) * width, y + 6)
            y += 11
        left += width


def stage_lights(frame: Frame) -> None:
    """Four beams, their colours in random order."""
    colours = [(255, 90, 170), (90, 190, 255), (255, 220, 80), (130, 255, 150)]
    frame.rng.shuffle(colours)
    for x, target, colour in zip((22, 42, 60, 80), (6, 62, 36, 92), colours):
        beam = [(x - 1, 0), (x + 1, 0), (target + 13, 78), (target - 13, 78)]
        frame.canvas.poly(shade(colour, 0.62), beam)
        frame.canvas.disc(colour, x, 2, 3.4)


def crowd_before_the_stage(frame: Frame) -> None:
    """Heads at the lower edge, some with a raised arm."""
    for index in range(11):
        x = index * 10 + frame.rng.uniform(-2, 2)
        frame.canvas.disc((28, 18, 34), x, 95, 5.4)
        if frame.rng.random() < 0.5:
            frame.canvas.stroke((28, 18, 34), [(x + 3, 96), (x + 5, 84)], 2.2)


def white_clouds(frame: Frame) -> None:
    for x, y in ((frame.x, 12), (100 - frame.x, 20), (50, 7)):
        cloud = frame.at(x + frame.rng.uniform(-6, 6), y, frame.rng.uniform(10, 14))
        cloud.draw(AIR.part("cloud", (252, 253, 255)))


def flashes(frame: Frame) -> None:
    """A large and a smaller flash of lightning."""
    for x, size in ((frame.x, 1.0), (100 - frame.x, 0.7)):
        bolt = ((2, 8), (-7, 30), (-1, 30), (-9, 56), (8, 24), (2, 24), (8, 8))
        frame.canvas.poly((255, 250, 170), [(x + dx * size * 1.25, dy * size + 2) for dx, dy in bolt])


def northern_lights(frame: Frame) -> None:
    """Three waving bands, each of narrow bars that fade upwards."""
    phase = frame.rng.uniform(0, math.tau)
    for band, (colour, low) in enumerate((((60, 90, 170), 46), ((50, 190, 150), 38), ((110, 250, 150), 30))):
        fading = [mix(shade(colour, 0.25), colour, step / 3) for step in range(4)]
        for x in range(0, 100, 2):
            y = low - 8 + 7 * math.sin(x / 15 + phase + band)
            top = y - (20 + 6 * math.sin(x / 7 + band))
            height = (y - top) / 4
            for step, bar in enumerate(fading):
                frame.canvas.rect(bar, x, top + step * height, x + 2, top + (step + 1) * height)


def fireworks(frame: Frame) -> None:
    """Three bursts, the largest at the origin of the frame."""
    canvas, rng = frame.canvas, frame.rng
    for index, (x, y, radius) in enumerate(((frame.x, 20, 18), (100 - frame.x, 15, 14), (50, 30, 11))):
        colour = _BRIGHT[(index * 2 + rng.randrange(6)) % 6]
        x += rng.uniform(-4, 4)
        inner = 0.25 * radius
        for spoke in range(14):
            angle = math.tau * spoke / 14
            dx, dy = math.cos(angle), math.sin(angle)
            end = (x + dx * radius, y + dy * radius)
            canvas.line(colour, [(x + dx * inner, y + dy * inner), end], 1.0)
            canvas.disc((255, 246, 200), *end, 1.3)
        canvas.disc((255, 255, 235), x, y, 2)


def fog(frame: Frame) -> None:
    for y0, y1, share in ((40, 56, 0.45), (56, 78, 0.6), (78, 100, 0.5)):
        shift = frame.rng.uniform(-2, 2)
        frame.canvas.veil((214, 218, 222), share, y0 + shift, min(100, y1 + shift))


def confetti(frame: Frame) -> None:
    """Falling paper in bright colours, less of it in the middle."""
    rng = frame.rng
    for _ in range(46):
        x, y = rng.uniform(0, 100), rng.uniform(0, 98)
        if abs(x - 50) < 34 and 30 < y < 84 and rng.random() < 0.75:
            continue
        dx, dy = rng.uniform(-2, 2), rng.uniform(0.8, 2)
        paper = [(x - 1.3, y), (x + dx, y - dy), (x + 1.3, y + 0.6), (x + dx * 0.3, y + dy)]
        frame.canvas.poly(rng.choice(_BRIGHT), paper)


def smoke(frame: Frame) -> None:
    for start, lean in ((frame.rng.uniform(2, 7), 1.0), (frame.rng.uniform(93, 98), -1.0)):
        for step in range(9):
            grey = 58 + step * 11
            x = start + lean * 2.2 * math.sin(step * 1.3)
            frame.canvas.disc((grey, grey, grey), x, 98 - step * 10, 6.5 - 0.35 * step)


PLACES = DrawingFile(
    "places", ground, backdrop, room, wheel_and_tents, falling_water, flower_beds, rows_of_people, breaking_wave,
    scattered_waste, bricks_of_alley, grave_stones, sleepers, palm_and_parasol, row_of_houses, stage_lights,
    crowd_before_the_stage,
)  # fmt: skip
AIR = DrawingFile("air", white_clouds, flashes, northern_lights, fireworks, fog, confetti, smoke)
