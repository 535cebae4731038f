"""Tiny models of eight families, made once for all tests of the folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from tiny_batches import model_of
from tiny_families import FAMILIES

from lavis_emovit.models.image_text.model import ImageText


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory) -> Callable[[str], Path]:
    """Family -> folder of a tiny model with random weights."""
    transformers.utils.logging.disable_progress_bar()
    made: dict[str, Path] = {}

    def find(family: str) -> Path:
        if family not in made:
            made[family] = FAMILIES[family](tmp_path_factory.mktemp("families") / family)
        return made[family]

    return find


@pytest.fixture(scope="session")
def build(folder_of) -> Callable[..., ImageText]:
    """A model of a family, with settings over its own."""

    def make(family: str, **settings: Any) -> ImageText:
        return model_of(folder_of(family), **settings)

    return make
