"""Records for tests of rewards."""

from __future__ import annotations

import pytest

from lavis_emovit.records import EmotionRecord


@pytest.fixture(scope="session")
def make_record():
    """Function (**fields) -> a record with the label awe of mikels8."""

    def make(**fields):
        common = {"id": "set/1", "image": "1.jpg", "split": "train", "source": "set"}
        return EmotionRecord.model_validate({**common, "emotion": "awe", "label_set": "mikels8", **fields})

    return make


@pytest.fixture(scope="session")
def reward_of():
    """Function (name, answer, record, reply=..., **settings) -> the reward of one answer."""
    from lavis_emovit.rewards import get_reward

    def reward_of(name, answer, record, *reply, **settings):
        reward = get_reward(name)
        return reward.measure(answer, record, reward.settings(**settings), *reply)

    return reward_of
