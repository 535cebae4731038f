"""Objects: each painter draws its thing around (0, 0) in a box from -1 to 1, through a `Placed` canvas."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from lavis_emovit.sample_set.canvas import Canvas, Colour, Point, shade

INK: Colour = (32, 28, 32)
WHITE: Colour = (250, 250, 250)


class Placed:
    """A canvas seen from an object's own coordinates: -1..1, y downwards, centred at (x, y) with half-height `size`."""

    def __init__(self, canvas: Canvas, x: float, y: float, size: float, mirrored: bool = False):
        self.canvas, self.x, self.y, self.size = canvas, x, y, size
        self.sign = -1 if mirrored else 1

    def _at(self, points: Sequence[Point]) -> list[Point]:
        return [(self.x + self.sign * px * self.size, self.y + py * self.size) for px, py in points]

    def oval(self, x: float, y: float, radius_x: float, radius_y: float, colour: Colour) -> None:
        """A filled ellipse."""
        ((at_x, at_y),) = self._at([(x, y)])
        self.canvas.oval(at_x, at_y, radius_x * self.size, radius_y * self.size, colour)

    def ring(self, x: float, y: float, radius_x: float, radius_y: float, width: float, colour: Colour) -> None:
        """The outline of an ellipse."""
        ((at_x, at_y),) = self._at([(x, y)])
        self.canvas.ring(at_x, at_y, radius_x * self.size, radius_y * self.size, width * self.size, colour)

    def rect(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, radius: float = 0.0) -> None:
        """A filled rectangle."""
        (first, second) = self._at([(x0, y0), (x1, y1)])
        self.canvas.rect(first[0], first[1], second[0], second[1], colour, radius * self.size)

    def poly(self, points: Sequence[Point], colour: Colour) -> None:
        """A filled polygon."""
        self.canvas.poly(self._at(points), colour)

    def line(self, points: Sequence[Point], width: float, colour: Colour, round_ends: bool = True) -> None:
        """A line through points."""
        self.canvas.line(self._at(points), width * self.size, colour, round_ends)

    def dome(self, x: float, y: float, radius_x: float, radius_y: float, colour: Colour, upper: bool = True) -> None:
        """The upper or lower half of a filled ellipse."""
        ((at_x, at_y),) = self._at([(x, y)])
        start, end = (180, 360) if upper else (0, 180)
        self.canvas.pie(at_x, at_y, radius_x * self.size, radius_y * self.size, start, end, colour)


def balloon(p: Placed) -> None:
    """Three balloons on strings."""
    for x, y, colour in ((-0.5, -0.3, (232, 50, 60)), (0.5, -0.35, (50, 120, 235)), (0.0, -0.6, (250, 205, 50))):
        p.line([(x, y + 0.4), (0.0, 1.0)], 0.03, INK, round_ends=False)
        p.oval(x, y, 0.36, 0.42, colour)
        p.oval(x - 0.12, y - 0.15, 0.08, 0.11, WHITE)


def ice_cream(p: Placed) -> None:
    """A cone with three scoops."""
    p.poly([(-0.4, -0.05), (0.4, -0.05), (0, 1)], (214, 152, 76))
    p.line([(-0.25, 0.1), (0.12, 0.65)], 0.05, (160, 100, 44))
    p.line([(0.25, 0.1), (-0.12, 0.65)], 0.05, (160, 100, 44))
    for x, y, colour in ((-0.25, -0.2, (250, 160, 186)), (0.25, -0.2, (126, 74, 44)), (0, -0.55, (250, 244, 206))):
        p.oval(x, y, 0.36, 0.34, colour)
    p.oval(0, -0.9, 0.1, 0.1, (220, 30, 50))


def teddy_bear(p: Placed) -> None:
    """A sitting toy bear."""
    fur, light = (172, 112, 62), (226, 184, 132)
    for x in (-1.0, 1.0):
        p.oval(x * 0.4, -0.85, 0.2, 0.2, fur)
        p.oval(x * 0.4, -0.85, 0.1, 0.1, light)
        p.oval(x * 0.62, 0.25, 0.22, 0.32, fur)
        p.oval(x * 0.45, 0.8, 0.27, 0.24, fur)
        p.oval(x * 0.45, 0.82, 0.14, 0.13, light)
    p.oval(0, 0.38, 0.55, 0.58, fur)
    p.oval(0, 0.45, 0.34, 0.38, light)
    p.oval(0, -0.45, 0.52, 0.48, fur)
    p.oval(0, -0.3, 0.24, 0.2, light)
    p.oval(0, -0.38, 0.09, 0.07, INK)
    for x in (-0.2, 0.2):
        p.oval(x, -0.58, 0.07, 0.08, INK)


