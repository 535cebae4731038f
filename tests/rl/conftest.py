"""Fixtures: TRL is loaded once, before processes are forked."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

ROOM = Path(__file__).resolve().parent
FOLDERS = (ROOM, ROOM.parent / "models", ROOM.parent / "models" / "small", ROOM.parent / "runners" / "ranks")
sys.path[:0] = [str(folder) for folder in FOLDERS]
trl = pytest.importorskip("trl", reason="needs the extra rl")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
