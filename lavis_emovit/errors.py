"""Errors that a person can act on. The commands print their text and end with exit code 2; anything else is a bug."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(ValueError):
    """Something given to us is wrong: the text names the file, record or key, what was expected, and what to do."""


class DataError(UserError):
    """A dataset file, record, image or shard that cannot be used."""


class WeightsError(UserError):
    """Weights that are missing or do not fit the model."""


class LavisMissingError(UserError, ImportError):
    """LAVIS itself is not installed."""


class ConfigError(UserError):
    """All that is wrong with a configuration, gathered before anything heavy is loaded."""

    def __init__(self, problems: Sequence[str], source: str = "the configuration"):
        self.problems = list(problems)
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        count = len(self.problems)
        super().__init__(f"{count} problem{'s' if count != 1 else ''} in {source}:\n{lines}")
