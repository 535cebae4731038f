"""A drawing surface in a coordinate system of 100 x 100 units, y downwards, whatever the image's size in pixels."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw, ImageStat

Colour = tuple[int, int, int]
Point = tuple[float, float]

TINTS: dict[str, Colour] = {
    "red": (225, 40, 35),
    "orange": (248, 140, 15),
    "yellow": (240, 225, 25),
    "green": (40, 185, 70),
    "blue": (30, 105, 240),
    "purple": (140, 45, 230),
    "grey": (128, 128, 128),
}
_LUMA = (0.299, 0.587, 0.114)


def luma(colour: Sequence[float]) -> float:
    """Perceived lightness of a colour, 0..255 (ITU-R BT.601)."""
    return sum(weight * value for weight, value in zip(_LUMA, colour))


@functools.lru_cache(maxsize=4096)
def mix(first: Colour, second: Colour, share: float) -> Colour:
    """A mixture of two colours, with `share` (0..1) of the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second))
    return red, green, blue


@functools.lru_cache(maxsize=4096)
def shade(colour: Colour, factor: float) -> Colour:
    """`colour` made darker (factor < 1) or lighter (factor > 1)."""
    red, green, blue = (min(255, round(value * factor)) for value in colour)
    return red, green, blue


class Canvas:
    """Pillow's drawing calls in units of the canvas, with a colour matrix for everything drawn after `set_tone`.

    Shapes take their colour first, then their coordinates, lengths (`rx` and `ry` are the radii of an ellipse) and
    angles in degrees, clockwise from three o'clock.
    """

    def __init__(self, width_px: int):
        self._use(Image.new("RGB", (width_px, width_px)))
        self.scale = width_px / 100
        self._tone: Callable[[Colour], Colour] = lambda colour: colour

    def _use(self, image: Image.Image) -> None:
        self.image, self.pen = image, ImageDraw.Draw(image)

    def tone_background(self, mean_luma: float, saturation: float, tint: Colour, share: float) -> None:
        """Bring everything drawn so far to a mean lightness (0..255), a saturation and a colour cast."""
        mean = luma(ImageStat.Stat(self.image.reduce(8)).mean)
        # Lightening keeps the contrast up to a quarter more and adds the rest as an even lift.
        gain = min(mean_luma / max(mean, 1.0), 1.25)
        lift = max(0.0, mean_luma - gain * mean)
        self._use(self.image.convert("RGB", _tone_matrix(gain, lift, saturation, tint, share)))

    def set_tone(self, gain: float, lift: float, saturation: float, tint: Colour, share: float) -> None:
        """Tone all later drawing: lightness * `gain` + `lift`, saturation, and a `share` of the tint."""
        matrix = _tone_matrix(gain, lift, saturation, tint, share)
        self._tone = functools.cache(functools.partial(_toned, matrix))

    def _box(self, x: float, y: float, rx: float, ry: float) -> tuple[float, float, float, float]:
        scale = self.scale
        return (x - rx) * scale, (y - ry) * scale, (x + rx) * scale, (y + ry) * scale

    def _placed(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self.scale, y * self.scale) for x, y in points]

    def _width_px(self, width: float) -> int:
        return max(1, round(width * self.scale))

    def rect(self, colour: Colour, x0: float, y0: float, x1: float, y1: float, radius: float = 0.0) -> None:
        """A filled rectangle, with round corners where `radius` > 0."""
        scale = self.scale
        (left, right), (top, bottom) = sorted((x0, x1)), sorted((y0, y1))
        box = (left * scale, top * scale, right * scale, bottom * scale)
        if radius:
            self.pen.rounded_rectangle(box, radius * scale, fill=self._tone(colour))
        else:
            self.pen.rectangle(box, fill=self._tone(colour))

    def disc(self, colour: Colour, x: float, y: float, radius: float) -> None:
        self.pen.ellipse(self._box(x, y, radius, radius), fill=self._tone(colour))

    def oval(self, colour: Colour, x: float, y: float, rx: float, ry: float) -> None:
        self.pen.ellipse(self._box(x, y, rx, ry), fill=self._tone(colour))

    def ring(self, colour: Colour, x: float, y: float, rx: float, ry: float, width: float) -> None:
        """The outline of an ellipse."""
        self.pen.ellipse(self._box(x, y, rx, ry), outline=self._tone(colour), width=self._width_px(width))

    def arc(self, colour: Colour, x: float, y: float, rx: float, ry: float, width: float, *angles: float) -> None:
        """Part of the outline of an ellipse, between two angles."""
        start, end = angles
        self.pen.arc(self._box(x, y, rx, ry), start, end, fill=self._tone(colour), width=self._width_px(width))

    def pie(self, colour: Colour, x: float, y: float, rx: float, ry: float, start: float, end: float) -> None:
        """A filled slice of an ellipse."""
        self.pen.pieslice(self._box(x, y, rx, ry), start, end, fill=self._tone(colour))

    def chord(self, colour: Colour, x: float, y: float, rx: float, ry: float, start: float, end: float) -> None:
        """The part of a filled ellipse between an arc and its chord."""
        self.pen.chord(self._box(x, y, rx, ry), start, end, fill=self._tone(colour))

    def poly(self, colour: Colour, points: Sequence[Point]) -> None:
        self.pen.polygon(self._placed(points), fill=self._tone(colour))

    def star(self, colour: Colour, x: float, y: float, outer: float, inner: float) -> None:
        """A star with four spikes."""
        angles = [math.pi * corner / 4 - math.pi / 2 for corner in range(8)]
        radii = (outer, inner) * 4
        self.poly(colour, [(x + r * math.cos(a), y + r * math.sin(a)) for r, a in zip(radii, angles)])

    def line(self, colour: Colour, points: Sequence[Point], width: float) -> None:
        self.pen.line(self._placed(points), fill=self._tone(colour), width=self._width_px(width), joint="curve")

    def stroke(self, colour: Colour, points: Sequence[Point], width: float) -> None:
        """A line with a disc on every corner, so that its ends are round."""
        self.line(colour, points, width)
        radius = width * self.scale / 2
        for x, y in self._placed(points):
            self.pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=self._tone(colour))

    def gradient(self, top: Colour, bottom: Colour, y0: float, y1: float) -> None:
        """A vertical run from one colour to another over the whole width."""
        steps = 16
        strip = Image.new("RGB", (1, steps))
        strip.putdata([self._tone(mix(top, bottom, step / (steps - 1))) for step in range(steps)])
        first, last = round(y0 * self.scale), round(y1 * self.scale)
        strip = strip.resize((1, last - first), Image.Resampling.BILINEAR)
        self.image.paste(strip.resize((self.image.width, last - first), Image.Resampling.NEAREST), (0, first))

    def veil(self, colour: Colour, share: float, y0: float, y1: float) -> None:
        """A see-through sheet of colour between two heights."""
        box = (0, round(y0 * self.scale), self.image.width, round(y1 * self.scale))
        part = self.image.crop(box)
        self.image.paste(Image.blend(part, Image.new("RGB", part.size, self._tone(colour)), share), box)


def _toned(m: tuple[float, ...], colour: Colour) -> Colour:
    """A colour under a tone, whose matrix is `m`."""
    r, g, b = colour
    values = [m[i] * r + m[i + 1] * g + m[i + 2] * b + m[i + 3] for i in (0, 4, 8)]
    red, green, blue = (max(0, min(255, round(value))) for value in values)
    return red, green, blue


@functools.lru_cache(maxsize=1024)
def _tone_matrix(gain: float, lift: float, saturation: float, tint: Colour, share: float) -> tuple[float, ...]:
    """Rows of Pillow's 3 x 4 colour matrix: saturation, then a cast of the tint that keeps lightness, then gain."""
    tint_luma = luma(tint)
    rows: list[float] = []
    for channel in range(3):
        pull = share * tint[channel] / tint_luma
        for source in range(3):
            kept = saturation * (1.0 if source == channel else 0.0) + (1 - saturation) * _LUMA[source]
            rows.append(gain * ((1 - share) * kept + pull * _LUMA[source]))
        rows.append(lift)
    return tuple(rows)
