"""Run the suite `projects/emovit/eval/photos.yaml` on real photographs and write its figures to `benchmarks/`.

    python tools/bench/real_sets.py

The run needs no download and no network. The models are `emovit_tiny`, not tuned on any of these datasets, and
baselines. CLIP is skipped because its weights need a download. If photographs are missing, the suite reports the
searched folders.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result
from scoring import SOURCES

from lavis_emovit.evaluate import run_evaluation
from lavis_emovit.launch import set_up_logging
from lavis_emovit.plugin import activate

RECIPE = "projects/emovit/eval/photos.yaml"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the suite, write its figures and print its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--options", nargs="+", default=[], help="override settings of the recipe")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "real_sets.json")
    arguments = parser.parse_args(argv)
    set_up_logging()
    activate()
    with tempfile.TemporaryDirectory() as folder:
        options = [f"suite.output_dir={folder}", "suite.report=false", *arguments.options]
        summary = run_evaluation(str(ROOT / RECIPE), options)
        table = (Path(folder) / "table.md").read_text(encoding="utf-8")
    result = {
        "benchmark": "real_sets",
        "recipe": RECIPE,
        "benchmarks": {name: figures(benchmark) for name, benchmark in summary["benchmarks"].items()},
        "left_out": {**summary["left_out"], "clip": "its weights need a download"},
        "table": table.splitlines(),
        "command": " ".join(["python tools/bench/real_sets.py", *(sys.argv[1:] if argv is None else argv)]),
        **environment_info(*SOURCES),
    }
    write_result(arguments.out, result)
    print(table)
    return 0


def figures(benchmark: dict[str, Any]) -> dict[str, Any]:
    """The figures of a benchmark's table, and those of valence and arousal separately."""
    kept = ("model", "method", "headline", "num_samples", "num_invalid", "num_errors", "num_without_truth")
    results = []
    for row in benchmark["results"]:
        result = {key: row.get(key) for key in kept}
        affect = row.get("metrics", {}).get("affect")
        if affect is not None:
            result["dimensions"] = {
                name: {key: values["all"][key] for key in ("ccc", "pcc", "rmse", "mae")}
                for name, values in affect["dimensions"].items()
            }
        results.append(result)
    return {**{key: benchmark[key] for key in ("kind", "dataset", "split", "label_set")}, "results": results}


if __name__ == "__main__":
    raise SystemExit(main())
