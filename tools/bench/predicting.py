"""Compare the rate of `emovit predict` with that of the bare model in a loop, on photographs.

    python tools/bench/predicting.py
    python tools/bench/predicting.py --photos 64 --rounds 1 --models emovit_tiny --out /tmp/predicting.json

For each model, a run of two steps is made first: what it learned does not matter here. `predict` is what the command
does with --batch-size 16 and one process that reads: open, decode, prepare, ask, and make rows. `bare` is only the
scoring of the same batches, prepared before, with the same labels and question. Both sides alternate in one process;
the result is the median of the ratios of the rounds, with the wall time and the processor time of each side.
`processor_over_bare` compares the processor time of the process with the model alone, which other work on the machine
changes less. The photographs are those of OASIS and BASS in `EMOVIT_SHARED`, several times each if they are too few.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result

BATCH_SIZE = 16
NUM_TRAINED = 24


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=["emovit_tiny", "emovit_small"])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "predicting.json")
    arguments = parser.parse_args(argv)
    shared = Path(os.environ.get("EMOVIT_SHARED", ROOT.parent / "shared"))
    photos = [path for name in ("oasis", "bass") for path in sorted((shared / "data" / name / "images").rglob("*.jpg"))]
    if len(photos) < NUM_TRAINED:
        raise SystemExit(f"{shared}/data: has {len(photos)} photographs of OASIS and BASS; set EMOVIT_SHARED")
    with tempfile.TemporaryDirectory() as folder:
        copies = copied(photos, arguments.photos, Path(folder, "photos"))
        rows = {
            name: measured(make_run(name, photos, Path(folder)), copies, arguments.rounds) for name in arguments.models
        }
    result = {
        "benchmark": "predicting",
        "num_photos": arguments.photos,
        "models": rows,
        "command": " ".join(["python tools/bench/predicting.py", *(sys.argv[1:] if argv is None else argv)]),
        **environment_info("lavis_emovit", "lavis_configs"),
    }
    write_result(arguments.out, result)
    for name, row in rows.items():
        print(
            f"{name}: {row['predict_over_bare']:.2f} of the bare rate, {row['photos_per_s']:.1f} photographs a second"
        )
    return 0


def copied(photos: Sequence[Path], count: int, folder: Path) -> list[Path]:
    """So many files; photographs occur again if there are not enough."""
    folder.mkdir()
    return [shutil.copy(photos[number % len(photos)], folder / f"{number}.jpg") for number in range(count)]


def make_run(model: str, photos: Sequence[Path], folder: Path) -> Path:
    """The folder of a run of two steps with a model."""
    for number, photo in enumerate(photos[:NUM_TRAINED]):
        place = folder / model / ("calm", "tense")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, place)
    environment = {**os.environ, "EMOVIT_DATA": str(folder / "data")}
    commands = (
        ["-m", "lavis_emovit.cli.main", "init", model, "--model", model, "--name", f"of_{model}"],
        ["-m", "lavis.train", "--cfg-path", f"of_{model}.yaml", "--options", "run.max_steps=2", "run.report=false"],
    )
    for command in commands:
        done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    return folder / "output" / f"of_{model}"


def measured(run: Path, photos: Sequence[Path], rounds: int) -> dict[str, Any]:
    """Median of bare time over time of predictions, and photographs a second of the predictions."""
    import torch

    import lavis_emovit
    from lavis_emovit.images import decode_image
    from lavis_emovit.tuned.inputs import input_images
    from lavis_emovit.tuned.predictions import PredictionSettings, predict

    tuned = lavis_emovit.load_tuned(run)
    settings = PredictionSettings(tuned.askings(["emotion"]))
    images = input_images([str(photo) for photo in photos])
    pixels = [tuned.vis_processors["eval"](decode_image(photo.read_bytes())) for photo in photos]
    batches = [torch.stack(pixels[start : start + BATCH_SIZE]) for start in range(0, len(pixels), BATCH_SIZE)]
    question, labels = tuned.txt_processors["eval"](tuned.question), list(tuned.labels)

    def run_predictions() -> None:
        found = [row for rows in predict(tuned.adapter, images, settings, num_workers=1) for row in rows]
        assert len(found) == len(images) and all(row.error is None for row in found)

    def run_bare() -> None:
        with torch.inference_mode():
            for batch in batches:
                tuned.model.score_candidates({"image": batch, "prompt": [question] * len(batch)}, labels)

    sides = {"predict": run_predictions, "bare": run_bare}
    times: dict[str, list[float]] = {name: [] for name in sides}
    processor: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in sides if number % 2 else reversed(sides):
            begin, processor_begin = time.perf_counter(), time.process_time()
            sides[name]()
            times[name].append(time.perf_counter() - begin)
            processor[name].append(time.process_time() - processor_begin)

    def ratio(found: dict[str, list[float]]) -> float:
        return round(statistics.median(b / p for b, p in zip(found["bare"], found["predict"])), 3)

    return {
        "threads": torch.get_num_threads(),
        "predict_over_bare": ratio(times),
        "processor_over_bare": ratio(processor),
        "photos_per_s": round(len(photos) / statistics.median(times["predict"]), 1),
        "seconds": {name: [round(one, 2) for one in found] for name, found in times.items()},
        "processor_seconds": {name: [round(one, 2) for one in found] for name, found in processor.items()},
    }


if __name__ == "__main__":
    raise SystemExit(main())