def duck(p: Placed) -> None:
    """A yellow bath duck."""
    yellow = (252, 214, 40)
    p.oval(-0.1, 0.4, 0.8, 0.5, yellow)
    p.poly([(-0.7, 0.3), (-1.0, -0.15), (-0.45, 0.05)], yellow)
    p.oval(0.4, -0.35, 0.46, 0.46, yellow)
    p.poly([(0.78, -0.42), (1.1, -0.28), (0.76, -0.12)], (245, 120, 30))
    p.oval(0.52, -0.48, 0.1, 0.11, INK)
    p.oval(0.54, -0.51, 0.04, 0.04, WHITE)
    p.oval(-0.2, 0.35, 0.4, 0.26, (226, 180, 24))


def eagle(p: Placed) -> None:
    """A large bird with spread wings."""
    brown = (86, 56, 34)
    for side in (-1, 1):
        p.poly([(0, -0.05), (side * 0.5, -0.5), (side * 1.25, -0.55), (side * 1.1, -0.25), (side * 0.95, 0.1),
                (side * 0.75, 0.05), (side * 0.6, 0.3), (side * 0.4, 0.2), (0, 0.35)], brown)  # fmt: skip
    p.oval(0, 0.1, 0.2, 0.42, shade(brown, 1.2))
    p.poly([(-0.14, 0.4), (0.14, 0.4), (0.26, 0.8), (-0.26, 0.8)], WHITE)
    p.oval(0, -0.38, 0.18, 0.2, WHITE)
    p.poly([(-0.06, -0.35), (0.06, -0.35), (0, -0.16)], (250, 190, 40))


def whale(p: Placed) -> None:
    """A whale with a water spout."""
    blue = (60, 96, 150)
    for x, y in ((-0.75, -0.75), (-0.45, -0.95), (-0.15, -0.75)):
        p.line([(-0.45, -0.35), (-0.45, -0.7), (x, y)], 0.07, (190, 226, 250))
    p.oval(-0.2, 0.25, 0.85, 0.58, blue)
    p.poly([(0.4, 0.05), (0.95, -0.35), (0.95, -0.1), (0.45, 0.6)], blue)
    p.poly([(0.85, -0.2), (1.2, -0.75), (0.98, -0.5), (0.62, -0.7), (0.78, -0.3)], blue)
    p.dome(-0.25, 0.42, 0.72, 0.38, (222, 232, 240), upper=False)
    p.oval(-0.68, 0.12, 0.07, 0.07, INK)


def elephant(p: Placed) -> None:
    """A grey elephant from the side."""
    grey = (146, 148, 160)
    for x in (-0.65, -0.3, 0.15, 0.45):
        p.rect(x - 0.13, 0.2, x + 0.13, 0.95, shade(grey, 0.9))
    p.oval(-0.1, 0.05, 0.8, 0.55, grey)
    p.oval(0.65, -0.25, 0.4, 0.4, grey)
    p.line([(0.95, -0.2), (1.08, 0.3), (0.92, 0.75)], 0.18, grey)
    p.oval(0.42, -0.25, 0.28, 0.4, shade(grey, 0.78))
    p.line([(0.85, 0.05), (1.02, 0.15)], 0.09, WHITE)
    p.oval(0.78, -0.35, 0.06, 0.06, INK)


def lighthouse(p: Placed) -> None:
    """A red and white tower with a lamp."""
    p.poly([(-1.1, -1.0), (0, -0.68), (-1.1, -0.5)], (255, 246, 170))
    p.poly([(-0.28, -0.5), (0.28, -0.5), (0.42, 1), (-0.42, 1)], WHITE)
    for y in (-0.4, 0.1, 0.6):
        half = 0.28 + 0.14 * (y + 0.5) / 1.5
        p.poly([(-half, y), (half, y), (half + 0.03, y + 0.24), (-half - 0.03, y + 0.24)], (214, 42, 48))
    p.rect(-0.36, -0.55, 0.36, -0.46, INK)
    p.rect(-0.2, -0.82, 0.2, -0.54, (255, 232, 120))
    p.poly([(-0.28, -0.82), (0.28, -0.82), (0, -1.05)], (214, 42, 48))


