"""A training that is killed at random and started again, for half an hour or longer: it must end as if undisturbed.

    python tools/bench/soak.py --minutes 30
    python tools/bench/soak.py --minutes 2 --out /tmp/soak.json      # a try

One undisturbed run of `python -m lavis.train` comes first. Then, until the time is over, runs of the same recipe in
folders of their own are ended again and again, by SIGKILL (half of them while a checkpoint is being written), SIGTERM
and SIGUSR1, and started again with the same command until they have finished. Each is compared with the undisturbed
one byte for byte: weights, moving average, optimizer, position, log without clock times, predictions and metrics. The
exit code is 1 at the first difference.
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
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RECIPE = "projects/emovit/quickstart.yaml"

# Every part of what a position consists of takes part: micro-batches, validation in the middle of an epoch, a moving
# average, saves that overlap with steps.
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

# Of the starts, these are ended at a moment that may lie before the first step.
SHARE_EARLY = 0.25

# Signal -> how often, and the exit codes that it may lead to: before a run has begun, nothing is there to be saved and
# the signal ends the process as it ends any other.
SIGNALS = {
    signal.SIGKILL: (0.6, {-signal.SIGKILL}),
    signal.SIGTERM: (0.25, {75, -signal.SIGTERM}),
    signal.SIGUSR1: (0.15, {75, -signal.SIGUSR1}),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run it, print what happened and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="of disturbed runs; the last one is finished")
    parser.add_argument("--longest-wait-s", type=float, default=40.0, help="between a start and its end")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and signals")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "soak.json")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="soak-") as place:
        result = soak(Path(place), arguments)
    result |= circumstances(argv if argv is not None else sys.argv[1:])
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: result[key] for key in ("runs", "starts", "ended_by", "minutes", "differences")}, indent=1))
    return 1 if result["differences"] else 0


def soak(place: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Disturbed runs until the time is over, each compared with the undisturbed one."""
    rng = random.Random(arguments.seed)
    started = time.monotonic()
    code = start(place, "straight").wait()
    if code != 0:
        raise SystemExit(f"the undisturbed run ended with {code}: {(place / 'straight.err').read_text()[-2000:]}")
    straight_s = time.monotonic() - started
    deadline = time.monotonic() + 60 * arguments.minutes
    begun = time.monotonic()
    runs: list[dict[str, Any]] = []
    differences: list[str] = []
    while time.monotonic() < deadline and not differences:
        name = f"disturbed{len(runs)}"
        runs.append(disturbed_run(place, name, rng, arguments.longest_wait_s))
        differences = compare(place / "straight", place / name)
        print(f"{name}: {runs[-1]['starts']} starts, {len(differences)} differences", flush=True)
    last_step = max(row["step"] for row in rows_of(place / "straight"))
    return {
        "benchmark": "soak",
        "minutes": round((time.monotonic() - begun) / 60, 1),
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


def start(place: Path, name: str) -> subprocess.Popen:
    """The training command, writing into a folder of that name; its messages go to a file beside it."""
    command = [sys.executable, "-m", "lavis.train", "--cfg-path", RECIPE, "--options", *OPTIONS]
    environment = {**os.environ, "EMOVIT_DATA": str(place / "data"), "OMP_NUM_THREADS": "1"}
    with (place / f"{name}.err").open("a", encoding="utf-8") as errors:
        return subprocess.Popen([*command, f"run.output_dir={name}"], cwd=place, env=environment, stderr=errors)


def disturbed_run(place: Path, name: str, rng: random.Random, longest_wait_s: float) -> dict[str, Any]:
    """Start a run until it has finished by itself, ending each start but that one.

    Raises:
        SystemExit: a start ended with a code that its signal does not explain.
    """
    starts, in_save, early = 0, 0, 0
    ended_by: Counter[str] = Counter()
    resumed_from: list[int] = []
    while True:
        starts += 1
        process = start(place, name)
        number = rng.choices(list(SIGNALS), weights=[share for share, _ in SIGNALS.values()])[0]
        if rng.random() < SHARE_EARLY:
            wait_until = time.monotonic() + rng.uniform(0, longest_wait_s)
        else:
            # Loading takes most of a start on a busy machine; from the first new row on, the run is at work.
            wait_for_rows(place / name, process)
            wait_until = time.monotonic() + rng.uniform(0, longest_wait_s / 2)
        aims_at_save = number == signal.SIGKILL and rng.random() < 0.5
        while process.poll() is None and time.monotonic() < wait_until:
            time.sleep(0.01)
        patience = time.monotonic() + 10
        while aims_at_save and process.poll() is None and time.monotonic() < patience:
            if is_saving(place / name):
                break
            time.sleep(0.001)
        saving = is_saving(place / name)
        if process.poll() is None:
            process.send_signal(number)
        code = process.wait()
        if code == 0:
            break
        if code not in SIGNALS[number][1]:
            raise SystemExit(
                f"{name}: ended with {code} after {number.name}: {(place / f'{name}.err').read_text()[-2000:]}"
            )
        ended_by[number.name] += 1
        in_save += saving
        steps = [row["step"] for row in rows_of(place / name) if row.get("event") == "step"]
        early += not steps
        resumed_from.append(max(steps, default=0))
    return {
        "starts": starts,
        "ended_by": dict(ended_by),
        "ended_in_a_save": in_save,
        "ended_before_the_first_step": early,
        "steps_in_the_log_at_each_end": resumed_from,
    }


def wait_for_rows(run: Path, process: subprocess.Popen) -> None:
    """Return when the process writes into the log of its run, or has ended."""

    def stamp() -> int:
        return (run / "log.jsonl").stat().st_mtime_ns if (run / "log.jsonl").exists() else 0

    before = stamp()
    while process.poll() is None and stamp() == before:
        time.sleep(0.02)


def is_saving(run: Path) -> bool:
    """Whether a checkpoint is being written into the folder of a run."""
    try:
        return any(".tmp-" in path.name for path in (run / "checkpoints").iterdir())
    except OSError:
        return False


def rows_of(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's log; none where it has none yet."""
    from lavis_emovit.runners.logs import read_log

    return read_log(run / "log.jsonl")


def compare(run: Path, other: Path) -> list[str]:
    """What differs between two finished runs, clock times left out; a line each."""
    from lavis_emovit.checkpoints.checkpoint import list_checkpoints
    from lavis_emovit.runners.watch import computed_fields

    last, other_last = (list_checkpoints(folder / "checkpoints")[-1] for folder in (run, other))
    pairs = [(last / name, other_last / name) for name in COMPARED_FILES]
    pairs += [(path, other / "predictions" / path.name) for path in sorted((run / "predictions").glob("*.jsonl"))]
    pairs += [(run / "metrics.json", other / "metrics.json")]
    differences = [f"{mine} and {theirs} differ" for mine, theirs in pairs if mine.read_bytes() != theirs.read_bytes()]
    if last.name != other_last.name:
        differences.append(f"{other_last} is the last checkpoint, expected {last.name}")
    logs = [[computed_fields(row) for row in rows_of(folder)] for folder in (run, other)]
    if logs[0] != logs[1]:
        differences.append(f"the logs of {run} and {other} differ")
    return differences


def circumstances(argv: Sequence[str]) -> dict[str, Any]:
    """What the result was measured with."""
    from lavis_emovit.distributed.machine import machine_facts, package_versions

    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return {
        "command": " ".join(["python tools/bench/soak.py", *argv]),
        "recipe": RECIPE,
        "options": list(OPTIONS),
        "date": date.today().isoformat(),
        "commit": commit,
        "versions": package_versions(),
        "machine": machine_facts(),
    }


if __name__ == "__main__":
    raise SystemExit(main())
