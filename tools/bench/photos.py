"""Accuracy of projects/emovit/photos.yaml on people that the model has never seen, over several seeds.

    python tools/bench/photos.py [--seeds 0 1 2] [--out benchmarks/photos.json]

A seed decides who is in which split, the order of pictures and the augmentation. Each seed is a run of the real command
in a process of its own, in output/bench/photos/seed_<n>; a run that was stopped goes on, a finished one is read again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RECIPE = "projects/emovit/photos.yaml"
RUNS = Path("output", "bench", "photos")


def main(argv: Sequence[str] | None = None) -> int:
    """Run all seeds and write the result; the exit code is that of the first run that failed, else 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "photos.json")
    arguments = parser.parse_args(argv)
    summaries = {}
    for seed in arguments.seeds:
        folder = RUNS / f"seed_{seed}"
        code = subprocess.run(command(seed, folder), cwd=ROOT).returncode
        if code:
            print(f"seed {seed} ended with exit code {code}; nothing is written", file=sys.stderr)
            return code
        summaries[seed] = json.loads((ROOT / folder / "metrics.json").read_text(encoding="utf-8"))
    result = {**summarise(summaries), **circumstances(arguments.seeds)}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result))
    return 0


def command(seed: int, folder: Path) -> list[str]:
    """The command line of one seed's run."""
    options = [f"run.seed={seed}", f"run.output_dir={folder.as_posix()}"]
    return [sys.executable, "-m", "lavis.train", "--cfg-path", RECIPE, "--options", *options]


def summarise(summaries: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Test accuracy of each seed before and after tuning, their means, and the accuracy of always saying the same."""
    seeds = []
    for seed, summary in summaries.items():
        before, after = (summary["splits"]["test"][stage] for stage in ("before", "after"))
        seeds.append(
            {
                "seed": seed,
                "num_test": after["num_samples"],
                "accuracy_before": before["accuracy"],
                "accuracy": after["accuracy"],
                "accuracy_interval_95": [after["accuracy_interval"]["low"], after["accuracy_interval"]["high"]],
                "majority": after["majority_baseline"],
                "macro_f1": after["macro_f1"],
            }
        )
    accuracies = [row["accuracy"] for row in seeds]
    return {
        "benchmark": "photos",
        "recipe": RECIPE,
        "mean_accuracy": statistics.fmean(accuracies),
        "std_accuracy": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        "mean_accuracy_before": statistics.fmean(row["accuracy_before"] for row in seeds),
        "mean_majority": statistics.fmean(row["majority"] for row in seeds),
        "seeds": seeds,
    }


def circumstances(seeds: Sequence[int]) -> dict[str, Any]:
    """What the numbers were measured with."""
    from lavis_emovit.runners.machine import machine_facts, package_versions

    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", "lavis_emovit", "lavis_configs", RECIPE],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.strip()
    return {
        "command": f"python tools/bench/photos.py --seeds {' '.join(map(str, seeds))}",
        "date": date.today().isoformat(),
        "commit": commit + ("+changes" if changed else ""),
        "versions": package_versions(),
        "machine": machine_facts(),
    }


def table(result: Mapping[str, Any]) -> str:
    """The result as a Markdown table."""
    lines = ["| seed | pictures | before | after | largest class |", "|---:|---:|---:|---:|---:|"]
    for row in result["seeds"]:
        lines.append(
            f"| {row['seed']} | {row['num_test']} | {row['accuracy_before']:.3f} | {row['accuracy']:.3f} "
            f"| {row['majority']:.3f} |"
        )
    lines.append(
        f"| mean | | {result['mean_accuracy_before']:.3f} | {result['mean_accuracy']:.3f} "
        f"| {result['mean_majority']:.3f} |"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
