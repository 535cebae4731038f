"""Fixtures that several rooms share: small pictures on disk with records, and shards made of them."""

from __future__ import annotations

import errno
import os
import random
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings
from PIL import Image

from lavis_emovit.records import EmotionRecord, Instruction


def _keep_bytecode() -> None:
    """Where Python may store no bytecode, give it a folder, for this process and the dozens of interpreters that the
    tests start: each would compile thousands of files of torch and transformers, which takes most of its time."""
    torch = find_spec("torch")
    if sys.dont_write_bytecode and torch is not None and not Path(torch.cached or "").is_file():
        sys.dont_write_bytecode = False
        sys.pycache_prefix = str(Path(__file__).resolve().parents[1] / ".pytest_cache" / "bytecode")
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix


_keep_bytecode()

# Tiny models that tests of several rooms build: `from tiny_families import make_qwen25vl`.
sys.path.insert(0, str(Path(__file__).resolve().parent / "tiny"))

# A slow or busy machine is no fault of the code; what must be fast has a test of its own.
settings.register_profile("emovit", deadline=None)
settings.load_profile("emovit")

LABELS = ("amusement", "anger", "awe", "contentment", "disgust", "excitement", "fear", "sadness")


@pytest.fixture
def lock_folder(monkeypatch):
    """Function that makes a folder unreadable, also for root, who ignores permissions."""
    locked = set()
    scandir = os.scandir

    def scan(path="."):
        if str(path) in locked:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    return lambda folder: locked.add(str(folder))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep each group on one worker. Slow tests come first, so that no worker begins one when the others have finished.

    Dry runs come last: after one, torch refuses backward passes in forks of its process, and tests of ranks need those.
    """
    for item in items:
        # pytest-xdist 3.8 writes the name with the group into a field that pytest 9.2 does not read any more, and then
        # every worker would build what the tests of a group share.
        with_group = getattr(item, "_nodeid", item.nodeid)
        if with_group != item.nodeid:
            item._id = type(item._id).parse(with_group)

    def turn(item: pytest.Item) -> int:
        if item.get_closest_marker("dry_run"):
            return 2
        return int(item.get_closest_marker("slow") is None and not list(item.iter_markers("xdist_group")))

    items.sort(key=turn)


def _make_records(root: Path, count: int, *, size_px: int = 24, split: str = "train") -> list[EmotionRecord]:
    """`count` pictures below `root/image`, each of another content, sorted by label, with one to three instructions."""
    records = []
    for number in range(count):
        label = LABELS[number * len(LABELS) // count]
        rng = random.Random(number)
        image = Image.new("RGB", (size_px, size_px), tuple(rng.randrange(256) for _ in range(3)))
        image.putpixel((number % size_px, (number * 7) % size_px), (255, 255, 255))
        name = f"image/{label}/{label}_{number:05d}.{'png' if number % 5 == 4 else 'jpg'}"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(root / name)
        instructions = [
            Instruction(kind="categorical", question="Which?", answer=f"Predict emotion: {label}", provenance="human"),
            Instruction(kind="conversation", question=f"What is {number}?", answer="A number.", provenance="human"),
            Instruction(kind="reasoning", question="Why?", answer="Because " * (number % 4 + 1), provenance="human"),
        ]
        records.append(
            EmotionRecord(
                id=f"tiny/{label}_{number:05d}",
                image=name,
                split=split,
                source="tiny",
                emotion=label,
                label_set="mikels8",
                instructions=instructions[: number % 3 + 1],
            )
        )
    return records


@pytest.fixture(scope="session")
def make_records() -> Callable[..., list[EmotionRecord]]:
    """Function (root, count, size_px=, split=) that writes pictures and returns their records."""
    return _make_records
