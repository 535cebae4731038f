"""Settings of endpoints inside those of a suite, checked when the suite is read, not at the first request."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.settings import parse_settings


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    settings, problems = parse_settings(ChatSettings, values, "")
    if settings is None or problems:
        raise ValueError("; ".join(problem.removeprefix(".") for problem in problems))
    return values


# Settings of an endpoint as plain values; all unknown keys and wrong values are reported.
Endpoint = Annotated[dict[str, Any], Field(min_length=1), AfterValidator(_checked)]
