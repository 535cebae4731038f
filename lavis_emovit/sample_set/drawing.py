"""Reads drawings from data files and paints them. `docs/sample_set.md` describes the format."""

from __future__ import annotations

import functools
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, NamedTuple

from lavis_emovit.sample_set.canvas import Canvas, Colour, Point, shade
from lavis_emovit.sample_set.vocabulary import read_data

_PATHS = ("poly", "line", "stroke")  # through any number of points
_ROUND = ("arc", "pie", "chord")  # the last two numbers are angles
_SHAPES = ("rect", "disc", "oval", "ring", "star", "gradient", *_PATHS, *_ROUND)


class Between(NamedTuple):
    """A number that is random each time it is used: `low..high`."""

    low: float
    high: float

    def pick(self, rng: random.Random) -> float:
        return rng.uniform(self.low, self.high)


class OneOf(NamedTuple):
    """A number or colour that is chosen at random each time it is used: `first|second`."""

    options: tuple[Any, ...]

    def pick(self, rng: random.Random) -> Any:
        return rng.choice(self.options)


class Named(NamedTuple):
    """A colour that is known only when the drawing is painted, such as `skin`, and its shade."""

    name: str
    factor: float


Number = Any  # float, Between or OneOf
ColourValue = Any  # Colour, Named or OneOf


class Spot(NamedTuple):
    """A point of a drawing. The group around it does not move an `absolute` one, which is written `=x,y`."""

    x: Number = 0.0
    y: Number = 0.0
    absolute: bool = False


class Item(ABC):
    """Something in a drawing."""

    @abstractmethod
    def paint(self, frame: Frame) -> None:
        """Draw the item into the frame."""

    def moved(self, move: Callable[[Spot], Spot]) -> Item:
        """The same item with moved points. Items without points stay as they are."""
        return self


Drawing = tuple[Item, ...]


@dataclass(frozen=True)
class Shape(Item):
    """A call of the method `kind` of a canvas."""

    kind: str
    colours: tuple[ColourValue, ...]
    spots: tuple[Spot, ...]
    lengths: tuple[Number, ...]
    angles: tuple[float, ...]

    def paint(self, frame: Frame) -> None:
        colours = map(frame.colour, self.colours)
        points = [frame.point(spot) for spot in self.spots]
        lengths = [frame.size * frame.number(length) for length in self.lengths]
        draw = getattr(frame.canvas, self.kind)
        if self.kind in _PATHS:
            draw(*colours, points, *lengths)
        else:
            draw(*colours, *chain(*points), *lengths, *self.angles)

    def moved(self, move: Callable[[Spot], Spot]) -> Shape:
        return replace(self, spots=tuple(move(spot) for spot in self.spots))


@dataclass(frozen=True)
class Group(Item):
    """A drawing around another point and in another size, painted `times` times."""

    drawing: Drawing
    at: Spot
    size: Number = 1.0
    times: int = 1

    def paint(self, frame: Frame) -> None:
        for _ in range(self.times):
            x, y = frame.point(self.at)
            frame.at(x, y, frame.size * frame.number(self.size)).draw(self.drawing)

    def moved(self, move: Callable[[Spot], Spot]) -> Group:
        return replace(self, at=move(self.at))


@dataclass(frozen=True)
class Flip(Item):
    """A drawing in units of the canvas that is mirrored left to right in half of the cases."""

    drawing: Drawing

    def paint(self, frame: Frame) -> None:
        left, mirrored = frame.rng.choice(((0.0, False), (100.0, True)))
        Frame(frame.canvas, frame.rng, left, mirrored=mirrored, colours=frame.colours).draw(self.drawing)


@dataclass(frozen=True)
class Call(Item):
    """A call of a Python function, for things that need loops: function(frame, *colours, *numbers)."""

    function: Callable[..., None]
    colours: tuple[ColourValue, ...]
    numbers: tuple[Number, ...]

    def paint(self, frame: Frame) -> None:
        self.function(frame, *map(frame.colour, self.colours), *map(frame.number, self.numbers))


@dataclass
class Frame:
    """Coordinates on a canvas: the origin is (x, y), the unit is `size`, and x may run from right to left.

    `colours` are those that drawings name but data files do not define, and `parent` is the frame around this one.
    """

    canvas: Canvas
    rng: random.Random
    x: float = 0.0
    y: float = 0.0
    size: float = 1.0
    mirrored: bool = False
    colours: Mapping[str, Colour] = field(default_factory=dict)
    parent: Frame | None = None

    def at(self, x: float, y: float, size: float = 1.0) -> Frame:
        """A frame around a point of the canvas."""
        return Frame(self.canvas, self.rng, x, y, size, self.mirrored, self.colours, self)

    def draw(self, drawing: Drawing) -> None:
        for item in drawing:
            item.paint(self)

    def point(self, spot: Spot) -> Point:
        """Where a point is on the canvas."""
        x, y = self.number(spot.x), self.number(spot.y)
        if not spot.absolute:
            return self.x + (-self.size if self.mirrored else self.size) * x, self.y + self.size * y
        return self.parent.point(Spot(x, y)) if self.parent else (x, y)

    def number(self, number: Number) -> float:
        return number if type(number) is float else number.pick(self.rng)

    def colour(self, colour: ColourValue) -> Colour:
        """The value of a colour, which may be random."""
        if type(colour) is OneOf:
            return colour.pick(self.rng)
        if type(colour) is Named:
            named = self.colours[colour.name]
            return named if colour.factor == 1 else shade(named, colour.factor)
        return colour


