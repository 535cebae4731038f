"""The weighted sum of several rewards, with each part reported."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lavis_emovit.errors import DataError, UserError, first_line
from lavis_emovit.records import EmotionRecord
from lavis_emovit.rewards.registry import Ask, Asked, Question, Range, Reward, RewardSettings, check_rewards, get_reward

_TOLERANCE = 1e-6
_SHOWN = 200  # characters of an answer in a message


@dataclass(frozen=True)
class Score:
    """The reward of one answer: `total` is the sum of weight times part."""

    total: float
    parts: Mapping[str, float]  # name of the reward -> its value, without the weight


class RewardSum:
    """Scores answers by several rewards.

    Args:
        rewards: name -> settings, as `parse_rewards` returns them.
        asked: whom rewards can ask.
    """

    def __init__(self, rewards: Mapping[str, RewardSettings], asked: Asked | None = None):
        self.settings = dict(rewards)
        self.asked = asked or Asked()
        self._rewards = [(get_reward(name), settings) for name, settings in rewards.items()]

    def check(self, records: Iterable[EmotionRecord]) -> None:
        """ConfigError names every reward that lacks something, and the records; call it before training."""
        check_rewards(self.settings, records, self.asked)

    @property
    def range(self) -> Range:
        """Least and greatest total."""
        ends = [
            sorted(settings.weight * end for end in reward.range_of(settings))
            for reward, settings in self._rewards
            if settings.weight  # an open end times 0 is no number
        ]
        return sum(low for low, _ in ends), sum(high for _, high in ends)

    def score(self, answers: Sequence[str], records: Sequence[EmotionRecord]) -> list[Score]:
        """The scores of answers, `records[i]` being the record of `answers[i]`.

        Every reward that asks the model or a judge asks all its questions at once.

        Raises:
            DataError: a reward fails, or gives nan or a value outside of its range; names reward, record and answer.
            Exception: whatever the model or the judge raises.
        """
        if len(answers) != len(records):
            raise ValueError(f"{len(answers)} answers need as many records, got {len(records)}")
        replies = {
            reward.name: self._replies(reward, settings, answers, records)
            for reward, settings in self._rewards
            if reward.question is not None
        }
        ranges = [(reward, settings, reward.range_of(settings)) for reward, settings in self._rewards]
        scores = []
        # All rewards of one answer together, because they share what they read of it.
        for number, (answer, record) in enumerate(zip(answers, records)):
            parts = {}
            for reward, settings, ends in ranges:
                given = [replies[reward.name][number]] if reward.name in replies else []
                parts[reward.name] = _value(reward, settings, answer, record, given, ends)
            scores.append(Score(sum(self.settings[name].weight * value for name, value in parts.items()), parts))
        return scores

    def _replies(
        self, reward: Reward, settings: RewardSettings, answers: Sequence[str], records: Sequence[EmotionRecord]
    ) -> Sequence[str | None]:
        assert reward.question is not None
        ask: Ask | None = self.asked.judge if "judge" in reward.needs else self.asked.model
        if ask is None:
            check_rewards({reward.name: settings}, (), self.asked)
            raise AssertionError("check_rewards raises")
        questions = [reward.question(answer, record, settings) for answer, record in zip(answers, records)]
        wanted: list[Question] = [question for question in questions if question is not None]
        given = list(ask(wanted)) if wanted else []
        if len(given) != len(wanted) or not all(isinstance(reply, str) for reply in given):
            raise DataError(
                f"reward '{reward.name}': {len(wanted)} questions were asked, and {len(given)} texts must come back, "
                f"not {[type(reply).__name__ for reply in given][:3]}"
            )
        replies = iter(given)
        return [None if question is None else next(replies) for question in questions]


def _value(
    reward: Reward,
    settings: RewardSettings,
    answer: str,
    record: EmotionRecord,
    replies: Sequence[str | None],
    ends: Range,
) -> float:
    low, high = ends
    try:
        value = float(reward.measure(answer, record, settings, *replies))
    except UserError:
        raise
    except Exception as error:
        raise DataError(f"{_about(reward, record, answer)}: {type(error).__name__}: {first_line(error)}") from error
    if not math.isfinite(value) or not low - _TOLERANCE <= value <= high + _TOLERANCE:
        raise DataError(
            f"{_about(reward, record, answer)}: the reward is {value}, expected a number from {low:g} to {high:g}. "
            f"Correct the reward, in {reward.module}."
        )
    return min(max(value, low), high)


def _about(reward: Reward, record: EmotionRecord, answer: str) -> str:
    shown = answer if len(answer) <= _SHOWN else f"{answer[:_SHOWN]}..."
    return f"reward '{reward.name}' for record '{record.id}' and answer {shown!r}"
