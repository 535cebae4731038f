"""Kill and restart training runs at random; their results must equal those of an uninterrupted run.

    python tools/bench/soak.py --minutes 30
    python tools/bench/soak.py --minutes 2 --out /tmp/soak.json      # quick check

The first run of `python -m lavis.train` is uninterrupted. After it, until the time is over, runs of the same recipe in
new folders are stopped at random by SIGKILL (half of them during a save), SIGTERM and SIGUSR1, and restarted with the
same command until they finish. Each finished run is compared with the uninterrupted one byte for byte: weights, moving
average, optimizer, position, log without clock times, predictions and metrics. The exit code is 1 after a difference.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result

RECIPE = "projects/emovit/quickstart.yaml"

# The options cover all parts of the training state: micro-batches, validation within an epoch, a moving average, and
# saves that overlap with steps.
OPTIONS = (
    "datasets.emoset_sketch.build_info.images.storage=soak_sketch",
    "datasets.emoset_sketch.build_info.prepare.draw.images_per_class=12",
    "run.max_epoch=80",
    "run.global_batch_size=16",
    "run.micro_batch_size=6",
    "run.save_every_steps=2",
    "run.eval_every_steps=7",
    "run.ema_decay=0.99",
    "run.num_report_answers=2",
    "run.keep_last=2",
    "run.num_threads=1",
    "run.device=cpu",
    "run.report=false",
    "run.tensorboard=false",
)
COMPARED_FILES = ("model.safetensors", "model_raw.safetensors", "optimizer.safetensors", "state.json")

# Share of starts that may be stopped before the first step.
SHARE_EARLY = 0.25

# Signal -> its share and its valid exit codes. Before training starts, there is nothing to save, and the default
# handler of the signal ends the process.
SIGNALS = {
    signal.SIGKILL: (0.6, {-signal.SIGKILL}),
    signal.SIGTERM: (0.25, {75, -signal.SIGTERM}),
    signal.SIGUSR1: (0.15, {75, -signal.SIGUSR1}),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the test, write the result and print a summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="duration of the interrupted runs; the last run is finished"
    )
    parser.add_argument(
        "--longest-wait-s", type=float, default=40.0, help="longest time between a start and its signal"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of times and signals")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "soak.json")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        result = soak(Path(folder), arguments)
    result |= {
        "command": " ".join(["python tools/bench/soak.py", *(sys.argv[1:] if argv is None else argv)]),
        "recipe": RECIPE,
        "options": list(OPTIONS),
        **environment_info(),
    }
    write_result(arguments.out, result)
    print(json.dumps({key: result[key] for key in ("runs", "starts", "ended_by", "minutes", "differences")}, indent=1))
    return 1 if result["differences"] else 0


def soak(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Interrupt runs until the time is over, and compare each with the uninterrupted run."""
    rng = random.Random(arguments.seed)
    started = time.monotonic()
    code = start(folder, "straight").wait()
    if code != 0:
        raise SystemExit(f"the uninterrupted run exited with {code}: {(folder / 'straight.err').read_text()[-2000:]}")
    straight_s = time.monotonic() - started
    started = time.monotonic()
    deadline = started + 60 * arguments.minutes
    runs: list[dict[str, Any]] = []
    differences: list[str] = []
    while time.monotonic() < deadline and not differences:
        name = f"disturbed{len(runs)}"
        runs.append(interrupted_run(folder, name, rng, arguments.longest_wait_s))
        differences = compare(folder / "straight", folder / name)
        print(f"{name}: {runs[-1]['starts']} starts, {len(differences)} differences", flush=True)
    last_step = max(row["step"] for row in rows_of(folder / "straight"))
    return {
        "benchmark": "soak",
        "minutes": round((time.monotonic() - started) / 60, 1),
        "undisturbed_s": round(straight_s, 1),
        "steps_of_a_run": last_step,
        "runs": len(runs),
        "starts": sum(run["starts"] for run in runs),
        "ended_by": dict(sum((Counter(run["ended_by"]) for run in runs), Counter())),
        "ended_in_a_save": sum(run["ended_in_a_save"] for run in runs),
        "ended_before_the_first_step": sum(run["ended_before_the_first_step"] for run in runs),
        "differences": differences,
        "run": runs,
    }


