"""Rewards of answers for reinforcement learning: functions of an answer, its record and settings.

docs/rl.md lists all of them, with ranges and sources, and shows how to add one.
"""

from lavis_emovit.rewards.combination import RewardSum, Score
from lavis_emovit.rewards.registry import (
    Ask,
    Asked,
    Question,
    Reward,
    RewardSettings,
    check_rewards,
    get_reward,
    known_rewards,
    parse_rewards,
    register_reward,
)

__all__ = [
    "Ask",
    "Asked",
    "Question",
    "Reward",
    "RewardSettings",
    "RewardSum",
    "Score",
    "check_rewards",
    "get_reward",
    "known_rewards",
    "parse_rewards",
    "register_reward",
]
