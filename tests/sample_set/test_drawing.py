"""Drawings that are written as data.

- Lines call the shapes of a canvas; numbers may be ranges or choices, colours names, shades or choices.
- A frame moves, scales and mirrors what is drawn in it; `both`, `at`, `flip` and `at_random` place their drawings.
- Parts may be used by name, with a colour for `it`; functions get the frame, the colours and the numbers.
- A line that calls nothing known is refused with its file and its text.
"""

from __future__ import annotations

import random

import pytest

from lavis_emovit.sample_set import drawing
from lavis_emovit.sample_set.canvas import Canvas
from lavis_emovit.sample_set.drawing import (
    Between,
    DrawingFile,
    Frame,
    Named,
    OneOf,
    read_colour,
    read_number,
    read_spot,
)

RED, BLUE = (200, 0, 0), (0, 0, 200)


class Recorder:
    """Stands for a canvas and keeps the calls."""

    def __init__(self):
        self.calls = []

    def keep(self, kind):
        def call(_, colour, *arguments):
            self.calls.append((kind, colour, *arguments))

        return call


@pytest.fixture
def paint(monkeypatch):
    """Paints lines of data and returns the calls of the canvas."""

    def run(lines, mirrored=False, x=0.0, y=0.0, size=1.0, colours=None, seed=0, **more):
        recorder = Recorder()
        for kind in ("disc", "rect", "arc", "line"):
            monkeypatch.setattr(Canvas, kind, recorder.keep(kind))
        content = {"colours": {"red": "200/0/0", "blue": "0/0/200"}, "thing": {"one": {"drawing": lines}}, **more}
        monkeypatch.setattr(drawing, "read_data", lambda name: content)
        frame = Frame(Canvas(8), random.Random(seed), x, y, size, mirrored, colours)
        frame.draw(DrawingFile("things", star_field).drawing("thing", "one"))
        return recorder.calls

    return run


def star_field(frame, colour, count):
    for index in range(int(count)):
        frame.canvas.disc(colour, frame.x, index, 1.0)


def test_numbers_points_and_colours():
    palette = {"red": RED}
    assert read_number("-1.5") == -1.5
    assert read_number("-1..2.5") == Between(-1.0, 2.5)
    assert read_number("1|2.5") == OneOf((1.0, 2.5))
    assert read_spot("1,-2..3") == (1.0, Between(-2.0, 3.0), False)
    assert read_spot("=1,2") == (1.0, 2.0, True)
    assert read_colour("1/2/3", palette) == (1, 2, 3)
    assert read_colour("red*0.5", palette) == (100, 0, 0)
    assert read_colour("red*2|0/0/200", palette) == OneOf(((255, 0, 0), BLUE))
    assert read_colour("skin*0.5", palette) == Named("skin", 0.5)


def test_lines_call_shapes(paint):
    assert paint(["disc red 1,2 3", "rect blue 0,0 2,1 0.5", "arc red 1,2 3 4 0.5 10 20", "line red 0,0 1,1 2"]) == [
        ("disc", RED, 1.0, 2.0, 3.0),
        ("rect", BLUE, 0.0, 0.0, 2.0, 1.0, 0.5),
        ("arc", RED, 1.0, 2.0, 3.0, 4.0, 0.5, 10.0, 20.0),
        ("line", RED, [(0.0, 0.0), (1.0, 1.0)], 2.0),
    ]


def test_frame_moves_scales_and_mirrors(paint):
    lines = ["arc red 1,2 3 4 0.5 10 20", "line skin*0.5 0,0 1,1 2"]
    assert paint(lines, mirrored=True, x=50.0, y=40.0, size=10.0, colours={"skin": (100, 50, 20)}) == [
        ("arc", RED, 40.0, 60.0, 30.0, 40.0, 5.0, 10.0, 20.0),
        ("line", (50, 25, 10), [(50.0, 40.0), (40.0, 50.0)], 20.0),
    ]


def test_both_draws_the_left_side_first(paint):
    assert paint({"both": ["disc red 1,0 1", "disc blue 2,0 1"]}) == [
        ("disc", RED, -1.0, 0.0, 1.0),
        ("disc", BLUE, -2.0, 0.0, 1.0),
        ("disc", RED, 1.0, 0.0, 1.0),
        ("disc", BLUE, 2.0, 0.0, 1.0),
    ]


def test_at_repeats_with_a_colour_each(paint):
    lines = [{"at": "10,0 20,5", "it": "red blue", "draw": "line it 1,1 =0,0 2"}]
    assert paint(lines) == [
        ("line", RED, [(11.0, 1.0), (0.0, 0.0)], 2.0),
        ("line", BLUE, [(21.0, 6.0), (0.0, 0.0)], 2.0),
    ]


def test_at_random_draws_around_random_points(paint):
    lines = [
        {"at_random": "10..20,5", "size": "2|4", "times": 50, "draw": ["disc red 1,1 0.5", "disc red|blue =0,0 1"]}
    ]
    calls = paint(lines, x=100.0)
    assert len(calls) == 100
    for (_, _, x, y, radius), (_, colour, *spot) in zip(calls[::2], calls[1::2]):
        size = 2 * radius
        assert size in (2.0, 4.0)
        assert 110 + size <= x <= 120 + size
        assert y == 5 + size
        # An absolute point is not moved by the group, but still by the frame around it.
        assert spot == [100.0, 0.0, size]
        assert colour in (RED, BLUE)
    assert {call[1] for call in calls} == {RED, BLUE}
    assert calls == paint(lines, x=100.0)
    assert calls != paint(lines, x=100.0, seed=1)


def test_flip_mirrors_about_the_middle(paint):
    found = {paint({"flip": "disc red 10,5 1"}, seed=seed)[0][2] for seed in range(20)}
    assert found == {10.0, 90.0}


def test_parts_and_functions(paint):
    lines = ["ball blue 10,20 3", "star_field red 2"]
    assert paint(lines, parts={"ball": ["disc it 0,0 1", "disc red 0,0 0.5"]}) == [
        ("disc", BLUE, 10.0, 20.0, 3.0),
        ("disc", RED, 10.0, 20.0, 1.5),
        ("disc", RED, 0.0, 0, 1.0),
        ("disc", RED, 0.0, 1, 1.0),
    ]


def test_unknown_shapes_are_refused(paint):
    with pytest.raises(ValueError, match=r"things.json: 'dics' in the line 'dics red 0,0 1'"):
        paint(["dics red 0,0 1"])
