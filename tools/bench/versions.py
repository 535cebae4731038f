"""Compare the training step, candidate scoring and the loader with those of another checkout, in processor time.

    python tools/bench/versions.py --before ../before --out versions.json

Each round starts one process per version, with one thread, `emovit_tiny` and the drawn sample set. The two take turns:
one repeat of a part each, so that both meet the same state of the machine. The result is the median over all repeats
of all rounds, and the median ratio of two neighbouring repeats. A ratio above 1 means that this version is faster.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, write_result

PARTS = ("step", "scoring", "loader")

# The script runs with both versions, so it uses only LAVIS's own API.
CHILD = """
import sys, time
import torch
from lavis.common.registry import registry
from lavis.models import load_model

torch.set_num_threads(1)
torch.manual_seed(0)
datasets = registry.get_builder_class("emoset_sketch")().build_datasets()
train, val = datasets["train"], datasets["val"]
model = load_model("emovit_tiny").train()
labels = list(val.label_set.labels)


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


parts = {"step": step, "scoring": scoring, "loader": loader}
for line in sys.stdin:
    started = time.process_time()
    parts[line.strip()]()
    print(f"seconds {time.process_time() - started}", flush=True)
"""


class Version:
    """A process with the package of a checkout, which runs a part when asked."""

    def __init__(self, checkout: Path, data: Path) -> None:
        self._checkout = checkout
        environment = {
            **os.environ,
            "PYTHONPATH": str(checkout.resolve()),
            "EMOVIT_DATA": str(data),
            "OMP_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            env=environment,
            cwd=data,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Version:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()

    def seconds(self, part: str) -> float:
        """Processor seconds of one repeat."""
        assert self._process.stdin and self._process.stdout
        print(part, file=self._process.stdin, flush=True)
        for line in self._process.stdout:
            if line.startswith("seconds "):
                return float(line.split()[1])
        raise SystemExit(f"{self._checkout}: the process ended; its error is above.")


def measure(before: Path, rounds: int = 5, repeats: int = 20) -> dict[str, Any]:
    """Measure both versions in alternating repeats.

    Returns:
        `before_s`, `after_s` and their `ratio` for each part.
    """
    pairs: dict[str, list[tuple[float, float]]] = {part: [] for part in PARTS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            with ExitStack() as stack:
                versions = [stack.enter_context(Version(checkout, Path(folder))) for checkout in (before, ROOT)]
                for part in PARTS:
                    for version in versions:
                        version.seconds(part)  # the first repeat fills caches
                    for number in range(repeats):
                        order = versions if number % 2 else versions[::-1]
                        seconds = {version: version.seconds(part) for version in order}
                        pairs[part].append((seconds[versions[0]], seconds[versions[1]]))
    return {
        part: {
            "before_s": statistics.median(before_s for before_s, _ in times),
            "after_s": statistics.median(after_s for _, after_s in times),
            "ratio": statistics.median(before_s / after_s for before_s, after_s in times),
        }
        for part, times in pairs.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="checkout of the other version")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=20, help="repeats of each part in a round")
    parser.add_argument("--out", type=Path, help="file for the result as JSON")
    arguments = parser.parse_args()
    result = measure(arguments.before, arguments.rounds, arguments.repeats)
    for part, row in result.items():
        print(f"{part:8} {row['before_s'] * 1e3:9.2f} ms -> {row['after_s'] * 1e3:9.2f} ms  ratio {row['ratio']:.3f}")
    if arguments.out:
        write_result(arguments.out, result)


if __name__ == "__main__":
    main()