def cat(p: Placed) -> None:
    """A sitting cat with closed eyes."""
    fur = (228, 150, 70)
    p.line([(0.45, 0.8), (0.85, 0.65), (0.8, 0.15)], 0.18, shade(fur, 0.85))
    p.oval(0, 0.45, 0.52, 0.58, fur)
    for side in (-1, 1):
        p.poly([(side * 0.12, -0.65), (side * 0.5, -0.95), (side * 0.52, -0.35)], fur)
        p.oval(side * 0.22, 0.95, 0.17, 0.1, shade(fur, 1.15))
    p.oval(0, -0.35, 0.52, 0.44, fur)
    for side in (-1, 1):
        p.line([(side * 0.34, -0.42), (side * 0.23, -0.35), (side * 0.12, -0.42)], 0.06, INK)
        p.line([(side * 0.3, -0.18), (side * 0.72, -0.22)], 0.03, WHITE)
        p.line([(side * 0.3, -0.12), (side * 0.7, -0.06)], 0.03, WHITE)
    p.poly([(-0.07, -0.24), (0.07, -0.24), (0, -0.16)], (214, 90, 100))
    for y in (0.2, 0.4, 0.6):
        p.line([(0.28, y), (0.48, y)], 0.06, shade(fur, 0.7))


def flower(p: Placed) -> None:
    """Three flowers in a pot."""
    p.poly([(-0.45, 0.45), (0.45, 0.45), (0.32, 1), (-0.32, 1)], (190, 96, 60))
    for x, y, colour in ((-0.48, -0.2, (236, 80, 130)), (0.48, -0.15, (250, 170, 50)), (0, -0.55, (255, 250, 250))):
        p.line([(0, 0.5), (x, y)], 0.07, (56, 136, 60))
        for index in range(6):
            angle = math.tau * index / 6
            p.oval(x + 0.22 * math.cos(angle), y + 0.22 * math.sin(angle), 0.15, 0.15, colour)
        p.oval(x, y, 0.13, 0.13, (252, 206, 60))


def teapot(p: Placed) -> None:
    """A tea pot with steam, and a cup."""
    china = (92, 150, 196)
    p.ring(-0.75, 0.25, 0.26, 0.3, 0.1, china)
    p.poly([(0.4, 0.2), (0.9, -0.25), (1.0, -0.15), (0.5, 0.6)], china)
    p.oval(-0.1, 0.35, 0.68, 0.55, china)
    p.oval(-0.1, -0.14, 0.36, 0.12, shade(china, 0.8))
    p.oval(-0.1, -0.28, 0.1, 0.1, shade(china, 0.7))
    p.oval(-0.25, 0.3, 0.14, 0.14, WHITE)
    p.oval(0.1, 0.45, 0.11, 0.11, WHITE)
    for x in (0.85, 1.05):
        p.line([(x, -0.35), (x + 0.1, -0.55), (x - 0.05, -0.75), (x + 0.05, -0.95)], 0.05, WHITE)


def butterfly(p: Placed) -> None:
    """A butterfly with open wings."""
    for side in (-1, 1):
        p.oval(side * 0.5, -0.35, 0.46, 0.46, (245, 150, 40))
        p.oval(side * 0.42, 0.42, 0.34, 0.36, (250, 190, 70))
        p.oval(side * 0.55, -0.38, 0.2, 0.22, (110, 70, 190))
        p.oval(side * 0.44, 0.45, 0.14, 0.14, (110, 70, 190))
        p.line([(0, -0.6), (side * 0.25, -1.0)], 0.05, INK)
    p.oval(0, 0, 0.1, 0.62, INK)


def guitar(p: Placed) -> None:
    """An upright guitar."""
    p.rect(-0.09, -1.0, 0.09, 0.2, (92, 56, 30))
    p.rect(-0.16, -1.05, 0.16, -0.8, (60, 36, 22))
    p.oval(0, 0.12, 0.4, 0.36, (206, 110, 40))
    p.oval(0, 0.58, 0.52, 0.44, (206, 110, 40))
    p.oval(0, 0.3, 0.17, 0.17, (50, 28, 18))
    p.rect(-0.2, 0.66, 0.2, 0.74, (60, 36, 22))


