"""Measure the test accuracy of a recipe with several seeds. Each seed is a run of the training command.

    python tools/bench/seeds.py photos
    python tools/bench/seeds.py quickstart --seeds 0 1 2 --out benchmarks/quickstart.json
    python tools/bench/seeds.py quickstart_instructions --seeds 0
    python tools/bench/seeds.py small/oasis --seeds 0 1 2

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

RECIPES = ("photos", "quickstart", "quickstart_instructions", "small/london_faces", "small/oasis", "small/bass")
RUNS = Path("output", "bench")


def main(argv: Sequence[str] | None = None) -> int:
    """Run all seeds and write the result. The exit code is 0, or that of the first failed run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="default: benchmarks/<recipe>.json")
    parser.add_argument("--keep", action="store_true", help="keep the other seeds that the file has")
    arguments = parser.parse_args(argv)
    out = arguments.out or ROOT / "benchmarks" / f"{arguments.recipe.replace('/', '_')}.json"
    summaries = {}
    for seed in arguments.seeds:
        folder = RUNS / arguments.recipe / f"seed_{seed}"
        code = subprocess.run(command(arguments.recipe, seed, folder), cwd=ROOT).returncode
        if code:
            print(f"seed {seed} failed with exit code {code}; no result was written", file=sys.stderr)
            return code
        summaries[seed] = json.loads((ROOT / folder / "metrics.json").read_text(encoding="utf-8"))
    info = run_info(arguments.recipe, arguments.seeds)
    kept = kept_seeds(out, arguments.seeds) if arguments.keep else []
    result = {**summarise(arguments.recipe, summaries, kept), **info}
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


def kept_seeds(out: Path, measured: Sequence[int]) -> list[dict[str, Any]]:
    """The seeds in a file that are not measured now, with the command and the commit of their measurement."""
    if not out.is_file():
        return []
    result = json.loads(out.read_text(encoding="utf-8"))
    return [
        {"command": result["command"], "commit": result["commit"], **row}
        for row in result["seeds"]
        if row["seed"] not in measured
    ]


def summarise(
    recipe: str, summaries: Mapping[int, Mapping[str, Any]], kept: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Test figures of each seed before and after tuning, and the means of those that all recipes have.

    Args:
        kept: figures of other seeds, measured before.
    """
    measured = [
        {"seed": seed, **labels(splits), **dimensions(splits), **answers(splits)}
        for seed, splits in ((seed, summary["splits"]) for seed, summary in summaries.items())
    ]
    seeds = sorted([*kept, *measured], key=lambda row: row["seed"])
    result = {"benchmark": recipe, "recipe": recipe_path(recipe), "seeds": seeds}
    if "accuracy" not in seeds[0]:
        return result
    accuracies = [row["accuracy"] for row in seeds]
    return {
        **result,
        "mean_accuracy": statistics.fmean(accuracies),
        "std_accuracy": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        "mean_accuracy_before": statistics.fmean(row["accuracy_before"] for row in seeds),
        "mean_majority": statistics.fmean(row["majority"] for row in seeds),
    }


def labels(benchmarks: Mapping[str, Any]) -> dict[str, Any]:
    """Accuracy, mean recall of the classes, and the accuracy of the majority class, of the first benchmark with labels;
    nothing for recipes without one."""
    for stages in benchmarks.values():
        if "accuracy" in (after := stages["after"]):
            return {
                "num_test": after["num_samples"],
                "accuracy_before": stages["before"]["accuracy"],
                "accuracy": after["accuracy"],
                "accuracy_interval_95": bounds_of(after["accuracy_interval"]),
                "balanced_accuracy": after["balanced_accuracy"],
                "balanced_accuracy_interval_95": bounds_of(after["balanced_accuracy_interval"]),
                "majority": after["majority_baseline"],
                "macro_f1": after["macro_f1"],
            }
    return {}


def dimensions(benchmarks: Mapping[str, Any]) -> dict[str, Any]:
    """Agreement of valence and arousal before and after tuning; nothing for recipes without them."""
    found = {}
    for stages in benchmarks.values():
        for axis, after in stages["after"].get("dimensions", {}).items():
            before = stages["before"]["dimensions"][axis]
            found[axis] = {"num_samples": after["num_samples"]}
            for key in ("pcc", "ccc"):
                found[axis] |= {f"{key}_before": before["all"][key], key: after["all"][key]}
                found[axis][f"{key}_interval_95"] = bounds_of(after["intervals"][key])
    return found


def bounds_of(interval: Mapping[str, float]) -> list[float]:
    return [interval["low"], interval["high"]]


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
    """Labels as a Markdown table, and a line for each axis of valence and arousal."""
    affect = [
        f"seed {row['seed']}: {axis} PCC {row[axis]['pcc']:.3f}, CCC {row[axis]['ccc']:.3f}"
        for row in result["seeds"]
        for axis in ("valence", "arousal")
        if axis in row
    ]
    if "mean_accuracy" not in result:
        return "\n".join(affect)
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
    return "\n".join([*lines, "", *affect] if affect else lines)


if __name__ == "__main__":
    raise SystemExit(main())