class DrawingFile:
    """The drawings of the data file `<name>.json`, whose lines may call `functions`. Each is read when first needed."""

    def __init__(self, name: str, *functions: Callable[..., None]):
        self.name = name
        self._functions = {function.__name__: function for function in functions}

    # The caches below keep a file for as long as the program runs, which is how long there are files.
    @functools.cache  # noqa: B019
    def part(self, name: str, it: Colour | None = None) -> Drawing:
        """A drawing among the `parts` of the file, with a colour for `it`."""
        data = read_data(self.name)
        palette = _palette(data) if it is None else {**_palette(data), "it": it}
        return self._read(data["parts"][name], palette)

    @functools.cache  # noqa: B019
    def drawing(self, fact: str, value: str, key: str = "drawing") -> Drawing:
        """The drawing under `key` of a value of a fact, empty where it has none."""
        data = read_data(self.name)
        entry = data[fact][value]
        return self._read(entry.get(key, ()), {**_palette(data), **_palette(entry)})

    def _read(self, content: Any, palette: Mapping[str, Colour]) -> Drawing:
        items = [content] if isinstance(content, (str, dict)) else content
        return tuple(chain.from_iterable(self._read_item(item, palette) for item in items))

    def _read_item(self, item: Any, palette: Mapping[str, Colour]) -> Iterator[Item]:
        if isinstance(item, str):
            yield self._read_line(item, palette)
        elif "both" in item:
            right = self._read(item["both"], palette)
            yield from (drawn.moved(lambda spot: spot._replace(x=-spot.x)) for drawn in right)
            yield from right
        elif "flip" in item:
            yield Flip(self._read(item["flip"], palette))
        elif "at" in item:
            spots = [read_spot(text) for text in item["at"].split()]
            colours = [read_colour(text, palette) for text in item.get("it", "").split()] or [None] * len(spots)
            for by, it in zip(spots, colours):
                drawing = self._read(item["draw"], {**palette, "it": it} if it else palette)
                yield from (drawn.moved(functools.partial(_shifted, by=by)) for drawn in drawing)
        elif "at_random" in item:
            size, times = read_number(str(item.get("size", 1))), item.get("times", 1)
            yield Group(self._read(item["draw"], palette), read_spot(item["at_random"]), size, times)
        else:
            raise ValueError(f"{self.name}.json: {item} has none of the keys both, flip, at and at_random")

    def _read_line(self, line: str, palette: Mapping[str, Colour]) -> Item:
        kind, *words = line.split()
        colours: list[ColourValue] = []
        spots: list[Spot] = []
        numbers: list[Number] = []
        try:
            for word in words:
                if "," in word:
                    spots.append(read_spot(word))
                elif "/" in word or word[0].isalpha():
                    colours.append(read_colour(word, palette))
                else:
                    numbers.append(read_number(word))
        except ValueError as error:
            raise ValueError(f"{self.name}.json: cannot read the line '{line}': {error}") from error
        if kind in _SHAPES:
            split = len(numbers) - (2 if kind in _ROUND else 0)
            return Shape(kind, tuple(colours), tuple(spots), tuple(numbers[:split]), tuple(numbers[split:]))
        if kind in self._functions:
            return Call(self._functions[kind], tuple(colours), tuple(numbers))
        if kind not in read_data(self.name).get("parts", {}):
            raise ValueError(f"{self.name}.json: '{kind}' in the line '{line}' is not a shape, part or function")
        return Group(self.part(kind, *colours), spots[0] if spots else Spot(), numbers[0] if numbers else 1.0)


def read_number(text: str) -> Number:
    """A number, a range `low..high` or a choice `first|second`."""
    if "|" in text:
        return OneOf(tuple(float(option) for option in text.split("|")))
    if ".." in text:
        low, high = text.split("..")
        return Between(float(low), float(high))
    return float(text)


def read_spot(text: str) -> Spot:
    """A point `x,y`, or `=x,y`."""
    x, y = text.removeprefix("=").split(",")
    return Spot(read_number(x), read_number(y), text[0] == "=")


def read_colour(text: str, palette: Mapping[str, Colour]) -> ColourValue:
    """A colour `red/green/blue` or its name, a shade of one `name*0.8`, or a choice `first|second`."""
    if "|" in text:
        return OneOf(tuple(read_colour(option, palette) for option in text.split("|")))
    name, _, factor = text.partition("*")
    if "/" in name:
        red, green, blue = name.split("/")
        colour = int(red), int(green), int(blue)
    elif name in palette:
        colour = palette[name]
    else:
        return Named(name, float(factor or 1))
    return shade(colour, float(factor)) if factor else colour


def _palette(entry: Mapping[str, Any]) -> dict[str, Colour]:
    return {name: read_colour(text, {}) for name, text in entry.get("colours", {}).items()}


def _shifted(spot: Spot, by: Spot) -> Spot:
    if spot.absolute:
        return spot._replace(absolute=False)
    return Spot(_sum(spot.x, by.x), _sum(spot.y, by.y), by.absolute)


def _sum(number: Number, by: float) -> Number:
    return Between(number.low + by, number.high + by) if isinstance(number, Between) else number + by
