"""Measure the test accuracy of a recipe with several seeds. Each seed is a run of the training command.

    python tools/bench/seeds.py photos
    python tools/bench/seeds.py quickstart --seeds 0 1 2 --out benchmarks/quickstart.json
    python tools/bench/seeds.py quickstart_instructions --seeds 0

`photos` tests on people that are not in the training split. The seed determines the people of each split, the order of
images and the augmentation. The quick starts use the same drawn images with every seed. The runs are in
output/bench/<recipe>/seed_<n>. A stopped run is resumed, a finished run is not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result

RECIPES = ("photos", "quickstart", "quickstart_instructions")
RUNS = Path("output", "bench")


def main(argv: Sequence[str] | None = None) -> int:
    """Run all seeds and write the result. The exit code is 0, or that of the first failed run."""
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
            print(f"seed {seed} failed with exit code {code}; no result was written", file=sys.stderr)
            return code
        summaries[seed] = json.loads((ROOT / folder / "metrics.json").read_text(encoding="utf-8"))
    result = {**summarise(arguments.recipe, summaries), **run_info(arguments.recipe, arguments.seeds)}
    write_result(out, result)
    print(table(result))
    return 0


def recipe_path(recipe: str) -> str:
    """Path of a recipe, relative to the repository."""
    return f"projects/emovit/{recipe}.yaml"


def command(recipe: str, seed: int, folder: Path) -> list[str]:
    """The training command of a seed."""
    options = [f"run.seed={seed}", f"run.output_dir={folder.as_posix()}"]
    return [sys.executable, "-m", "lavis.train", "--cfg-path", recipe_path(recipe), "--options", *options]


def summarise(recipe: str, summaries: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Test accuracy of each seed before and after tuning, the means, and the accuracy of the majority class."""
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
                **answers(summary["splits"]),
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


def answers(benchmarks: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of benchmarks with reference answers, before and after tuning; nothing for recipes without them."""
    names = ("rouge_l", "token_loss")
    found = {
        name: {
            **{f"{key}_{stage}": stages[stage][key] for stage in ("before", "after") for key in names},
            "rouge_l_blind": stages["after"]["rouge_l_blind"],
            "num_samples": stages["after"]["num_samples"],
        }
        for name, stages in benchmarks.items()
        if "rouge_l" in stages["after"]
    }
    return {"answers": found} if found else {}


def run_info(recipe: str, seeds: Sequence[int]) -> dict[str, Any]:
    """Command and environment of the measurement."""
    return {
        "command": f"python tools/bench/seeds.py {recipe} --seeds {' '.join(map(str, seeds))}",
        **environment_info("lavis_emovit", "lavis_configs", recipe_path(recipe)),
    }


def table(result: Mapping[str, Any]) -> str:
    """The result as a Markdown table."""
    lines = ["| seed | images | before | after | majority class |", "|---:|---:|---:|---:|---:|"]
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
