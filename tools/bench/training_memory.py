"""Resident memory of the training process over many steps: at the end, in relation to one tenth of the steps.

    python tools/bench/training_memory.py --out benchmarks/training_memory.json

Runs the quick start with more epochs, so with its validations and checkpoints, and reads `memory_gib` of each step from
the run's `log.jsonl`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result

RECIPE = "projects/emovit/quickstart.yaml"
# Steps whose median is taken, so that a validation or checkpoint in progress does not count.
WINDOW = 21


def main(argv: Sequence[str] | None = None) -> int:
    """Train, compare and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "training_memory.json")
    parser.add_argument("--steps", type=int, default=2000)
    arguments = parser.parse_args(argv)
    options = [f"run.max_epoch={arguments.steps}", f"run.max_steps={arguments.steps}", "run.report=false"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "lavis.train", "--cfg-path", RECIPE, "--options", *options]
        subprocess.run([*command, f"run.output_dir={folder}/run"], cwd=ROOT, check=True)
        memory_gib = read_memory(Path(folder) / "run" / "log.jsonl")
    early, end = growth(memory_gib)
    result = {
        "benchmark": "training_memory",
        "steps": len(memory_gib),
        "memory_gib": {"at_one_tenth": round(early, 4), "at_the_end": round(end, 4), "peak": round(max(memory_gib), 4)},
        "end_over_one_tenth": round(end / early, 4),
        "recipe": RECIPE,
        "options": options,
        "command": f"python tools/bench/training_memory.py --steps {arguments.steps}",
        **environment_info("lavis_emovit", RECIPE, "tools/bench/training_memory.py"),
    }
    write_result(arguments.out, result)
    print(f"{len(memory_gib)} steps: {early:.3f} GiB at one tenth, {end:.3f} GiB at the end")
    return 0


def read_memory(log: Path) -> list[float]:
    """Resident memory of the process after each step, in GiB."""
    from lavis_emovit.runners.logs import read_log

    return [row["memory_gib"] for row in read_log(log) if row["event"] == "step"]


def growth(memory_gib: Sequence[float]) -> tuple[float, float]:
    """Median memory around one tenth of the steps and of the last steps."""
    middle = len(memory_gib) // 10
    early = memory_gib[max(0, middle - WINDOW // 2) : middle + WINDOW // 2 + 1]
    return statistics.median(early), statistics.median(memory_gib[-WINDOW:])


if __name__ == "__main__":
    raise SystemExit(main())