def drum(p: Placed) -> None:
    """A drum with two sticks."""
    p.rect(-0.75, -0.15, 0.75, 0.7, (220, 44, 54))
    p.oval(0, 0.7, 0.75, 0.24, (220, 44, 54))
    for x in (-0.6, -0.2, 0.2, 0.6):
        p.line([(x - 0.1, 0.0), (x + 0.1, 0.85)], 0.05, (250, 210, 60))
    p.oval(0, -0.15, 0.78, 0.27, (250, 210, 60))
    p.oval(0, -0.17, 0.68, 0.2, (250, 248, 238))
    p.line([(-0.1, -0.2), (-0.75, -0.9)], 0.09, (160, 100, 50))
    p.line([(0.15, -0.18), (0.8, -0.85)], 0.09, (160, 100, 50))


def flag(p: Placed) -> None:
    """A waving flag on a pole."""
    p.line([(-0.6, 1.0), (-0.6, -1.0)], 0.1, (150, 110, 70))
    for index, colour in enumerate(((226, 46, 56), WHITE, (44, 96, 214))):
        y = -0.95 + index * 0.34
        p.poly([(-0.55, y), (0.0, y + 0.12), (0.5, y - 0.04), (1.0, y + 0.08), (1.0, y + 0.42), (0.5, y + 0.3),
                (0.0, y + 0.46), (-0.55, y + 0.34)], colour)  # fmt: skip


def cake(p: Placed) -> None:
    """A cake with burning candles."""
    p.rect(-0.85, 0.4, 0.85, 0.9, (240, 150, 170), radius=0.08)
    p.rect(-0.6, -0.05, 0.6, 0.45, (250, 236, 206), radius=0.08)
    for x in (-0.6, -0.3, 0.0, 0.3, 0.6):
        p.oval(x, 0.42, 0.16, 0.12, WHITE)
    for x, colour in ((-0.35, (60, 130, 230)), (0.0, (70, 180, 90)), (0.35, (230, 60, 70))):
        p.rect(x - 0.06, -0.5, x + 0.06, -0.05, colour)
        p.oval(x, -0.66, 0.1, 0.17, (255, 200, 40))
    p.oval(0, 0.93, 1.0, 0.1, (214, 218, 226))


def bull(p: Placed) -> None:
    """A bull's head from the front, with horns and a nose ring."""
    dark = (86, 44, 32)
    for side in (-1, 1):
        p.line([(side * 0.4, -0.45), (side * 0.95, -0.55), (side * 1.0, -1.0)], 0.17, (240, 230, 206))
        p.poly([(side * 0.45, -0.35), (side * 1.0, -0.2), (side * 0.5, 0.0)], dark)
    p.poly([(-0.55, -0.65), (0.55, -0.65), (0.42, 0.5), (-0.42, 0.5)], dark)
    p.oval(0, 0.55, 0.5, 0.4, (150, 96, 80))
    for side in (-1, 1):
        p.oval(side * 0.2, 0.5, 0.1, 0.08, INK)
        p.oval(side * 0.28, -0.2, 0.13, 0.12, (250, 60, 40))
        p.oval(side * 0.26, -0.19, 0.05, 0.06, INK)
        p.line([(side * 0.1, -0.25), (side * 0.45, -0.45)], 0.1, INK)
    p.ring(0, 0.82, 0.17, 0.16, 0.07, (236, 200, 70))


def axe(p: Placed) -> None:
    """An axe with a wooden handle."""
    p.line([(-0.5, 1.0), (0.25, -0.8)], 0.16, (150, 98, 54))
    p.poly([(0.0, -0.8), (0.42, -0.62), (0.28, -0.22), (-0.15, -0.4)], (110, 114, 122))
    p.poly([(0.42, -0.62), (0.98, -0.72), (0.66, 0.22), (0.28, -0.22)], (196, 202, 210))


def stop_sign(p: Placed) -> None:
    """A red eight-cornered sign on a pole."""
    p.rect(-0.06, 0.2, 0.06, 1.0, (130, 132, 138))
    for radius, colour in ((0.78, WHITE), (0.7, (214, 28, 36))):
        corners = [
            (radius * math.cos(math.pi * (2 * k + 1) / 8), -0.28 + radius * math.sin(math.pi * (2 * k + 1) / 8))
            for k in range(8)
        ]
        p.poly(corners, colour)
    p.rect(-0.5, -0.4, 0.5, -0.16, WHITE)