def start(folder: Path, name: str) -> subprocess.Popen:
    """Start the training command with the output folder `folder / name`; its messages go to `<name>.err`."""
    command = [sys.executable, "-m", "lavis.train", "--cfg-path", RECIPE, "--options", *OPTIONS]
    environment = {**os.environ, "EMOVIT_DATA": str(folder / "data"), "OMP_NUM_THREADS": "1"}
    with (folder / f"{name}.err").open("a", encoding="utf-8") as errors:
        return subprocess.Popen([*command, f"run.output_dir={name}"], cwd=folder, env=environment, stderr=errors)


def interrupted_run(folder: Path, name: str, rng: random.Random, longest_wait_s: float) -> dict[str, Any]:
    """Start a run and stop it with a signal, again and again until it finishes.

    Raises:
        SystemExit: the exit code of a start is not valid for its signal.
    """
    run, errors = folder / name, folder / f"{name}.err"
    starts, in_save, early = 0, 0, 0
    ended_by: Counter[str] = Counter()
    last_steps: list[int] = []
    while True:
        starts += 1
        process = start(folder, name)
        number = rng.choices(list(SIGNALS), weights=[share for share, _ in SIGNALS.values()])[0]
        if rng.random() < SHARE_EARLY:
            wait_until = time.monotonic() + rng.uniform(0, longest_wait_s)
        else:
            # Wait for the first new log row, because loading takes most of the time of a start on a busy machine.
            wait_for_rows(run, process)
            wait_until = time.monotonic() + rng.uniform(0, longest_wait_s / 2)
        aims_at_save = number == signal.SIGKILL and rng.random() < 0.5
        while process.poll() is None and time.monotonic() < wait_until:
            time.sleep(0.01)
        save_deadline = time.monotonic() + 10
        while aims_at_save and process.poll() is None and time.monotonic() < save_deadline:
            if is_saving(run):
                break
            time.sleep(0.001)
        saving = is_saving(run)
        if process.poll() is None:
            process.send_signal(number)
        code = process.wait()
        if code == 0:
            break
        if code not in SIGNALS[number][1]:
            raise SystemExit(f"{name}: exited with {code} after {number.name}: {errors.read_text()[-2000:]}")
        ended_by[number.name] += 1
        in_save += saving
        steps = [row["step"] for row in rows_of(run) if row.get("event") == "step"]
        early += not steps
        last_steps.append(max(steps, default=0))
    return {
        "starts": starts,
        "ended_by": dict(ended_by),
        "ended_in_a_save": in_save,
        "ended_before_the_first_step": early,
        "steps_in_the_log_at_each_end": last_steps,
    }


def wait_for_rows(run: Path, process: subprocess.Popen) -> None:
    """Wait until the process writes to the log of its run, or exits."""

    def modified_ns() -> int:
        return (run / "log.jsonl").stat().st_mtime_ns if (run / "log.jsonl").exists() else 0

    before = modified_ns()
    while process.poll() is None and modified_ns() == before:
        time.sleep(0.02)


def is_saving(run: Path) -> bool:
    """Whether a checkpoint is being written to the folder of a run."""
    try:
        return any(".tmp-" in path.name for path in (run / "checkpoints").iterdir())
    except OSError:
        return False


def rows_of(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's log; empty if there is no log yet."""
    from lavis_emovit.runners.logs import read_log

    return read_log(run / "log.jsonl")


def compare(run: Path, other: Path) -> list[str]:
    """Differences between two finished runs, except clock times, one line each."""
    from lavis_emovit.paths import list_checkpoints
    from lavis_emovit.runners.watch import computed_fields

    last, other_last = (list_checkpoints(folder / "checkpoints")[-1] for folder in (run, other))
    pairs = [(last / name, other_last / name) for name in COMPARED_FILES]
    pairs += [(path, other / "predictions" / path.name) for path in sorted((run / "predictions").glob("*.jsonl"))]
    pairs += [(run / "metrics.json", other / "metrics.json")]
    differences = [f"{one} and {two} differ" for one, two in pairs if one.read_bytes() != two.read_bytes()]
    if last.name != other_last.name:
        differences.append(f"the last checkpoint is {other_last}, expected {last.name}")
    logs = [[computed_fields(row) for row in rows_of(folder)] for folder in (run, other)]
    if logs[0] != logs[1]:
        differences.append(f"the logs of {run} and {other} differ")
    return differences


if __name__ == "__main__":
    raise SystemExit(main())
