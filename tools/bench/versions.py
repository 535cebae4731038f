"""Compare the training step, candidate scoring and the loader with those of another checkout, in processor time.

    python tools/bench/versions.py --before ../before --out versions.json

Each round runs both versions alternately, in new processes with one thread, with `emovit_tiny` and the drawn sample
set. The time of a part is the minimum over all rounds and repeats. A ratio above 1 means that this version is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, write_result

PARTS = ("step", "scoring", "loader")

# The script runs with both versions, so it uses only LAVIS's own API.
CHILD = """
import json, sys, time
import torch
from lavis.common.registry import registry
from lavis.models import load_model

torch.set_num_threads(1)
torch.manual_seed(0)
repeats = int(sys.argv[1])
datasets = registry.get_builder_class("emoset_sketch")().build_datasets()
train, val = datasets["train"], datasets["val"]
model = load_model("emovit_tiny").train()
labels = list(val.label_set.labels)


def timed(work):
    work()
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds)


def batch_of(dataset, start, size):
    return dataset.collater([dataset[(0, number)] if dataset is train else dataset[number]
                             for number in range(start, start + size)])


batch = batch_of(train, 0, 16)
questions = {**batch_of(val, 0, 16)}
questions["prompt"] = questions["text_input"]


def step():
    model.zero_grad(set_to_none=True)
    model(batch)["loss"].backward()


def scoring():
    model.eval()
    model.score_candidates(questions, labels, answer_prefix="Predict emotion: ")
    model.train()


def loader():
    for start in range(0, 128, 16):
        batch_of(train, start, 16)


print(json.dumps({"step": timed(step), "scoring": timed(scoring), "loader": timed(loader)}))
"""


def run_child(checkout: Path, data: Path, repeats: int) -> dict[str, float]:
    """Processor seconds of each part, in a new process with the package of a checkout."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(checkout.resolve()),
        "EMOVIT_DATA": str(data),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(repeats)],
        env=environment,
        cwd=data,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{checkout}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(before: Path, rounds: int = 5, repeats: int = 10) -> dict[str, Any]:
    """Measure both versions in alternating rounds.

    Returns:
        `before_s`, `after_s` and their `ratio` for each part.
    """
    times: dict[str, dict[str, list[float]]] = {part: {"before": [], "after": []} for part in PARTS}
    with tempfile.TemporaryDirectory() as folder:
        sides = [("before", before), ("after", ROOT)]
        for round_number in range(rounds):
            for side, checkout in sides if round_number % 2 else reversed(sides):
                for part, seconds in run_child(checkout, Path(folder), repeats).items():
                    times[part][side].append(seconds)
    return {
        part: {
            "before_s": min(seconds["before"]),
            "after_s": min(seconds["after"]),
            "ratio": min(seconds["before"]) / min(seconds["after"]),
        }
        for part, seconds in times.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="checkout of the other version")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=10, help="repeats of each part in a round")
    parser.add_argument("--out", type=Path, help="file for the result as JSON")
    arguments = parser.parse_args()
    result = measure(arguments.before, arguments.rounds, arguments.repeats)
    for part, row in result.items():
        print(f"{part:8} {row['before_s'] * 1e3:9.2f} ms -> {row['after_s'] * 1e3:9.2f} ms  ratio {row['ratio']:.3f}")
    if arguments.out:
        write_result(arguments.out, result)


if __name__ == "__main__":
    main()