def fire(p: Placed) -> None:
    """High flames."""
    p.poly([(-0.8, 0.9), (-0.85, 0.2), (-0.6, -0.35), (-0.45, 0.05), (-0.25, -1.0), (0.05, -0.25), (0.35, -0.8),
            (0.5, -0.05),             (0.75, -0.4), (0.85, 0.3), (0.75, 0.9)], (236, 60, 20))  # fmt: skip
    p.poly(
        [(-0.5, 0.9), (-0.55, 0.35), (-0.3, 0.2), (-0.15, -0.45), (0.1, 0.15), (0.35, -0.2), (0.55, 0.35), (0.5, 0.9)],
        (255, 150, 30),
    )
    p.poly([(-0.28, 0.9), (-0.25, 0.45), (-0.02, 0.1), (0.22, 0.45), (0.28, 0.9)], (255, 232, 100))
    p.line([(-0.8, 0.95), (0.8, 0.88)], 0.16, (84, 54, 34))


def worm(p: Placed) -> None:
    """Worms that crawl over one another."""
    for points, colour in (
        ([(-0.9, 0.7), (-0.6, 0.3), (-0.2, 0.6), (0.2, 0.3), (0.6, 0.55), (0.85, 0.15)], (222, 130, 130)),
        ([(-0.75, -0.1), (-0.4, -0.45), (0.0, -0.1), (0.35, -0.45), (0.7, -0.2)], (206, 110, 116)),
        ([(-0.6, 0.95), (-0.1, 0.85), (0.3, 0.95), (0.75, 0.8)], (232, 150, 140)),
    ):
        p.line(points, 0.27, shade(colour, 0.6))
        p.line(points, 0.21, colour)
        p.oval(points[-1][0] + 0.02, points[-1][1] - 0.03, 0.04, 0.04, INK)


def waste_container(p: Placed) -> None:
    """An overfull waste bin that drips."""
    for x, y, size, colour in (
        (-0.4, -0.4, 0.32, (52, 56, 60)),
        (0.35, -0.42, 0.34, (110, 98, 50)),
        (0, -0.6, 0.28, (64, 70, 60)),
    ):
        p.oval(x, y, size, size, colour)
    p.line([(0.15, -0.75), (0.5, -0.95), (0.75, -0.7)], 0.1, (220, 200, 70))
    p.poly([(-0.75, -0.3), (0.75, -0.3), (0.58, 1), (-0.58, 1)], (84, 116, 96))
    for x in (-0.4, 0.0, 0.4):
        p.line([(x * 1.05, -0.15), (x * 0.85, 0.9)], 0.06, (56, 82, 66), round_ends=False)
    p.line([(-0.55, -0.3), (-0.5, 0.3)], 0.12, (150, 176, 50))
    p.line([(0.3, -0.3), (0.3, 0.1)], 0.1, (150, 176, 50))
    p.rect(-0.82, -0.36, 0.82, -0.22, (66, 92, 76))


def toilet(p: Placed) -> None:
    """A toilet with brown stains."""
    china = (238, 240, 236)
    p.rect(-0.6, -0.95, 0.2, -0.2, china, radius=0.06)
    p.rect(-0.66, -1.02, 0.26, -0.88, shade(china, 0.85))
    p.oval(0.15, 0.0, 0.78, 0.24, shade(china, 0.8))
    p.oval(0.15, -0.02, 0.6, 0.16, (120, 112, 52))
    p.poly([(-0.62, 0.02), (0.92, 0.02), (0.5, 0.62), (0.42, 1.0), (-0.4, 1.0), (-0.4, 0.6)], china)
    for x, length in ((-0.25, 0.4), (0.2, 0.6), (0.5, 0.3)):
        p.line([(x, 0.12), (x - 0.03, 0.12 + length)], 0.1, (150, 130, 60))


def snail(p: Placed) -> None:
    """A snail with slime behind it."""
    p.rect(-1.1, 0.82, 0.6, 0.95, (190, 214, 110), radius=0.06)
    p.line([(-0.75, 0.75), (0.55, 0.75), (0.8, 0.2)], 0.26, (196, 176, 110))
    for x in (0.72, 0.95):
        p.line([(0.8, 0.2), (x, -0.25)], 0.07, (196, 176, 110))
        p.oval(x, -0.3, 0.08, 0.08, INK)
    p.oval(-0.15, 0.2, 0.58, 0.58, (140, 84, 46))
    p.ring(-0.12, 0.24, 0.4, 0.4, 0.09, (214, 160, 96))
    p.ring(-0.1, 0.28, 0.2, 0.2, 0.09, (214, 160, 96))


