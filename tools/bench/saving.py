"""What a save costs the training, and what going on costs at different positions.

    python tools/bench/saving.py                          # 100 M trained parameters on the CPU: 1.2 GB a checkpoint
    python tools/bench/saving.py --parameters-m 5 --steps 20 --out /tmp/saving.json

A step here is AdamW on weights of that size behind matrix products that take a while. Three ways take turns: no save, a
save that the step waits for, and one beside the training. `stall_s` is how much longer the step with the save took than
the median of the steps without; `slowdown_after` is what the thread costs the steps that follow it.

Going on: a run of the shipped tiny model is stopped at several positions of a long epoch, and the time from looking
for its checkpoint to the first batch is taken. It must not grow with the position, since nothing is replayed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "projects" / "emovit" / "quickstart.yaml"
POSITIONS = (0.0, 0.25, 0.5, 0.75, 0.95)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the figures and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parameters-m", type=float, default=100.0, help="trained parameters, in millions")
    parser.add_argument("--step-s", type=float, default=1.0, help="how long a step takes, about")
    parser.add_argument("--steps", type=int, default=30, help="of each way")
    parser.add_argument("--every", type=int, default=10, help="steps between two saves")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--place", type=Path, help="folder to write into; default: the system's temporary one")
    parser.add_argument("--no-resume", action="store_true", help="leave out the part about going on")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "saving.json")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="saving-", dir=arguments.place) as place:
        result: dict[str, Any] = {"benchmark": "saving", "saves": measure_saves(Path(place), arguments)}
        if not arguments.no_resume:
            result["resume"] = measure_resume(Path(place))
    result |= circumstances(argv if argv is not None else sys.argv[1:])
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: result[key] for key in ("saves", "resume") if key in result}, indent=1))
    return 0


def measure_saves(place: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Steps without saves, with saves that are waited for, and with saves beside them, in turns."""
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
        "waited for": CheckpointSaver(place / "waited", facts, keep_last=1, is_async=False),
        "beside": CheckpointSaver(place / "beside", facts, keep_last=1, is_async=True),
    }
    seconds: dict[str, list[tuple[float, bool]]] = {name: [] for name in ("no save", *savers)}
    saved_bytes = 0
    # Ways take turns in blocks of a save and the steps after it, so that other work on the machine meets all alike.
    for block in range(arguments.steps // arguments.every + 1):
        for way, times in seconds.items():
            for number in range(arguments.every):
                started = time.perf_counter()
                step(model, optimizer, batch)
                has_save = way in savers and number == 0
                if has_save:
                    state = TrainingState(
                        trained={name: value.detach() for name, value in model.named_parameters()},
                        engine=adamw_state(optimizer, model.named_parameters()),
                        position=Position(step=block * arguments.every + number + 1),
                        config_yaml="run: {}\n",
                    )
                    savers[way].save(state)
                    saved_bytes = state_bytes(state)
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if block:  # the first block warms up: memory for copies is taken once
                    times.append((time.perf_counter() - started, has_save))
            if way in savers:
                savers[way].wait()
    plain_s = statistics.median(value for value, _ in seconds["no save"])
    result: dict[str, Any] = {
        "trained_parameters": sum(value.numel() for value in model.parameters()),
        "checkpoint_bytes": saved_bytes,
        "step_s": plain_s,
    }
    for way in savers:
        saves = [value - plain_s for value, has_save in seconds[way] if has_save]
        after = [value for value, has_save in seconds[way] if not has_save]
        result[way] = {
            "stall_s": [round(value, 4) for value in saves],
            "median_stall_s": statistics.median(saves),
            "median_stall_steps": statistics.median(saves) / plain_s,
            "slowdown_after": statistics.median(after) / plain_s,
        }
    return result


def make_model(num_parameters: int, device: torch.device) -> torch.nn.Module:
    """Square layers that have about so many weights together."""
    width = 1024
    layers = max(1, round(num_parameters / (width * width)))
    with device:
        return torch.nn.Sequential(*(torch.nn.Linear(width, width, bias=False) for _ in range(layers)))


def tune_batch(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, step_s: float, device: torch.device
) -> torch.Tensor:
    """A batch with which a step takes about so long."""
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
    """Forward, backward and AdamW."""
    optimizer.zero_grad()
    model(batch).square().mean().backward()
    optimizer.step()


def state_bytes(state: Any) -> int:
    """Bytes of all tensors of a state."""
    tensors = [*state.trained.values(), *state.engine.tensors.values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def measure_resume(place: Path) -> list[dict[str, Any]]:
    """Seconds from looking for the checkpoint to the first batch, for starts at several positions of one epoch."""
    os.environ["EMOVIT_DATA"] = str(place / "data")
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
        f"run.output_dir={place / 'run'}",
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
    found: list[dict[str, Any]] = []
    try:
        for _ in range(3):
            for share in POSITIONS:
                found.append({"position": share, "seconds": resume_once(runner, int(share * total), train_steps)})
    finally:
        runner.folder.close()
    return [
        {
            "steps_done": int(share * total),
            "of_steps": total,
            "median_s": statistics.median(item["seconds"] for item in found if item["position"] == share),
        }
        for share in POSITIONS
    ]


def resume_once(runner: Any, steps_done: int, train_steps: Any) -> float:
    """Save a position by itself, then go on from it up to the first batch."""
    from lavis_emovit.checkpoints.checkpoint import list_checkpoints
    from lavis_emovit.checkpoints.training_state import Position

    class NoLog:
        def sync(self) -> None:
            pass

    import shutil

    for path in list_checkpoints(runner.folder.checkpoints):
        shutil.rmtree(path)
    runner._continuation.save(Position(step=steps_done, epoch=0, step_in_epoch=steps_done), NoLog())
    runner._continuation.wait()
    started = time.perf_counter()
    position = runner._continuation.resume(runner.total_steps)
    steps = train_steps(runner._train_dataset, runner.settings, epoch=0, start_step=position.step_in_epoch)
    next(iter(steps))
    return time.perf_counter() - started


def circumstances(argv: Sequence[str]) -> dict[str, Any]:
    """What the result was measured with."""
    from lavis_emovit.distributed.machine import machine_facts, package_versions

    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return {
        "command": " ".join(["python tools/bench/saving.py", *argv]),
        "clock": "wall time; other work on the machine counts on all sides",
        "date": date.today().isoformat(),
        "commit": commit,
        "versions": package_versions(),
        "machine": {**machine_facts(), "threads": torch.get_num_threads(), "load": os.getloadavg()[0]},
    }


if __name__ == "__main__":
    raise SystemExit(main())
