"""Settings of endpoints inside those of a suite, checked when the suite is read, not at the first request."""

from __future__ import annotations

from typing import Any

from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.settings import parse_settings


def checked_endpoint(values: dict[str, Any]) -> dict[str, Any]:
    """The values, unchanged.

    Raises:
        ValueError: unknown keys or wrong values; all of them are named.
    """
    settings, problems = parse_settings(ChatSettings, values, "")
    if settings is None or problems:
        raise ValueError("; ".join(problem.removeprefix(".") for problem in problems))
    return values