def fish_bone(p: Placed) -> None:
    """The bones of a fish with its head, on green slime."""
    p.oval(0, 0.45, 1.0, 0.42, (130, 150, 60))
    bone = (240, 238, 220)
    p.line([(-0.5, 0.1), (0.7, 0.1)], 0.08, bone)
    for x in (-0.2, 0.05, 0.3, 0.52):
        p.line([(x - 0.08, -0.25), (x, 0.1), (x - 0.08, 0.45)], 0.06, bone)
    p.poly([(0.65, 0.1), (1.0, -0.2), (0.92, 0.1), (1.0, 0.4)], bone)
    p.poly([(-0.4, -0.3), (-1.0, 0.12), (-0.4, 0.5)], (170, 180, 150))
    p.line([(-0.72, -0.08), (-0.6, 0.04)], 0.06, INK)
    p.line([(-0.6, -0.08), (-0.72, 0.04)], 0.06, INK)


def spider(p: Placed) -> None:
    """A black spider with eight long legs, on a thread."""
    p.line([(0, -1.3), (0, -0.3)], 0.03, (220, 220, 224), round_ends=False)
    for side in (-1, 1):
        for knee_y, foot_y, reach in ((-0.65, -0.15, 0.75), (-0.4, 0.25, 0.95), (-0.05, 0.7, 0.9), (0.2, 1.0, 0.6)):
            p.line(
                [(side * 0.2, 0.05), (side * 0.62 * reach, knee_y), (side * 1.05 * reach, foot_y)], 0.08, (20, 16, 20)
            )
    p.oval(0, 0.3, 0.44, 0.48, (26, 20, 26))
    p.oval(0, -0.2, 0.28, 0.26, (26, 20, 26))
    p.poly([(-0.12, 0.2), (0.12, 0.2), (-0.12, 0.5), (0.12, 0.5)], (220, 36, 40))
    for x in (-0.1, 0.1):
        p.oval(x, -0.25, 0.07, 0.07, (250, 70, 60))


def skull(p: Placed) -> None:
    """A white skull."""
    bone = (238, 234, 216)
    p.rect(-0.42, 0.2, 0.42, 0.92, bone, radius=0.12)
    p.oval(0, -0.2, 0.72, 0.7, bone)
    for side in (-1, 1):
        p.oval(side * 0.3, -0.12, 0.22, 0.24, INK)
    p.poly([(0, 0.18), (0.11, 0.4), (-0.11, 0.4)], INK)
    for x in (-0.26, -0.09, 0.09, 0.26):
        p.line([(x, 0.58), (x, 0.9)], 0.05, INK)


def snake(p: Placed) -> None:
    """A coiled snake with its head up and a forked tongue."""
    green = (92, 150, 50)
    for y, width in ((0.8, 0.85), (0.5, 0.65), (0.22, 0.45)):
        p.oval(0, y, width, 0.22, shade(green, 0.6))
        p.oval(0, y - 0.04, width - 0.05, 0.17, green)
        for x in (-0.5, 0.0, 0.5):
            p.oval(x * width, y - 0.02, 0.08, 0.08, (236, 206, 70))
    p.line([(0.2, 0.2), (0.45, -0.2), (0.1, -0.6)], 0.26, green)
    p.oval(-0.05, -0.7, 0.36, 0.24, green)
    p.line([(-0.38, -0.68), (-0.65, -0.65)], 0.05, (220, 30, 40))
    p.line([(-0.65, -0.65), (-0.82, -0.76)], 0.04, (220, 30, 40))
    p.line([(-0.65, -0.65), (-0.82, -0.54)], 0.04, (220, 30, 40))
    p.oval(-0.12, -0.78, 0.09, 0.09, (250, 230, 60))
    p.oval(-0.13, -0.78, 0.03, 0.08, INK)


