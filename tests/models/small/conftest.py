"""Fixtures: a random folder in the layout of `emovit_small`, its model, and a batch for it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import small_folder

from lavis_emovit.models.small.model import EmoVITSmall


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random folder; no test changes it."""
    return small_folder.write_folder(tmp_path_factory.mktemp("small") / "weights")


@pytest.fixture
def model(small: Path) -> EmoVITSmall:
    """Without the reading loss, which has a test of its own."""
    return small_folder.load(small, reading_loss=0.0).eval()


@pytest.fixture
def batch() -> dict[str, Any]:
    return small_folder.make_batch()
