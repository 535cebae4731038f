"""Measure the rewards of 10,000 different answers of 200 words, each reward alone, the presets, and all together.

    python tools/bench/rewards.py

The result is the processor time of one thread for 10,000 answers, the minimum of several repeats, because other work on
a shared machine has little influence on it. Rewards that ask the model or a judge are not measured: their time is that
of the replies. The answers have reasoning with words of emotion, denials and action units, a label and a confidence.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result

sys.path.append(str(ROOT / "tests" / "rewards"))
from answers import RECORD, long_answer

from lavis_emovit.emotion import templates
from lavis_emovit.rewards import RewardSettings, RewardSum, faces, known_rewards, reading, wheels
from lavis_emovit.rewards.presets import load_preset, preset_files

NUM_ANSWERS = 10_000
# What one reward has read of an answer, another one does not read again.
CACHES: tuple[Any, ...] = (
    reading.claim,
    wheels.sentence_words,
    faces._units,
    faces._numbers,
    templates.answer_text,
    templates.reasoning_text,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--answers", type=int, default=NUM_ANSWERS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "rewards.json")
    arguments = parser.parse_args(argv)
    answers = [long_answer(seed) for seed in range(arguments.answers)]
    alone = {name: reward.settings() for name, reward in known_rewards().items() if reward.question is None}
    chosen: dict[str, dict[str, RewardSettings]] = {name: {name: one} for name, one in alone.items()}
    for name in preset_files():
        rewards = {one: settings for one, settings in load_preset(name).rewards.items() if one in alone}
        chosen[f"preset {name}"] = rewards
    chosen["all together"] = alone
    result: dict[str, Any] = {
        "benchmark": "rewards",
        "num_answers": arguments.answers,
        "mean_words": round(sum(len(answer.split()) for answer in answers) / len(answers), 1),
        "processor_s_per_10000": {
            name: measure(rewards, answers, arguments.repeats) for name, rewards in chosen.items()
        },
        "command": f"python tools/bench/rewards.py --answers {arguments.answers} --repeats {arguments.repeats}",
        **environment_info("lavis_emovit/rewards", "lavis_emovit/emotion"),
    }
    write_result(arguments.out, result)
    print(json.dumps(result["processor_s_per_10000"], indent=1))
    return 0


def measure(rewards: dict[str, RewardSettings], answers: Sequence[str], repeats: int) -> float:
    """Seconds of one thread for 10,000 answers."""
    together = RewardSum(rewards)
    together.score(answers[:10], [RECORD] * 10)
    times = [seconds_of(lambda: together.score(answers, [RECORD] * len(answers)), CACHES) for _ in range(repeats)]
    return round(min(times) * 10_000 / len(answers), 2)


def seconds_of(call: Callable[[], object], caches: Iterable[Any]) -> float:
    """Processor time of a call that finds nothing in the caches."""
    for cache in caches:
        cache.cache_clear()
    started = time.process_time()
    call()
    return time.process_time() - started


if __name__ == "__main__":
    raise SystemExit(main())
