"""All rewards together.

Properties:
- every reward stays in its range, for any text, with and without a reply;
- the same answer has the same reward again;
- 10,000 answers of 200 words take at most 2 s of processor time of one core, for all rewards that ask nobody.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lavis_emovit.rewards import Asked, RewardSum, known_rewards, parse_rewards

sys.path.insert(0, str(Path(__file__).resolve().parent))
from answers import RECORD

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
