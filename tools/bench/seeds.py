"""Test accuracy of a recipe over several seeds, each a run of the real command in a process of its own.

    python tools/bench/seeds.py photos
    python tools/bench/seeds.py quickstart --seeds 0 1 2 --out benchmarks/quickstart.json

`photos` measures on people that the model has never seen: a seed decides who is in which split, the order of pictures
and the augmentation. In `quickstart` the drawn pictures stay the same. Runs lie in output/bench/<recipe>/seed_<n>; a
run that was stopped goes on, a finished one is read again.
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
RECIPES = ("photos", "quickstart")
RUNS = Path("output", "bench")


def main(argv: Sequence[str] | None = None) -> int:
    """Run all seeds and write the result; the exit code is that of the first run that failed, else 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="default: benchmarks/<recipe>.json")
    arguments = parser.parse_args(argv)
    out = arguments.out or ROOT / "benchmarks" / f"{arguments.recipe}.json"
    summaries = {}
    for seed in arguments.seeds:
        folder = RUNS / arguments.recipe / f"seed_{seed}"
        code = subprocess.run(command(arguments.recipe, seed, folder), cwd=ROOT).returncode
        if code:
            print(f"seed {seed} ended with exit code {code}; nothing is written", file=sys.stderr)
            return code
        summaries[seed] = json.loads((ROOT / folder / "metrics.json").read_text(encoding="utf-8"))
    result = {**summarise(arguments.recipe, summaries), **circumstances(arguments.recipe, arguments.seeds)}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result))
    return 0


def recipe_path(recipe: str) -> str:
    """Path of a recipe from the repository's root."""
    return f"projects/emovit/{recipe}.yaml"


def command(recipe: str, seed: int, folder: Path) -> list[str]:
    """The command line of one seed's run."""
    options = [f"run.seed={seed}", f"run.output_dir={folder.as_posix()}"]
    return [sys.executable, "-m", "lavis.train", "--cfg-path", recipe_path(recipe), "--options", *options]


def summarise(recipe: str, summaries: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
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
        "benchmark": recipe,
        "recipe": recipe_path(recipe),
        "mean_accuracy": statistics.fmean(accuracies),
        "std_accuracy": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        "mean_accuracy_before": statistics.fmean(row["accuracy_before"] for row in seeds),
        "mean_majority": statistics.fmean(row["majority"] for row in seeds),
        "seeds": seeds,
    }


def circumstances(recipe: str, seeds: Sequence[int]) -> dict[str, Any]:
    """What the numbers were measured with."""
    from lavis_emovit.distributed.machine import machine_facts, package_versions

    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", "lavis_emovit", "lavis_configs", recipe_path(recipe)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.strip()
    return {
        "command": f"python tools/bench/seeds.py {recipe} --seeds {' '.join(map(str, seeds))}",
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
