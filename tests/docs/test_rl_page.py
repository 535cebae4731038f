"""The seconds of rewards and the speed of sampling in docs/rl.md are those of the benchmarks."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_seconds_of_rewards():
    page = " ".join((ROOT / "docs" / "rl.md").read_text(encoding="utf-8").split())
    result = json.loads((ROOT / "benchmarks" / "rewards.json").read_text(encoding="utf-8"))
    seconds = result["processor_s_per_10000"]
    presets = {name.removeprefix("preset "): value for name, value in seconds.items() if name.startswith("preset ")}
    slow = {name: presets.pop(name) for name in ("facial_r1", "affectgpt_r1_think")}
    together = seconds["all together"]
    assert (result["num_answers"], round(result["mean_words"], -2)) == (10_000, 200)
    assert "each reward takes under 2 s" in page
    alone = {name: value for name, value in seconds.items() if not name.startswith("preset ") and value != together}
    assert max(alone.values()) < 2 and len(alone) == 16
    assert (
        f"presets without rewards of the reasoning take {min(presets.values()):.1f} to {max(presets.values()):.1f} s"
        in page
    )
    for name, value in slow.items():
        assert f"`{name}` {value:.1f} s" in page
    assert f"all sixteen rewards that ask nobody {together:.1f} s" in page


def test_speed_of_sampling():
    page = " ".join((ROOT / "docs" / "rl.md").read_text(encoding="utf-8").split())
    result = json.loads((ROOT / "benchmarks" / "rollouts.json").read_text(encoding="utf-8"))
    ratios = {case["tokens"]: case["ratio"] for case in result["cases"]}
    assert (result["group"], result["shapes"]["name"], set(ratios)) == (8, "100m", {16, 64})
    assert (
        f"{ratios[16]:.1f} times as fast as TRL's own with answers of 16 tokens, and {ratios[64]:.1f} times with"
        in page
    )
    assert min(ratios.values()) >= 2  # the target
