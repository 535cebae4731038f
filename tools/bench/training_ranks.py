"""Measure the speed of two ranks, and the overhead of the runner over a bare loop, with the tiny model on CPU cores.

    python tools/bench/training_ranks.py                     # on an idle machine
    python tools/bench/training_ranks.py --steps 12 --rounds 1 --out /tmp/ranks.json    # quick check

Ranks: the training command runs as one process on one core, as two ranks on one core each with the same global batch,
and as two independent runs on one core each, the upper limit of the machine. The result contains samples/s from the log
of the run, as the median over the steps after the first five. This is wall-clock time, so the machine must be idle; the
result contains the share of busy cores at the start.

Runner: steps of the runner (reading, step, log, progress) are compared with a bare loop over the same batches: forward,
backward, clipping and AdamW. Both are measured in processor time of this process, in alternating rounds.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import torch

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result

RECIPE = "projects/emovit/quickstart.yaml"
WARM_UP = 5
GLOBAL_BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="steps per run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "training_ranks.json")
    arguments = parser.parse_args()
    if arguments.steps <= WARM_UP + 2:
        parser.error(f"--steps must be greater than {WARM_UP + 2}")
    from lavis_emovit.plugin import activate

    activate()

    busy_share = psutil.cpu_percent(interval=2.0) / 100
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EMOVIT_DATA"] = str(Path(folder) / "data")
        overhead = measure_runner(Path(folder), arguments.steps, arguments.rounds)
        ranks = measure_ranks(Path(folder), arguments.steps, arguments.rounds)
    result = {
        "command": " ".join(["python", *sys.argv]),
        **environment_info(),
        "cores_busy_with_other_work_at_start": round(busy_share, 2),
        "global_batch": GLOBAL_BATCH,
        "steps": arguments.steps,
        "runner_over_bare_loop": overhead,
        "two_ranks_over_one": ranks,
    }
    write_result(arguments.out, result)
    print(json.dumps({key: result[key] for key in ("runner_over_bare_loop", "two_ranks_over_one")}, indent=1))


def train_arguments(output: Path, steps: int) -> list[str]:
    """Arguments of the training command."""
    return ["--cfg-path", RECIPE, "--options", *options(output, steps)]


def options(output: Path, steps: int) -> list[str]:
    """Overrides of the quick start: only training, with one thread per process."""
    return [
        f"run.output_dir={output}",
        "datasets.emoset_sketch.build_info.images.storage=sketch",
        f"run.global_batch_size={GLOBAL_BATCH}",
        f"run.max_steps={steps}",
        f"run.max_epoch={steps}",
        "run.num_threads=1",
        "run.device=cpu",
        "run.warmup_steps=1",
        "run.save_every_steps=null",
        "run.valid_splits=[]",
        "run.test_splits=[]",
        "run.evaluate_before=false",
        "run.report=false",
        "run.tensorboard=false",
    ]


# Runner and bare loop


def measure_runner(folder: Path, steps: int, rounds: int) -> dict[str, Any]:
    """Median processor time of a step in the bare loop and in the runner."""
    from lavis.tasks import setup_task

    from lavis_emovit.runners.config import Config

    logging.getLogger("lavis_emovit").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    bare: list[float] = []
    ours: list[float] = []
    for number in range(rounds):
        config = Config.load(RECIPE, options(folder / f"runner{number}", steps))
        task = setup_task(config)
        datasets = task.build_datasets(config)
        bare += bare_steps(config, task.build_model(config), datasets, steps)
        ours += runner_steps(config, task, task.build_model(config), datasets)
    bare_s, ours_s = statistics.median(bare), statistics.median(ours)
    return {
        "bare_step_s": round(bare_s, 5),
        "runner_step_s": round(ours_s, 5),
        "overhead_share": round(ours_s / bare_s - 1, 4),
        "rounds": rounds,
    }


def bare_steps(config: Any, model: Any, datasets: Any, steps: int) -> list[float]:
    """Processor seconds of each step of the bare loop."""
    from lavis_emovit.runners.loaders import train_steps

    ((_, splits),) = datasets.items()
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.run.init_lr, weight_decay=config.run.weight_decay)
    seconds: list[float] = []
    epoch = 0
    while len(seconds) < steps:
        started = time.process_time()
        for (batch,) in train_steps(splits["train"], config.run, epoch=epoch, start_step=0):
            output = model(batch)
            optimizer.zero_grad(set_to_none=True)
            output["loss"].backward()
            torch.nn.utils.clip_grad_norm_(trained, config.run.max_grad_norm)
            optimizer.step()
            output["loss"].item()
            seconds.append(time.process_time() - started)
            if len(seconds) == steps:
                break
            started = time.process_time()
        epoch += 1
    return seconds[WARM_UP:]


def runner_steps(config: Any, task: Any, model: Any, datasets: Any) -> list[float]:
    """Processor seconds from the start of each step of a run to the start of the next one."""
    from lavis_emovit.runners.runner_emovit import RunnerEmoVIT

    runner = RunnerEmoVIT(cfg=config, task=task, model=model, datasets=datasets)
    starts: list[float] = []
    engine_step = runner.engine.train_step

    def train_step(*arguments: Any) -> Any:
        starts.append(time.process_time())
        return engine_step(*arguments)

    runner.engine.train_step = train_step  # type: ignore[method-assign]
    try:
        runner.train()
    finally:
        runner.folder.close()
    return [later - earlier for earlier, later in pairwise(starts)][WARM_UP:]


# One and two ranks


def measure_ranks(folder: Path, steps: int, rounds: int) -> dict[str, Any]:
    """Median samples/s of one process on one core, of two ranks on one core each, and of two independent runs."""
    cores = [str(core) for core in sorted(os.sched_getaffinity(0))[:2]]
    if len(cores) < 2:
        return {"skipped": "this machine has one usable core"}
    one_process = [sys.executable, "-m"]
    two_ranks = [*one_process, "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
    rates: dict[str, list[float]] = {"one": [], "two": [], "independent": []}
    for number in range(rounds):
        for name, launches in (
            ("one", [(one_process, cores[0])]),
            ("two", [(two_ranks, ",".join(cores))]),
            ("independent", [(one_process, core) for core in cores]),
        ):
            outputs = [folder / f"{name}-{number}-{index}" for index in range(len(launches))]
            commands = [
                ["taskset", "-c", pinned, *launcher, "lavis.train", *train_arguments(output, steps)]
                for (launcher, pinned), output in zip(launches, outputs)
            ]
            processes = [
                subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                for command in commands
            ]
            if any(process.wait() for process in processes):
                raise SystemExit(f"the training command failed; to see its messages, run: {shlex.join(commands[0])}")
            rates[name].append(sum(samples_per_s(output) for output in outputs))
    one, two, independent = (statistics.median(rates[name]) for name in ("one", "two", "independent"))
    return {
        "one_rank_samples_per_s": round(one, 1),
        "two_ranks_samples_per_s": round(two, 1),
        "two_runs_side_by_side_samples_per_s": round(independent, 1),
        "ratio": round(two / one, 2),
        "ratio_of_runs_side_by_side": round(independent / one, 2),
        "rounds": rounds,
    }


def samples_per_s(output: Path) -> float:
    """Median over the steps of a run with a full batch, without the warm-up steps."""
    rows = [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    full = [row for row in rows if row["event"] == "step" and row["num_images"] == GLOBAL_BATCH]
    return statistics.median(row["samples_per_s"] for row in full[WARM_UP:])


if __name__ == "__main__":
    main()