def bat(p: Placed) -> None:
    """A bat with spread wings, red eyes and teeth."""
    dark = (44, 36, 54)
    for side in (-1, 1):
        p.poly([(side * 0.15, -0.15), (side * 0.55, -0.6), (side * 1.25, -0.4), (side * 1.1, 0.3), (side * 0.85, 0.05),
                (side * 0.65, 0.4), (side * 0.42, 0.12), (side * 0.15, 0.4)], dark)  # fmt: skip
        p.poly([(side * 0.06, -0.45), (side * 0.3, -0.85), (side * 0.3, -0.3)], dark)
    p.oval(0, 0.1, 0.24, 0.46, shade(dark, 1.3))
    p.oval(0, -0.3, 0.28, 0.27, shade(dark, 1.3))
    for side in (-1, 1):
        p.oval(side * 0.11, -0.34, 0.07, 0.08, (250, 60, 50))
        p.poly([(side * 0.03, -0.16), (side * 0.13, -0.16), (side * 0.08, 0.0)], WHITE)


def ghost(p: Placed) -> None:
    """A white ghost with black eyes and an open mouth."""
    sheet = (236, 240, 248)
    p.dome(0, -0.3, 0.62, 0.7, sheet)
    p.rect(-0.62, -0.32, 0.62, 0.75, sheet)
    for x in (-0.41, 0.0, 0.41):
        p.oval(x, 0.75, 0.21, 0.2, sheet)
    for side in (-1, 1):
        p.line([(side * 0.5, 0.1), (side * 0.95, -0.25)], 0.24, sheet)
        p.oval(side * 0.24, -0.35, 0.14, 0.2, INK)
    p.oval(0, 0.12, 0.17, 0.26, INK)


def umbrella(p: Placed) -> None:
    """An open black umbrella."""
    p.line([(0, -0.2), (0, 0.8), (0.1, 0.95), (0.25, 0.85)], 0.09, (90, 66, 46))
    p.dome(0, 0.05, 0.98, 0.95, (56, 60, 78))
    for x in (-0.66, 0.0, 0.66):
        p.dome(x, 0.06, 0.33, 0.16, (90, 96, 118))
    p.line([(0, -0.9), (0, -1.05)], 0.07, INK)


def candle(p: Placed) -> None:
    """A burning candle with wax that ran down."""
    p.oval(0, 0.92, 0.6, 0.14, (150, 120, 70))
    p.rect(-0.26, -0.3, 0.26, 0.9, (244, 240, 226), radius=0.05)
    p.line([(-0.2, -0.2), (-0.2, 0.2)], 0.1, (224, 218, 196))
    p.line([(0.16, -0.2), (0.16, 0.05)], 0.1, (224, 218, 196))
    p.line([(0, -0.3), (0, -0.45)], 0.05, INK)
    p.oval(0, -0.68, 0.16, 0.3, (250, 170, 40))
    p.oval(0, -0.6, 0.08, 0.17, (255, 240, 150))


def suitcase(p: Placed) -> None:
    """A packed brown suitcase."""
    p.ring(0, -0.5, 0.3, 0.3, 0.1, (70, 46, 30))
    p.rect(-0.9, -0.4, 0.9, 0.85, (140, 90, 54), radius=0.12)
    for x in (-0.5, 0.5):
        p.rect(x - 0.1, -0.4, x + 0.1, 0.85, (96, 58, 34))
        p.rect(x - 0.12, -0.05, x + 0.12, 0.1, (226, 190, 90))


def wheelchair(p: Placed) -> None:
    """An empty wheelchair from the side."""
    p.line([(-0.6, -0.8), (-0.4, -0.75), (-0.35, 0.15), (0.45, 0.15), (0.6, 0.75), (0.9, 0.75)], 0.1, (96, 102, 112))
    p.rect(-0.48, -0.65, -0.28, 0.12, (40, 52, 84))
    p.rect(-0.4, 0.02, 0.5, 0.2, (40, 52, 84))
    p.line([(-0.35, -0.2), (0.4, -0.2), (0.42, 0.1)], 0.08, (96, 102, 112))
    p.ring(-0.2, 0.42, 0.54, 0.54, 0.09, INK)
    for angle in (0.3, 1.35, 2.4):
        dx, dy = 0.5 * math.cos(angle), 0.5 * math.sin(angle)
        p.line([(-0.2 - dx, 0.42 - dy), (-0.2 + dx, 0.42 + dy)], 0.03, (150, 154, 160))
    p.ring(0.55, 0.82, 0.16, 0.16, 0.08, INK)


