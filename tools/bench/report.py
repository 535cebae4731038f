"""Time and memory of the report of a suite with many models and labels: this version against another checkout.

    python tools/bench/report.py --before ../before

Both versions write the same report from the same rows, in turn, each in a fresh process with one thread. Seconds are of
the processor, the least of the rounds; memory is the highest resident memory of the whole process, libraries included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from bench_result import machine_facts

from lavis_emovit.distributed.versions import package_versions

ROOT = Path(__file__).resolve().parents[2]

NUM_SCENES = 40  # values of the field by which the metrics are split

# Runs on either version.
CHILD = """
import sys, time
from lavis_emovit.evaluation.report.page import write_report
started = time.process_time()
write_report(sys.argv[1], sys.argv[2])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(time.process_time() - started, int(peak.split()[1]) / 1024)
"""


def make_suite(folder: Path, num_models: int, num_labels: int, num_rows: int) -> None:
    """A finished suite whose models score all labels of the same images; about half of the answers are right."""
    labels = [f"label {number}" for number in range(num_labels)]
    models = {f"model_{number}": {"adapter": "lavis", "arch": "emovit_tiny"} for number in range(num_models)}
    suite = {
        "name": "many models",
        "output_dir": str(folder),
        "models": models,
        "benchmarks": {
            "scenes": {
                "dataset": "emoset",
                "label_set": f"labels:{', '.join(labels)}",
                "slices": ["attributes.scene"],
            }
        },
    }
    place = folder / "predictions" / "scenes"
    place.mkdir(parents=True)
    (folder / "suite.yaml").write_text(yaml.safe_dump({"suite": suite}), encoding="utf-8")
    truth = np.random.default_rng(0).integers(num_labels, size=num_rows)
    for number, name in enumerate(models):
        scores = np.random.default_rng(number + 1).normal(size=(num_rows, num_labels))
        scores[np.arange(num_rows), truth] += 2.3
        with (place / f"{name}.likelihood.jsonl").open("w", encoding="utf-8") as file:
            for row in range(num_rows):
                values = scores[row] - np.log(np.exp(scores[row]).sum())
                row_id = f"emoset/{row:06d}"
                content = {
                    "instance_id": row_id,
                    "record_id": row_id,
                    "label": labels[truth[row]],
                    "prediction": labels[int(values.argmax())],
                    "scores": dict(zip(labels, values.tolist())),
                    "image": None,
                    "answer": None,
                    "slices": {"attributes.scene": f"scene {row % NUM_SCENES}"},
                }
                file.write(json.dumps(content) + "\n")
        made_with = {"method": "likelihood", "labels": labels, "model": {"adapter": "lavis"}, "versions": {}}
        beside = {"finished": True, "sha256": None, "made_with": made_with}
        (place / f"{name}.likelihood.json").write_text(json.dumps(beside), encoding="utf-8")


def run_child(checkout: Path, folder: Path, out: Path) -> tuple[float, float]:
    """Processor seconds and MiB of one report."""
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve()), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, str(folder), str(out)]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{checkout}: {done.stderr}")
    seconds, mebibytes = done.stdout.split()
    return float(seconds), float(mebibytes)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="checkout of the other version")
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--labels", type=int, default=50)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "report.json")
    arguments = parser.parse_args(argv)
    sides = {"before": arguments.before, "after": ROOT}
    measured: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as folder:
        make_suite(Path(folder, "suite"), arguments.models, arguments.labels, arguments.rows)
        for _ in range(arguments.rounds):
            for side, checkout in sides.items():
                measured[side].append(run_child(checkout, Path(folder, "suite"), Path(folder, f"{side}.html")))
    least = {side: [min(one) for one in zip(*of)] for side, of in measured.items()}
    commits = {
        side: subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True).stdout.strip()
        for side, checkout in sides.items()
    }
    result: dict[str, Any] = {
        "benchmark": "report",
        "num_models": arguments.models,
        "num_labels": arguments.labels,
        "num_rows": arguments.rows,
        "num_scenes": NUM_SCENES,
        "processor_s": {side: round(seconds, 2) for side, (seconds, _) in least.items()},
        "memory_mib": {side: round(mebibytes, 1) for side, (_, mebibytes) in least.items()},
        "times_faster": round(least["before"][0] / least["after"][0], 1),
        "share_of_memory": round(least["after"][1] / least["before"][1], 3),
        "command": f"python tools/bench/report.py --rounds {arguments.rounds}",
        "date": date.today().isoformat(),
        "commits": commits,
        "versions": package_versions(),
        "machine": machine_facts(),
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
