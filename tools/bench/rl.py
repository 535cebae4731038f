"""Does reinforcement learning help? Supervised tuning against supervised tuning plus GRPO, with two rewards and seeds.

    python tools/bench/rl.py
    python tools/bench/rl.py --seeds 0 --options run.max_steps=2 first_run.run.max_steps=4 --out /tmp/rl.json

Every seed is three runs of `projects/emovit/rl/small.yaml`: instruction tuning once, then GRPO from its weights with
the reward of the label (`label`), and with the calibrated confidence (`brier`), the weights of both exchanged.
All answers are written in one form, `<answer>` and `<confidence>`. The runs are in output/bench/rl/seed_<n>. A stopped
run is resumed and a finished one is not repeated, so the seeds can be measured in pieces; the result has those that are
finished. Benchmarks in the domain: people that no training saw, and photographs of themes that it saw. Out of the
domain: themes that it did not see, the drawn set with eight other labels, and cut-out objects.

Differences are paired: each image is answered by both models. Their 95 % intervals resample images within a seed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result

from lavis_emovit.evaluation.metrics.rows import is_right
from lavis_emovit.evaluation.metrics.stated_confidence import stated_confidence
from lavis_emovit.evaluation.predictions import PredictionRow, read_predictions
from lavis_emovit.rewards.confidence import read_confidence

RECIPE = "projects/emovit/rl/small.yaml"
RUNS = Path("output", "bench", "rl")
IN_DOMAIN, OUT_OF_DOMAIN = ("faces", "seen_themes"), ("unseen_themes", "drawn", "objects")
# The rewards of each run, and whether it evaluates the supervised model too.
ARMS = {
    "label": ("run.evaluate_before=true",),
    "brier": (
        "run.evaluate_before=false",
        "run.task.rewards.label_exact.weight=0.0",
        "run.task.rewards.calibration_brier.weight=1.0",
    ),
}
NUM_RESAMPLES = 2000


def main(argv: Sequence[str] | None = None) -> int:
    """Run all seeds and write the result. The exit code is 0, or that of the first failed run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--options", nargs="+", default=[], help="settings that override the recipe's")
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of the runs")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "rl.json")
    arguments = parser.parse_args(argv)
    for seed in arguments.seeds:
        for arm in arguments.arms:
            code = subprocess.run(command(seed, arm, arguments.runs, arguments.options), cwd=ROOT).returncode
            if code:
                print(f"seed {seed}, {arm}: exit code {code}; start again to resume", file=sys.stderr)
                return code
    folders = sorted((ROOT / arguments.runs).glob("seed_*"))
    seeds = {int(folder.name.removeprefix("seed_")): measured(folder) for folder in folders}
    seeds = {seed: rows for seed, rows in sorted(seeds.items()) if "supervised" in rows and len(rows) > 1}
    result = {
        "benchmark": "rl",
        "recipe": RECIPE,
        "options": arguments.options,
        "seeds": [summary_of_seed(seed, rows) for seed, rows in seeds.items()],
        "differences": differences(seeds),
        "command": " ".join(["python tools/bench/rl.py", *(sys.argv[1:] if argv is None else argv)]),
        **environment_info("lavis_emovit", "lavis_configs", RECIPE, packages=("trl",)),
    }
    write_result(arguments.out, result)
    print(table(result))
    return 0


def command(seed: int, arm: str, runs: Path, options: Sequence[str]) -> list[str]:
    """The training command of a run; the supervised one is shared by all arms of a seed."""
    folder = runs / f"seed_{seed}"
    own = [f"run.seed={seed}", f"run.output_dir={(folder / arm).as_posix()}"]
    own.append(f"first_run.run.output_dir={(folder / 'supervised').as_posix()}")
    return [sys.executable, "-m", "lavis.train", "--cfg-path", RECIPE, "--options", *own, *ARMS[arm], *options]


Rows = Mapping[str, Mapping[str, list[PredictionRow]]]  # model -> benchmark -> rows


def measured(folder: Path) -> dict[str, dict[str, list[PredictionRow]]]:
    """The rows of the models of a seed, of finished runs."""
    found: dict[str, dict[str, list[PredictionRow]]] = {}
    for arm in ARMS:
        if not (folder / arm / "metrics.json").is_file():
            continue
        for model, stage in (("supervised", "before"), (arm, "after")):
            for benchmark in (*IN_DOMAIN, *OUT_OF_DOMAIN):
                path = folder / arm / "predictions" / f"{benchmark}-{stage}.jsonl"
                if path.is_file():
                    found.setdefault(model, {})[benchmark] = list(read_predictions(path))
    return found