def wilted_rose(p: Placed) -> None:
    """A rose with a bent stem and fallen petals."""
    stem = (96, 110, 60)
    p.line([(-0.35, 1.0), (-0.3, 0.1), (-0.15, -0.5), (0.2, -0.75), (0.5, -0.5), (0.55, -0.3)], 0.09, stem)
    p.poly([(-0.3, 0.3), (-0.8, 0.35), (-0.75, 0.65), (-0.4, 0.45)], (128, 124, 66))
    p.poly([(-0.25, 0.0), (0.15, 0.2), (0.2, 0.5), (-0.1, 0.3)], (128, 124, 66))
    for dx, dy, size in ((-0.18, 0.0, 0.22), (0.18, 0.0, 0.22), (0.0, 0.14, 0.24), (0.0, -0.04, 0.2)):
        p.oval(0.56 + dx, -0.08 + dy, size, size * 1.1, (136, 40, 56))
    p.oval(0.56, 0.02, 0.12, 0.13, (92, 24, 40))
    for x, y in ((0.4, 0.85), (0.75, 0.95), (0.1, 0.95)):
        p.oval(x, y, 0.13, 0.07, (136, 40, 56))


def bench(p: Placed) -> None:
    """An empty park bench."""
    wood = (150, 104, 62)
    for x in (-0.75, 0.75):
        p.line([(x, -0.55), (x, 0.9)], 0.12, (60, 60, 66))
    for y in (-0.5, -0.2):
        p.rect(-1.0, y, 1.0, y + 0.2, wood)
    p.rect(-1.0, 0.2, 1.0, 0.42, shade(wood, 1.15))


def car(p: Placed) -> None:
    """A red car from the side."""
    red = (206, 40, 44)
    p.poly([(-0.6, 0.05), (-0.38, -0.4), (0.3, -0.4), (0.62, 0.05)], shade(red, 0.8))
    p.poly([(-0.45, 0.02), (-0.3, -0.3), (-0.05, -0.3), (-0.05, 0.02)], (190, 220, 240))
    p.poly([(0.03, 0.02), (0.03, -0.3), (0.24, -0.3), (0.46, 0.02)], (190, 220, 240))
    p.rect(-1.05, 0.0, 1.05, 0.5, red, radius=0.14)
    p.rect(0.9, 0.12, 1.06, 0.26, (255, 240, 150))
    for x in (-0.58, 0.58):
        p.oval(x, 0.5, 0.25, 0.25, INK)
        p.oval(x, 0.5, 0.11, 0.11, (190, 192, 198))


def tree(p: Placed) -> None:
    """A green tree."""
    p.rect(-0.13, 0.1, 0.13, 1.0, (104, 68, 40))
    for x, y, size in ((-0.42, -0.05, 0.42), (0.42, -0.05, 0.42), (0.0, -0.5, 0.48), (0.0, 0.0, 0.4)):
        p.oval(x, y, size, size, (62, 138, 64))
    for x, y in ((-0.3, -0.3), (0.25, -0.5), (0.35, 0.0)):
        p.oval(x, y, 0.16, 0.12, (92, 168, 84))


OBJECT_PAINTERS: dict[str, Callable[[Placed], None]] = {
    "balloon": balloon, "ice cream": ice_cream, "teddy bear": teddy_bear, "duck": duck, "eagle": eagle, "whale": whale,
    "elephant": elephant, "lighthouse": lighthouse, "cat": cat, "flower": flower, "teapot": teapot,
    "butterfly": butterfly, "guitar": guitar, "drum": drum, "flag": flag, "cake": cake, "bull": bull, "axe": axe,
    "stop sign": stop_sign, "fire": fire, "worm": worm, "waste container": waste_container, "toilet": toilet,
    "snail": snail, "fish bone": fish_bone, "spider": spider, "skull": skull, "snake": snake, "bat": bat,
    "ghost": ghost, "umbrella": umbrella, "candle": candle, "suitcase": suitcase, "wheelchair": wheelchair,
    "wilted rose": wilted_rose, "bench": bench, "car": car, "tree": tree,
}  # fmt: skip
# Flying and hanging things stand in the upper half of the picture.
HIGH_OBJECTS = frozenset({"balloon", "eagle", "butterfly", "bat", "spider", "ghost", "flag"})
