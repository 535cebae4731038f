"""Rewards inside other trainers, which pass answers as texts and records as JSON; see `emovit export rewards`."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.records import RECORD_KEY, EmotionRecord, parse_record
from lavis_emovit.rewards.combination import RewardSum, Score
from lavis_emovit.rewards.registry import check_rewards, parse_rewards


class RecordRewards:
    """Scores answers by rewards given as plain values.

    Args:
        settings: name of a reward -> its settings.

    Raises:
        ConfigError: unknown names or wrong values, from another version of this package.
    """

    def __init__(self, settings: Mapping[str, Any]):
        rewards, problems = parse_rewards(settings, "rewards")
        if problems:
            raise ConfigError(problems, "the exported rewards")
        self._sum = RewardSum(rewards)

    def score(self, answers: Sequence[str], records: Sequence[str | None]) -> list[Score]:
        """The scores; `records` has the texts that `emovit export data` wrote under `emovit_record`.

        Raises:
            DataError: a missing or faulty record. ConfigError: a record lacks what a reward needs.
        """
        parsed = [self._record(text) for text in records]
        return self._sum.score(answers, parsed)

    def _record(self, text: str | None) -> EmotionRecord:
        if not isinstance(text, str) or not text:
            raise DataError(
                f"the trainer passed no '{RECORD_KEY}'; train on files of `emovit export data`, with the settings that "
                "the head of this plug-in names"
            )
        return self._checked(text)

    @functools.cached_property
    def _checked(self) -> Any:
        @functools.lru_cache(maxsize=65536)
        def checked(text: str) -> EmotionRecord:
            record = parse_record(text, RECORD_KEY)
            check_rewards(self._sum.settings, [record])
            return record

        return checked
