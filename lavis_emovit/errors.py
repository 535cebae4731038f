"""Errors that a user can act on. The commands print their text and exit with code 2; any other exception is a bug."""

from __future__ import annotations

from collections.abc import Sequence

from lavis_emovit.outside import scrub


class UserError(ValueError):
    """Bad input. The message names the file, record or key, what was expected, and what to do; secrets are removed."""

    def __init__(self, *args: object):
        super().__init__(*(scrub(value) if isinstance(value, str) else value for value in args))


class DataError(UserError):
    """A dataset file, record, image or shard that cannot be used. A line of the message is cut at 2,000 characters."""

    def __init__(self, message: str = ""):
        # A cell or a name in somebody's file may be megabytes long.
        lines = (line if len(line) <= 2000 else f"{line[:1500]} ... {line[-400:]}" for line in message.split("\n"))
        super().__init__("\n".join(lines))


class WeightsError(UserError):
    """Weights that are missing or do not fit the model."""


class LavisMissingError(UserError, ImportError):
    """LAVIS is not installed."""


class JoinError(UserError):
    """The processes of a run could not connect. Each of them reports it, because the first one may be lost."""


class ConfigError(UserError):
    """All problems of a configuration, collected before any weights are loaded."""

    def __init__(self, problems: Sequence[str], source: str = "the configuration"):
        self.problems = list(problems)
        count = len(self.problems)
        super().__init__(f"{count} problem{'s' if count != 1 else ''} in {source}:\n{bullet_list(self.problems)}")


def bullet_list(lines: Sequence[str], limit: int | None = None) -> str:
    """The lines as a bulleted list; those beyond `limit` are only counted."""
    shown = "\n".join(f"  - {line}" for line in lines[:limit])
    return shown if limit is None or len(lines) <= limit else f"{shown}\n  ... and {len(lines) - limit} more"


def first_line(error: BaseException) -> str:
    """The first line of an error's message without secrets, or its type if it has none."""
    text = str(error).strip()
    return scrub(text.splitlines()[0]) if text else type(error).__name__
