"""Environment variables of this process, which the processes that it starts inherit."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Variables have these values within the block, None for no variable, and their earlier ones afterwards."""
    earlier = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(earlier)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
