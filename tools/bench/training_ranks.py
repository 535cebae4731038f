"""What more than one process brings, and what the runner costs over a bare loop; tiny model, drawn data, on CPU cores.

    python tools/bench/training_ranks.py                     # on a machine with nothing else to do
    python tools/bench/training_ranks.py --steps 12 --rounds 1 --out /tmp/ranks.json    # does it work?

Ranks: the training command itself, as one process with one core, as two with one core each and the same global batch,
and as two runs side by side that know nothing of each other, which is the most that the machine can bring. samples/s
from the log of the run (median of the steps behind the first five). That is time on the clock, so it means something
on a quiet machine only; the share of the cores that was busy at the start is in the result.

Runner: steps of the runner (reading, step, log, progress) against a loop of twelve lines that reads the same batches
and does forward, backward, clipping and AdamW, both in processor time of this process, in alternating rounds.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import torch

ROOT = Path(__file__).resolve().parents[2]
RECIPE = "projects/emovit/quickstart.yaml"
WARM_UP = 5
GLOBAL_BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="steps of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "training_ranks.json")
    arguments = parser.parse_args()
    if arguments.steps <= WARM_UP + 2:
        parser.error(f"--steps: more than {WARM_UP + 2}")
    from lavis_emovit.plugin import activate

    activate()
    from lavis_emovit.distributed.machine import machine_facts, package_versions

    busy_share = psutil.cpu_percent(interval=2.0) / 100
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EMOVIT_DATA"] = str(Path(folder) / "data")
        overhead = measure_runner(Path(folder), arguments.steps, arguments.rounds)
        ranks = measure_ranks(Path(folder), arguments.steps, arguments.rounds)
    result = {
        "command": " ".join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip(),
        "machine": machine_facts(),
        "versions": package_versions(),
        "cores_busy_with_other_work_at_start": round(busy_share, 2),
        "global_batch": GLOBAL_BATCH,
        "steps": arguments.steps,
        "runner_over_bare_loop": overhead,
        "two_ranks_over_one": ranks,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: result[key] for key in ("runner_over_bare_loop", "two_ranks_over_one")}, indent=1))


def options(output: Path, steps: int) -> list[str]:
    """Settings over the quick start's: training alone, on one thread a process."""
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


# The runner against a bare loop


def measure_runner(folder: Path, steps: int, rounds: int) -> dict[str, Any]:
    """Medians of processor time a step, bare and with the runner."""
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
    """Processor seconds of each step of a loop with nothing in it but training."""
    from lavis_emovit.runners.loaders import train_steps

    ((_, splits),) = datasets.items()
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.run.init_lr, weight_decay=config.run.weight_decay)
    seconds: list[float] = []
    epoch = 0
    while len(seconds) < steps:
        began = time.process_time()
        for (batch,) in train_steps(splits["train"], config.run, epoch=epoch, start_step=0):
            output = model(batch)
            optimizer.zero_grad(set_to_none=True)
            output["loss"].backward()
            torch.nn.utils.clip_grad_norm_(trained, config.run.max_grad_norm)
            optimizer.step()
            output["loss"].item()
            seconds.append(time.process_time() - began)
            if len(seconds) == steps:
                break
            began = time.process_time()
        epoch += 1
    return seconds[WARM_UP:]


def runner_steps(config: Any, task: Any, model: Any, datasets: Any) -> list[float]:
    """Processor seconds from each step's beginning to the next one's, in a run."""
    from lavis_emovit.runners.runner_emovit import RunnerEmoVIT

    runner = RunnerEmoVIT(cfg=config, task=task, model=model, datasets=datasets)
    moments: list[float] = []
    real = runner.engine.train_step

    def train_step(*arguments: Any) -> Any:
        moments.append(time.process_time())
        return real(*arguments)

    runner.engine.train_step = train_step  # type: ignore[method-assign]
    try:
        runner.train()
    finally:
        runner.folder.close()
    return [later - earlier for earlier, later in pairwise(moments)][WARM_UP:]


# Two ranks against one


def measure_ranks(folder: Path, steps: int, rounds: int) -> dict[str, Any]:
    """Medians of samples/s of one process on one core, of two ranks on one core each, and of two runs side by side that
    know nothing of each other: what two cores of this machine can bring at most."""
    cores = [str(core) for core in sorted(os.sched_getaffinity(0))[:2]]
    if len(cores) < 2:
        return {"skipped": "this machine has one usable core"}
    alone = [sys.executable, "-m"]
    together = [*alone, "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
    rates: dict[str, list[float]] = {"one": [], "two": [], "apart": []}
    for number in range(rounds):
        for name, launches in (
            ("one", [(alone, cores[0])]),
            ("two", [(together, ",".join(cores))]),
            ("apart", [(alone, core) for core in cores]),
        ):
            outputs = [folder / f"{name}-{number}-{place}" for place in range(len(launches))]
            started = [
                subprocess.Popen(
                    [
                        "taskset",
                        "-c",
                        pinned,
                        *launcher,
                        "lavis.train",
                        "--cfg-path",
                        RECIPE,
                        "--options",
                        *options(output, steps),
                    ],
                    cwd=ROOT,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                for (launcher, pinned), output in zip(launches, outputs)
            ]
            if any(process.wait() for process in started):
                raise SystemExit(f"the training command failed; try it by hand: {options(outputs[0], steps)}")
            rates[name].append(sum(samples_per_s(output) for output in outputs))
    one, two, apart = (statistics.median(rates[name]) for name in ("one", "two", "apart"))
    return {
        "one_rank_samples_per_s": round(one, 1),
        "two_ranks_samples_per_s": round(two, 1),
        "two_runs_side_by_side_samples_per_s": round(apart, 1),
        "ratio": round(two / one, 2),
        "ratio_of_runs_side_by_side": round(apart / one, 2),
        "rounds": rounds,
    }


def samples_per_s(output: Path) -> float:
    """Median over the full steps of a run behind the first ones."""
    rows = [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    full = [row for row in rows if row["event"] == "step" and row["num_images"] == GLOBAL_BATCH]
    return statistics.median(row["samples_per_s"] for row in full[WARM_UP:])


if __name__ == "__main__":
    main()
