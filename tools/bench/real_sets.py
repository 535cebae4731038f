"""Figures of a suite on real photographs, as `projects/emovit/eval/photos.yaml` has it, copied into `benchmarks/`.

    python tools/bench/real_sets.py

Needs no weights and no network: the models are `emovit_tiny`, which is not tuned on any of the sets, and baselines.
CLIP is left out, since its weights would have to be fetched. Without the photographs the suite says where it looked.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from scoring import circumstances

from lavis_emovit.evaluate import run_evaluation
from lavis_emovit.launch import set_up_logging
from lavis_emovit.plugin import activate

ROOT = Path(__file__).resolve().parents[2]
RECIPE = "projects/emovit/eval/photos.yaml"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the suite and write its figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--options", nargs="+", default=[], help="settings over those of the recipe")
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
        "benchmarks": {name: figures(of) for name, of in summary["benchmarks"].items()},
        "left_out": {**summary["left_out"], "clip": "its weights would have to be fetched"},
        "table": table.splitlines(),
        "command": " ".join(["python tools/bench/real_sets.py", *(sys.argv[1:] if argv is None else argv)]),
        **circumstances(),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table)
    return 0


def figures(benchmark: dict[str, Any]) -> dict[str, Any]:
    """What a benchmark's table shows, and its valence and arousal apart."""
    kept = ("model", "method", "headline", "num_samples", "num_invalid", "num_errors", "num_without_truth")
    results = []
    for found in benchmark["results"]:
        result = {key: found.get(key) for key in kept}
        affect = found.get("metrics", {}).get("affect")
        if affect is not None:
            result["dimensions"] = {
                name: {key: of["all"][key] for key in ("ccc", "pcc", "rmse", "mae")}
                for name, of in affect["dimensions"].items()
            }
        results.append(result)
    return {**{key: benchmark[key] for key in ("kind", "dataset", "split", "label_set")}, "results": results}


if __name__ == "__main__":
    raise SystemExit(main())
