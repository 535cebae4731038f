"""Measure what a save costs the training, and how long resuming takes at several positions.

    python tools/bench/saving.py                          # 100 M trained parameters on the CPU, 1.2 GB per checkpoint
    python tools/bench/saving.py --parameters-m 5 --steps 20 --out /tmp/saving.json

Saves: a step runs matrix products and AdamW on weights of the given size. Three modes alternate: no save, a synchronous
save and a save in the background. `stall_s` is the time of the step with the save minus the median time of a step
without saves. `slowdown_after` is the relative time of the steps after a save, when a background thread may be writing.

Resuming: a run of the shipped tiny model resumes from several positions of a long epoch. The time from the search
for its checkpoint to the first batch is measured. It must not grow with the position, since no batch is replayed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result

RECIPE = ROOT / "projects" / "emovit" / "quickstart.yaml"
POSITIONS = (0.0, 0.25, 0.5, 0.75, 0.95)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the result and print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parameters-m", type=float, default=100.0, help="trained parameters, in millions")
    parser.add_argument("--step-s", type=float, default=1.0, help="approximate time of a step")
    parser.add_argument("--steps", type=int, default=30, help="steps of each mode")
    parser.add_argument("--every", type=int, default=10, help="steps between two saves")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--place", type=Path, help="folder for the checkpoints; default: the system's temporary folder")
    parser.add_argument("--no-resume", action="store_true", help="do not measure resuming")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "saving.json")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="saving-", dir=arguments.place) as folder:
        result: dict[str, Any] = {"benchmark": "saving", "saves": measure_saves(Path(folder), arguments)}
        if not arguments.no_resume:
            result["resume"] = measure_resume(Path(folder))
    result |= {
        "command": " ".join(["python tools/bench/saving.py", *(sys.argv[1:] if argv is None else argv)]),
        "clock": "wall time; other work on the machine affects all sides",
        **environment_info(),
    }
    result["machine"] |= {"threads": torch.get_num_threads(), "load": os.getloadavg()[0]}
    write_result(arguments.out, result)
    print(json.dumps({key: result[key] for key in ("saves", "resume") if key in result}, indent=1))
    return 0


def measure_saves(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure steps without saves, with synchronous saves and with background saves, in alternating blocks."""
    from lavis_emovit.checkpoints.checkpoint import CheckpointFacts
    from lavis_emovit.checkpoints.saving import CheckpointSaver
    from lavis_emovit.checkpoints.training_state import Position, TrainingState
    from lavis_emovit.runners.optimizer import adamw_state

    device = torch.device(arguments.device)
    model = make_model(round(arguments.parameters_m * 1e6), device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    batch = tune_batch(model, optimizer, arguments.step_s, device)
    facts = CheckpointFacts("i" * 64, "c" * 64, "f" * 64, {})
    savers = {
        "waited for": CheckpointSaver(folder / "waited", facts, keep_last=1, is_async=False),
        "beside": CheckpointSaver(folder / "beside", facts, keep_last=1, is_async=True),
    }
    seconds: dict[str, list[tuple[float, bool]]] = {name: [] for name in ("no save", *savers)}
    saved_bytes = 0
    # Modes alternate in blocks of a save and its following steps, so other work on the machine affects all of them.
    for block in range(arguments.steps // arguments.every + 1):
        for mode, times in seconds.items():
            for number in range(arguments.every):
                started = time.perf_counter()
                step(model, optimizer, batch)
                has_save = mode in savers and number == 0
                if has_save:
                    state = TrainingState(
                        trained={name: value.detach() for name, value in model.named_parameters()},
                        engine=adamw_state(optimizer, model.named_parameters()),
                        position=Position(step=block * arguments.every + number + 1),
                        config_yaml="run: {}\n",
                    )
                    savers[mode].save(state)
                    saved_bytes = state_bytes(state)
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if block:  # the first block is a warm-up, which allocates the memory for copies
                    times.append((time.perf_counter() - started, has_save))
            if mode in savers:
                savers[mode].wait()
    plain_s = statistics.median(value for value, _ in seconds["no save"])
    result: dict[str, Any] = {
        "trained_parameters": sum(value.numel() for value in model.parameters()),
        "checkpoint_bytes": saved_bytes,
        "step_s": plain_s,
    }
    for mode in savers:
        saves = [value - plain_s for value, has_save in seconds[mode] if has_save]
        after = [value for value, has_save in seconds[mode] if not has_save]
        result[mode] = {
            "stall_s": [round(value, 4) for value in saves],
            "median_stall_s": statistics.median(saves),
            "median_stall_steps": statistics.median(saves) / plain_s,
            "slowdown_after": statistics.median(after) / plain_s,
        }
    return result


def make_model(num_parameters: int, device: torch.device) -> torch.nn.Module:
    """Square linear layers with about `num_parameters` weights in total."""
    width = 1024
    layers = max(1, round(num_parameters / (width * width)))
    with device:
        return torch.nn.Sequential(*(torch.nn.Linear(width, width, bias=False) for _ in range(layers)))


def tune_batch(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, step_s: float, device: torch.device
) -> torch.Tensor:
    """A batch with which a step takes about `step_s` seconds."""
    rows = 8
    while True:
        batch = torch.randn(rows, 1024, device=device)
        step(model, optimizer, batch)
        started = time.perf_counter()
        step(model, optimizer, batch)
        if device.type == "cuda":
            torch.cuda.synchronize()
        if time.perf_counter() - started > step_s / 2 or rows > 2**20:
            return batch
        rows *= 2


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: torch.Tensor) -> None:
    """Forward pass, backward pass and AdamW update."""
    optimizer.zero_grad()
    model(batch).square().mean().backward()
    optimizer.step()


def state_bytes(state: Any) -> int:
    """Size of all tensors of a state."""
    tensors = [*state.trained.values(), *state.engine.tensors.values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def measure_resume(folder: Path) -> list[dict[str, Any]]:
    """Seconds from the search for the checkpoint to the first batch, at several positions of an epoch."""
    os.environ["EMOVIT_DATA"] = str(folder / "data")
    from lavis_emovit.plugin import activate

    activate()
    from lavis.common.registry import registry
    from lavis.tasks import setup_task

    from lavis_emovit.runners.config import Config
    from lavis_emovit.runners.loaders import train_steps
    from lavis_emovit.shards.order import num_steps

    options = [
        "datasets.emoset_sketch.build_info.prepare.draw.images_per_class=120",
        "run.global_batch_size=2",
        f"run.output_dir={folder / 'run'}",
        "run.device=cpu",
        "run.report=false",
        "run.tensorboard=false",
        "run.valid_splits=null",
        "run.test_splits=null",
    ]
    config = Config.load(RECIPE, options)
    task = setup_task(config)
    datasets = task.build_datasets(config)
    model = task.build_model(config)
    runner = registry.get_runner_class("runner_emovit")(cfg=config, task=task, model=model, datasets=datasets)
    total = num_steps(len(runner._train_dataset), config.run.global_batch_size)
    seconds: dict[float, list[float]] = {share: [] for share in POSITIONS}
    try:
        for _ in range(3):
            for share in POSITIONS:
                seconds[share].append(resume_once(runner, int(share * total), train_steps))
    finally:
        runner.folder.close()
    return [
        {"steps_done": int(share * total), "of_steps": total, "median_s": statistics.median(times)}
        for share, times in seconds.items()
    ]


def resume_once(runner: Any, steps_done: int, train_steps: Any) -> float:
    """Save a checkpoint at a position; return the seconds from resuming to the first batch."""
    from lavis_emovit.checkpoints.training_state import Position
    from lavis_emovit.paths import list_checkpoints

    class NoLog:
        def sync(self) -> None:
            pass

    for path in list_checkpoints(runner.folder.checkpoints):
        shutil.rmtree(path)
    runner._continuation.save(Position(step=steps_done, epoch=0, step_in_epoch=steps_done), NoLog())
    runner._continuation.wait()
    started = time.perf_counter()
    position = runner._continuation.resume(runner.total_steps)
    steps = train_steps(runner._train_dataset, runner.settings, epoch=0, start_step=position.step_in_epoch)
    next(iter(steps))
    return time.perf_counter() - started


if __name__ == "__main__":
    raise SystemExit(main())