def summary_of_seed(seed: int, models: Rows) -> dict[str, Any]:
    return {
        "seed": seed,
        "models": {
            model: {name: summary(rows) for name, rows in benchmarks.items()} for model, benchmarks in models.items()
        },
    }


def summary(rows: Sequence[PredictionRow]) -> dict[str, Any]:
    """Accuracy, and the calibration of the stated confidences of the answers that have one."""
    stated = [row.model_copy(update={"confidence": read_confidence(row.answer or "")}) for row in rows]
    found = stated_confidence(stated)
    result: dict[str, Any] = {
        "num_images": len(rows),
        "accuracy": round(found.accuracy, 4),
        "share_with_label": round(sum(row.prediction is not None for row in rows) / len(rows), 4),
        "share_with_confidence": round(found.stated_share, 4),
    }
    if not found.num_stated:
        return result
    measured = {
        "mean_confidence": found.mean_confidence,
        "brier": found.brier_of_stated,
        "ece": found.ece_of_stated,
        "auroc": found.auroc_of_stated,
    }
    return result | {name: None if value is None else round(value, 4) for name, value in measured.items()}


def differences(seeds: Mapping[int, Rows]) -> list[dict[str, Any]]:
    """What GRPO adds to accuracy and to the Brier score of an arm on each benchmark, the mean over seeds."""
    found = []
    for arm in ARMS:
        for benchmark in (*IN_DOMAIN, *OUT_OF_DOMAIN):
            pairs = [
                paired(rows["supervised"][benchmark], rows[arm][benchmark])
                for rows in seeds.values()
                if benchmark in rows.get(arm, {}) and benchmark in rows["supervised"]
            ]
            if not pairs:
                continue
            row: dict[str, Any] = {"arm": arm, "benchmark": benchmark, "num_seeds": len(pairs)}
            row["domain"] = "in" if benchmark in IN_DOMAIN else "out"
            for name, place in (("accuracy", 0), ("brier", 1)):
                values = [pair[place] for pair in pairs]
                if any(len(one) == 0 for one in values):
                    continue
                row[name] = round(statistics.fmean(float(one.mean()) for one in values), 4)
                row[f"{name}_interval_95"] = interval(values)
                row[f"{name}_of_seeds"] = [round(float(one.mean()), 4) for one in values]
            found.append(row)
    return found


def paired(before: Sequence[PredictionRow], after: Sequence[PredictionRow]) -> tuple[np.ndarray, np.ndarray]:
    """Differences of the same images: of being right, and of squared errors of confidences that both state."""
    rows = {row.instance_id: row for row in before}
    pairs = [(rows[row.instance_id], row) for row in after]
    right = np.array([float(is_right(new)) - float(is_right(old)) for old, new in pairs])
    errors = []
    for old, new in pairs:
        stated = [read_confidence(row.answer or "") for row in (old, new)]
        if None not in stated:
            squared = [(float(value or 0.0) - float(is_right(row))) ** 2 for value, row in zip(stated, (old, new))]
            errors.append(squared[1] - squared[0])
    return right, np.array(errors)


def interval(values: Sequence[np.ndarray]) -> list[float]:
    """95 % bootstrap interval of the mean over seeds; images are resampled within each seed."""
    rng = np.random.default_rng(0)
    means = [rng.choice(one, (NUM_RESAMPLES, len(one))).mean(axis=1) for one in values]
    return [round(float(bound), 4) for bound in np.percentile(np.mean(means, axis=0), [2.5, 97.5])]


def table(result: Mapping[str, Any]) -> str:
    """The mean accuracies and Brier scores as a Markdown table."""
    lines = ["| benchmark | domain | model | accuracy | difference | Brier | ECE |", "|---|---|---|---:|---|---:|---:|"]
    by_key = {(row["arm"], row["benchmark"]): row for row in result["differences"]}
    for benchmark in (*IN_DOMAIN, *OUT_OF_DOMAIN):
        for model in ("supervised", *ARMS):
            found = [s["models"][model][benchmark] for s in result["seeds"] if benchmark in s["models"].get(model, {})]
            if not found:
                continue
            means = [
                f"{statistics.fmean(values):.3f}" if (values := [one[key] for one in found if key in one]) else "-"
                for key in ("accuracy", "brier", "ece")
            ]
            row = by_key.get((model, benchmark))
            change = "" if row is None else "{:+.3f} ({:+.3f} to {:+.3f})".format(
                row["accuracy"], *row["accuracy_interval_95"]
            )  # fmt: skip
            domain = "in" if benchmark in IN_DOMAIN else "out"
            lines.append(f"| {benchmark} | {domain} | {model} | {means[0]} | {change} | {means[1]} | {means[2]} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
