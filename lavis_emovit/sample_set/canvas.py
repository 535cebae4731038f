"""A drawing surface in a coordinate system of 100 x 100 units, y downwards, whatever the picture's size in pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """`first` with `share` (0..1) of `second` in it."""
    return (
        round(first[0] + (second[0] - first[0]) * share),
        round(first[1] + (second[1] - first[1]) * share),
        round(first[2] + (second[2] - first[2]) * share),
    )


def shade(colour: Colour, factor: float) -> Colour:
    """`colour` made darker (factor < 1) or lighter (factor > 1)."""
    return (
        min(255, round(colour[0] * factor)),
        min(255, round(colour[1] * factor)),
        min(255, round(colour[2] * factor)),
    )


class Canvas:
    """Pillow's drawing calls in picture units, with a colour matrix for all that is drawn after `set_tone`."""

    def __init__(self, width_px: int):
        self.image = Image.new("RGB", (width_px, width_px))
        self.pen = ImageDraw.Draw(self.image)
        self.scale = width_px / 100
        self._matrix: tuple[float, ...] | None = None
        self._cache: dict[Colour, Colour] = {}

    def paint(self, colour: Colour) -> Colour:
        """The colour as it appears under the current tone."""
        if self._matrix is None:
            return colour
        known = self._cache.get(colour)
        if known is None:
            m = self._matrix
            red, green, blue = colour
            values = [m[i] * red + m[i + 1] * green + m[i + 2] * blue + m[i + 3] for i in (0, 4, 8)]
            known = self._cache[colour] = tuple(max(0, min(255, round(value))) for value in values)  # type: ignore[assignment]
        return known  # type: ignore[return-value]

    def tone_background(self, mean_luma: float, saturation: float, tint: Colour, share: float) -> None:
        """Bring all that is drawn so far to a mean lightness (0..255), saturation and colour cast."""
        mean = luma(ImageStat.Stat(self.image.reduce(8)).mean)
        # Lightening keeps the contrast up to a quarter more and adds the rest as an even lift.
        gain = min(mean_luma / max(mean, 1.0), 1.25)
        lift = max(0.0, mean_luma - gain * mean)
        self.image.paste(self.image.convert("RGB", _tone_matrix(gain, lift, saturation, tint, share)))

    def set_tone(self, gain: float, lift: float, saturation: float, tint: Colour, share: float) -> None:
        """Colour all later drawing: lightness * `gain` + `lift`, saturation, and a `share` of the tint."""
        self._matrix = _tone_matrix(gain, lift, saturation, tint, share)
        self._cache = {}

    def _at(self, points: Sequence[Point]) -> list[Point]:
        scale = self.scale
        return [(x * scale, y * scale) for x, y in points]

    def rect(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, radius: float = 0.0) -> None:
        """A filled rectangle, with round corners where `radius` > 0."""
        box = self._at([(min(x0, x1), min(y0, y1)), (max(x0, x1), max(y0, y1))])
        if radius:
            self.pen.rounded_rectangle(box, radius * self.scale, fill=self.paint(colour))
        else:
            self.pen.rectangle(box, fill=self.paint(colour))

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """A filled circle."""
        self.oval(x, y, radius, radius, colour)

    def oval(self, x: float, y: float, radius_x: float, radius_y: float, colour: Colour) -> None:
        """A filled ellipse with upright axes."""
        self.pen.ellipse(
            self._at([(x - radius_x, y - radius_y), (x + radius_x, y + radius_y)]), fill=self.paint(colour)
        )

    def ring(self, x: float, y: float, radius_x: float, radius_y: float, width: float, colour: Colour) -> None:
        """The outline of an ellipse."""
        box = self._at([(x - radius_x, y - radius_y), (x + radius_x, y + radius_y)])
        self.pen.ellipse(box, outline=self.paint(colour), width=max(1, round(width * self.scale)))

    def arc(
        self,
        x: float,
        y: float,
        radius_x: float,
        radius_y: float,
        start: float,
        end: float,
        width: float,
        colour: Colour,
    ) -> None:
        """Part of an ellipse's outline, in degrees clockwise from three o'clock."""
        box = self._at([(x - radius_x, y - radius_y), (x + radius_x, y + radius_y)])
        self.pen.arc(box, start, end, fill=self.paint(colour), width=max(1, round(width * self.scale)))

    def pie(
        self, x: float, y: float, radius_x: float, radius_y: float, start: float, end: float, colour: Colour
    ) -> None:
        """A filled slice of an ellipse."""
        box = self._at([(x - radius_x, y - radius_y), (x + radius_x, y + radius_y)])
        self.pen.pieslice(box, start, end, fill=self.paint(colour))

    def chord(
        self, x: float, y: float, radius_x: float, radius_y: float, start: float, end: float, colour: Colour
    ) -> None:
        """The part of a filled ellipse between an arc and its chord."""
        box = self._at([(x - radius_x, y - radius_y), (x + radius_x, y + radius_y)])
        self.pen.chord(box, start, end, fill=self.paint(colour))

    def poly(self, points: Sequence[Point], colour: Colour) -> None:
        """A filled polygon."""
        self.pen.polygon(self._at(points), fill=self.paint(colour))

    def line(self, points: Sequence[Point], width: float, colour: Colour, round_ends: bool = False) -> None:
        """A line through the points; `round_ends` puts a disc on every corner."""
        fill = self.paint(colour)
        self.pen.line(self._at(points), fill=fill, width=max(1, round(width * self.scale)), joint="curve")
        if round_ends:
            radius = width * self.scale / 2
            for x, y in self._at(points):
                self.pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=fill)

    def gradient(self, y0: float, y1: float, top: Colour, bottom: Colour) -> None:
        """A vertical run from one colour to another over the whole width."""
        steps = 16
        strip = Image.new("RGB", (1, steps))
        strip.putdata([self.paint(mix(top, bottom, step / (steps - 1))) for step in range(steps)])
        first, last = round(y0 * self.scale), round(y1 * self.scale)
        width = self.image.width
        strip = strip.resize((1, last - first), Image.Resampling.BILINEAR)
        self.image.paste(strip.resize((width, last - first), Image.Resampling.NEAREST), (0, first))

    def gradient_bar(
        self, x0: float, x1: float, y0: float, y1: float, top: Colour, bottom: Colour, steps: int = 4
    ) -> None:
        """A vertical run of a few colour steps in a narrow bar."""
        height = (y1 - y0) / steps
        for step in range(steps):
            colour = mix(top, bottom, step / (steps - 1))
            self.rect(x0, y0 + step * height, x1, y0 + (step + 1) * height, colour)

    def veil(self, colour: Colour, share: float, y0: float = 0.0, y1: float = 100.0) -> None:
        """A see-through sheet of colour between two heights."""
        first, last = round(y0 * self.scale), round(y1 * self.scale)
        box = (0, first, self.image.width, last)
        part = self.image.crop(box)
        self.image.paste(Image.blend(part, Image.new("RGB", part.size, self.paint(colour)), share), box)


def star_points(x: float, y: float, outer: float, inner: float, spikes: int) -> list[Point]:
    """The corners of a star."""
    points = []
    for index in range(spikes * 2):
        radius = outer if index % 2 == 0 else inner
        angle = math.pi * index / spikes - math.pi / 2
        points.append((x + radius * math.cos(angle), y + radius * math.sin(angle)))
    return points


def _tone_matrix(gain: float, lift: float, saturation: float, tint: Colour, share: float) -> tuple[float, ...]:
    """Rows of Pillow's 3 x 4 colour matrix: saturation, then a cast of the tint that keeps lightness, then gain."""
    tint_luma = luma(tint)
    rows: list[float] = []
    for channel in range(3):
        pull = share * tint[channel] / tint_luma
        for source in range(3):
            own = saturation * (1.0 if source == channel else 0.0) + (1 - saturation) * _LUMA[source]
            rows.append(gain * ((1 - share) * own + pull * _LUMA[source]))
        rows.append(lift)
    return tuple(rows)
