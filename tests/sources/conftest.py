"""Tiny copies of published datasets, see `tests/sources/published_copies.py`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from published_clips import CLIP_DRAWERS
from published_copies import DRAWERS, Expected


@pytest.fixture(scope="session")
def draw_published() -> dict[str, Callable[[Path], Expected]]:
    """Dataset -> function that draws a tiny copy below a folder and returns the expected result."""
    return DRAWERS | CLIP_DRAWERS
