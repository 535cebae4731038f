"""Compare our likelihood scoring with plain repetition, end to end from shards, and two ranks with one.

    python tools/bench/evaluation.py
    python tools/bench/evaluation.py --shapes tiny --pictures 8 --out /tmp/evaluation.json

Both sides run the code of suites: they read images from shards, decode and resize them, score EmoSet's eight labels and
build prediction rows. Plain repetition is that of `scoring.py`: one row per candidate; image encoder and Q-Former run
once per image. Both sides alternate in one process with one thread. Their scores are compared before the measurement.
The result compares processor time, because other work on a shared machine affects it less than wall-clock time.

One and two ranks are compared by wall-clock time, with one thread per rank. This needs two idle cores; the result
contains the load before the start.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parent))
import scoring
from bench_result import ROOT, environment_info, write_result

from lavis_emovit.distributed import processes
from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.evaluation.adapters.lavis_model import LavisModel
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.evaluation.suite.benchmark_data import ImageBatches, OpenBenchmark
from lavis_emovit.evaluation.suite.requests import request_rows
from lavis_emovit.plugin import activate
from lavis_emovit.records import EmotionRecord
from lavis_emovit.shards.index import ShardIndex
from lavis_emovit.shards.reader import ShardReader
from lavis_emovit.shards.writer import write_shards

LABELS = get_label_set("mikels8")


class OurModel(LavisModel):
    """The adapter of suites without answer prefixes, because plain repetition does not support them."""

    def score(self, images: Any, image_index: Any, questions: Any, method: Any) -> list[list[float]]:
        """See `LavisModel.score`."""
        return super().score(images, image_index, [replace(item, answer_prefix="") for item in questions], method)


class PlainModel(OurModel):
    """The same model with one row per candidate."""

    def score(self, images: Any, image_index: Any, questions: Any, method: Any) -> list[list[float]]:
        """Sums of token log-probabilities."""
        with torch.inference_mode():
            samples = self.batch(images, image_index, [item.text for item in questions])
            return scoring.plain_scores(self._model, samples, list(questions[0].candidates), 1).tolist()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", choices=scoring.SHAPES, default="100m")
    parser.add_argument("--pictures", type=int, default=8, help="number of images")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds, each with both sides")
    parser.add_argument("--no-ranks", action="store_true", help="do not compare one and two ranks")
    parser.add_argument("--only-ranks", action="store_true", help="repeat only the comparison of ranks; update --out")
    parser.add_argument("--as-rank", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "evaluation.json")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    activate()
    if arguments.as_rank is not None:
        return as_rank(arguments)
    result: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.only_ranks else {}
    with tempfile.TemporaryDirectory() as folder:
        index = draw_shards(Path(folder), arguments.pictures)
        if not arguments.only_ranks:
            result = {
                "benchmark": "evaluation",
                "shapes": arguments.shapes,
                "pictures": arguments.pictures,
                "batch_size": arguments.batch_size,
                "labels": len(LABELS),
                "threads": 1,
                **against_repetition(arguments, index),
            }
        if not arguments.no_ranks:
            result["ranks"] = against_one_rank(arguments, index.folder)
    info = {
        "command": " ".join(["python tools/bench/evaluation.py", *(sys.argv[1:] if argv is None else argv)]),
        **environment_info(*scoring.SOURCES),
    }
    # With --only-ranks, the other figures keep the command and environment of their measurement.
    (result["ranks"] if arguments.only_ranks else result).update(info)
    write_result(arguments.out, result)
    print(json.dumps({key: result[key] for key in ("ratio_of_processor_time", "largest_score_difference")}))
    print(json.dumps(result.get("ranks")))
    return 0


def draw_shards(folder: Path, count: int) -> ShardIndex:
    """Write shards of random JPEG images of 640 x 480 px, the size of photographs on the web."""
    records = []
    for number in range(count):
        rng = random.Random(number)
        small = Image.new("RGB", (16, 12))
        small.putdata([(rng.randrange(256), rng.randrange(256), rng.randrange(256)) for _ in range(16 * 12)])
        small.resize((640, 480), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=90)
        label = LABELS.labels[number % len(LABELS)]
        records.append(
            EmotionRecord(id=f"b/{number}", image=f"{number}.jpg", split="test", source="b", emotion=label,
                          label_set=LABELS.name)
        )  # fmt: skip
    return write_shards(records, folder, folder / "shards")


def adapter_of(kind: type[LavisModel], model: Any) -> LavisModel:
    """An adapter of the model with its evaluation processors."""

    def run(function: Callable[[], Any]) -> Any:
        with torch.inference_mode():
            return function()

    return kind(model, *model.processors(), run=run, device=torch.device("cpu"))


def evaluate(model: LavisModel, index: ShardIndex, batch_size: int) -> list[PredictionRow]:
    """Prediction rows of all ranks, computed as in a suite."""
    settings = BenchmarkSettings(dataset="drawn")
    benchmark = OpenBenchmark("drawn", settings, ShardReader(index), LABELS)
    rows: list[PredictionRow] = []
    for batch in ImageBatches(benchmark, model, batch_size=batch_size).rounds("drawn"):
        batch_rows = request_rows(model, batch, settings, "likelihood_sum", LABELS)
        for rank_rows in processes.gather_objects(batch_rows):
            rows += rank_rows
    return rows


def against_repetition(arguments: argparse.Namespace, index: ShardIndex) -> dict[str, Any]:
    """Compare the scores of both sides, then measure both in alternating rounds."""
    model = scoring.build_model(arguments.shapes, "cpu")
    sides = {"plain": adapter_of(PlainModel, model), "ours": adapter_of(OurModel, model)}
    rows = {name: evaluate(side, index, arguments.batch_size) for name, side in sides.items()}
    difference = max(
        abs((plain.scores or {})[label] - (ours.scores or {})[label])
        for plain, ours in zip(rows["plain"], rows["ours"], strict=True)
        for label in LABELS.labels
    )
    if difference > 1e-4:
        raise SystemExit(f"the scores of both sides differ by {difference}")
    clock: dict[str, list[float]] = {name: [] for name in sides}
    processor: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(arguments.rounds):
        for name, side in sides.items():
            clock_start, processor_start = time.perf_counter(), time.process_time()
            evaluate(side, index, arguments.batch_size)
            clock[name].append(time.perf_counter() - clock_start)
            processor[name].append(time.process_time() - processor_start)
    medians = {name: statistics.median(times) for name, times in processor.items()}
    return {
        "largest_score_difference": difference,
        "same_predictions": [row.prediction for row in rows["plain"]] == [row.prediction for row in rows["ours"]],
        "processor_seconds": medians,
        "ratio_of_processor_time": medians["plain"] / medians["ours"],
        "ratio_on_the_clock": statistics.median(clock["plain"]) / statistics.median(clock["ours"]),
        "ratio_of_each_round": [round(a / b, 2) for a, b in zip(processor["plain"], processor["ours"])],
        "pictures_per_processor_second": arguments.pictures / medians["ours"],
    }


def against_one_rank(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Wall-clock seconds of one rank and of two, with one thread per rank."""
    load = os.getloadavg()[0]
    seconds = {count: _ranks_s(arguments, folder, count) for count in (1, 2)}
    return {
        "load_before": round(load, 2),
        "one_rank_s": seconds[1],
        "two_ranks_s": seconds[2],
        "ratio": seconds[1] / seconds[2],
    }


def _ranks_s(arguments: argparse.Namespace, folder: Path, count: int) -> float:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, "--as-rank", str(folder), "--shapes", arguments.shapes]
    command += ["--batch-size", str(arguments.batch_size), "--rounds", str(arguments.rounds)]
    started = []
    for rank in range(count):
        variables = {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": count,
                     "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}  # fmt: skip
        environ = {**os.environ, **{name: str(value) for name, value in variables.items()}}
        started.append(subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit("a rank failed; see its messages above")
    return float(outputs[0].split()[-1])


def as_rank(arguments: argparse.Namespace) -> int:
    """Run one rank: evaluate its part in each round. Rank 0 prints the median of the seconds."""
    processes.start(processes.read_launch(), device=torch.device("cpu"))
    index = ShardIndex.load(arguments.as_rank / "index.json")
    model = adapter_of(OurModel, scoring.build_model(arguments.shapes, "cpu"))
    evaluate(model, index, arguments.batch_size)
    times = []
    for _ in range(arguments.rounds):
        processes.barrier()
        started = time.perf_counter()
        evaluate(model, index, arguments.batch_size)
        processes.barrier()
        times.append(time.perf_counter() - started)
    if processes.is_main():
        print(statistics.median(times))
    processes.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
