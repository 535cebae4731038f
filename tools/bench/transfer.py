"""Accuracy and gains of a suite that trains its models.

    python tools/bench/transfer.py
    python tools/bench/transfer.py --options suite.models.emovit.checkpoint=output/bench/small/london_faces/seed_0
    python tools/bench/transfer.py quickstart_clips

`transfer_small`, the default, measures what tuning on the same images adds to a small LLaVA and to emovit_small;
`quickstart_clips` what several frames of a clip add to one.

The suite trains what is missing. The result says how far each training came, because the best checkpoint of a run that
was stopped counts too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result

SUITES = ("transfer_small", "quickstart_clips")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the suite and write the result. The exit code is that of the suite."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("suite", choices=SUITES, nargs="?", default=SUITES[0])
    parser.add_argument("--options", nargs="+", default=[], help="settings that override the suite's")
    parser.add_argument("--out", type=Path, help="default: benchmarks/<suite>.json")
    arguments = parser.parse_args(argv)
    from lavis_emovit.evaluation.suite.recipe import load_suite

    recipe = f"projects/emovit/eval/{arguments.suite}.yaml"
    settings = load_suite(recipe, arguments.options)
    command = [sys.executable, "-m", "lavis.evaluate", "--cfg-path", recipe, "--options", *arguments.options]
    code = subprocess.run(command[: None if arguments.options else -1]).returncode
    if code:
        return code
    summary = json.loads((Path(settings.output_dir) / "metrics.json").read_text(encoding="utf-8"))
    runs: dict[str, Path] = {}
    for name, model in settings.models.items():
        place = getattr(model, "checkpoint", None)
        if place and Path(place) not in runs.values():  # several models may be of one run
            runs[name] = Path(place)
    shown = f"python tools/bench/transfer.py {arguments.suite}{' --options ...' if arguments.options else ''}"
    result = {
        "benchmark": arguments.suite,
        "recipe": recipe,
        "trainings": {name: training_of(run) for name, run in runs.items()},
        **summarise(summary),
        "command": shown,
        **environment_info("lavis_emovit", "projects", "tools"),
    }
    write_result(arguments.out or ROOT / "benchmarks" / f"{arguments.suite}.json", result)
    print(json.dumps({key: result[key] for key in ("results", "gains")}, indent=1))
    return 0


def summarise(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Accuracy of each model on each benchmark, and the gains."""
    results, gains = [], []
    for name, numbers in summary["benchmarks"].items():
        for one in numbers["results"]:
            headline = one["headline"]
            results.append(
                {
                    "benchmark": name,
                    "model": one["model"],
                    "num_images": one["num_images"],
                    "accuracy": headline["value"],
                    "accuracy_interval_95": bounds_of(headline["interval"]),
                }
            )
        for one in numbers.get("gains", []):
            gains.append(
                {
                    "benchmark": name,
                    "model": one["model"],
                    "over": one["against"][0],
                    "num_pairs": one["num_pairs"],
                    "difference": one["difference"],
                    "difference_interval_95": bounds_of(one["interval"]),
                    "num_only_after": one["num_only_after"],
                    "num_only_before": one["num_only_before"],
                    "p_value": one["p_value"],
                }
            )
    return {"results": results, "gains": gains}


def bounds_of(interval: Mapping[str, float] | None) -> list[float] | None:
    return [interval["low"], interval["high"]] if interval else None


def training_of(run: Path) -> dict[str, Any]:
    """How far a run came: its steps and epochs, those of its recipe, and the seconds of its steps."""
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [row for row in rows if row["event"] == "step"]
    settings = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["run"]
    return {
        "is_finished": (run / "metrics.json").is_file(),
        "num_steps": steps[-1]["step"],
        "num_epochs": steps[-1]["epoch"],
        "max_epoch": settings["max_epoch"],
        "step_s_total": round(sum(row["step_s"] for row in steps), 1),
    }


if __name__ == "__main__":
    raise SystemExit(main())
