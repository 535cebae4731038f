"""All rewards together.

Properties:
- every reward stays in its range, for any text, with and without a reply;
- the same answer has the same reward again;
- no reward takes more than 16 times as long as finding the words of the answers does, on the same machine in the same
  minute, and all that ask nobody take at most twice as long as the slowest three, because they share what they read
  (benchmarks/rewards.json has the seconds).
"""

from __future__ import annotations

import re
import statistics
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavis_emovit.rewards import Asked, RewardSum, known_rewards, parse_rewards

sys.path.insert(0, str(Path(__file__).resolve().parent))
from answers import RECORD, long_answer

_PIECES = (
    "awe fear not no 0.5 60% , . : <think> </think> <answer> </answer> <confidence> </confidence> <step1> </step1> "
    "<step2> </step2> \\boxed{awe} \\boxed{ } AU6 AU12 AU valence arousal -1 1 majestic sad <attributes> none"
).split()
TEXT = st.text(max_size=60) | st.lists(st.sampled_from(_PIECES), max_size=14).map(" ".join)
ALONE = [name for name, reward in known_rewards().items() if reward.question is None]
ASKING = [name for name, reward in known_rewards().items() if reward.question is not None]


@given(answer=TEXT, reply=TEXT)
def test_ranges_hold_for_any_text(answer, reply):
    asked = Asked(model=lambda questions: [reply] * len(questions), judge=lambda questions: ["3"] * len(questions))
    rewards, _ = parse_rewards(dict.fromkeys(known_rewards()), "rewards")
    together = RewardSum(rewards, asked)
    first, again = together.score([answer, answer], [RECORD, RECORD])  # refuses what is outside of a range
    assert first == again
    assert set(first.parts) == {*ALONE, *ASKING}


@pytest.fixture(scope="module")
def effort():
    """Function (names of rewards) -> processor time for answers that no reward has read before, against their words."""
    seeds = iter(range(10**6))
    word = re.compile(r"\w+")

    def effort(names):
        rewards, _ = parse_rewards(dict.fromkeys(names), "rewards")
        together = RewardSum(rewards)
        together.score([long_answer(next(seeds))], [RECORD])  # compiles patterns, reads tables
        ratios = []
        for _ in range(5):
            answers = [long_answer(next(seeds)) for _ in range(100)]
            begin = time.process_time()
            together.score(answers, [RECORD] * 100)
            middle = time.process_time()
            for answer in answers:
                word.findall(answer.casefold())
            ratios.append((middle - begin) / (time.process_time() - middle))
        return statistics.median(ratios)

    return effort


def test_speed(effort):
    alone = {name: effort([name]) for name in ALONE}
    assert max(alone.values()) <= 16, alone
    # Three rewards read the same words, and five the same label.
    assert effort(ALONE) <= 2 * sum(sorted(alone.values())[-3:])
