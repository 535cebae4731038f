"""Fixtures of teachers that are the program `fake_teacher.py`; the tests of commands use them too."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from lavis_emovit.teachers import catalogue
from lavis_emovit.teachers.catalogue import Teacher, register_teacher

PROGRAM = Path(__file__).resolve().parent / "fake_teacher.py"


def make_image(code: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """An image that tells the fake teacher what to do."""
    return Image.new("RGB", size, (code, 0, 0))


@pytest.fixture
def requests_of(tmp_path):
    """Function (mood) -> what the fake teacher of this mood was asked: the code and the size of each image."""

    def read(mood):
        log = tmp_path / "requests.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line.split(" ", 1)[1] for line in lines if line.startswith(mood)]

    return read


@pytest.fixture
def two_fakes(tmp_path, monkeypatch):
    """The only teachers: `happy-fake` and `sad-fake`."""
    monkeypatch.setattr(catalogue, "TEACHERS", {})
    for mood in ("happy", "sad"):
        command = [sys.executable, str(PROGRAM), mood, str(tmp_path / "requests.log")]
        register_teacher(Teacher(f"{mood}-fake", "1.0", mood, True, lambda folder, command=command: command))
    return list(catalogue.TEACHERS.values())
