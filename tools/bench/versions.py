"""Processor time of the training step, of candidate scoring and of the loader: this version against another checkout.

    python tools/bench/versions.py --before ../before --out versions.json

Each round runs both versions in turn, each in its own process with one thread, on the same data: `emovit_tiny` on the
drawn sample set. A part's time is the minimum over all rounds; a ratio above 1 means that this version is faster.
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

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("step", "scoring", "loader")

# Runs on either version, so it uses nothing but LAVIS's own API.
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
    started = time.process_time()
    for _ in range(repeats):
        work()
    return (time.process_time() - started) / repeats


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
    """Seconds of processor time of each part, in a fresh process of a checkout."""
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
    """Run both versions in alternating rounds.

    Returns:
        for each part the seconds `before` and `after` and their `ratio`.
    """
    times: dict[str, dict[str, list[float]]] = {part: {"before": [], "after": []} for part in PARTS}
    with tempfile.TemporaryDirectory() as folder:
        for round_number in range(rounds):
            sides = [("before", before), ("after", ROOT)]
            for side, checkout in sides if round_number % 2 else reversed(sides):
                for part, seconds in run_child(checkout, Path(folder), repeats).items():
                    times[part][side].append(seconds)
    return {
        part: {
            "before_s": min(of["before"]),
            "after_s": min(of["after"]),
            "ratio": min(of["before"]) / min(of["after"]),
        }
        for part, of in times.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="checkout of the other version")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=10, help="runs of each part in a round")
    parser.add_argument("--out", type=Path, help="write the result here as JSON")
    arguments = parser.parse_args()
    result = measure(arguments.before, arguments.rounds, arguments.repeats)
    for part, row in result.items():
        print(f"{part:8} {row['before_s'] * 1e3:9.2f} ms -> {row['after_s'] * 1e3:9.2f} ms  ratio {row['ratio']:.3f}")
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
