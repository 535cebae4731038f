"""One rank of a job that trains under every engine, one after the other, and writes down what came out.

Usage: matrix.py OUT_FOLDER STATES_FOLDER; with states of another job it goes on from each of them.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from small import SmallModel, SmallTask, learning_rate, settings, steps

from lavis_emovit.runners import processes
from lavis_emovit.runners.engines import build_engine
from lavis_emovit.runners.training_state import EngineState

NUM_STEPS, SAVED_AT = 20, 10
ENGINES = ("torch", "zero0", "zero1", "zero2", "zero3", "zero2_offload", "zero3_offload")


def make(name: str, configs: Path, **changes: Any) -> tuple[Any, SmallModel]:
    model = SmallModel()
    if name == "torch":
        return build_engine(model, SmallTask(), settings(**changes)), model
    changed = {"engine": "deepspeed", "deepspeed_config": str(configs / f"{name}.json"), **changes}
    return build_engine(model, SmallTask(), settings(**changed)), model


def train(engine: Any, first: int, last: int) -> list[dict[str, Any]]:
    rows = []
    for step, batches in enumerate(steps(first, last, engine.rank, engine.world_size), start=first):
        ids = [name for batch in batches for name in batch["instance_id"]]
        result = engine.train_step(batches, learning_rate(step))
        rows.append(
            {
                "loss": result.loss,
                "grad_norm": result.grad_norm,
                "num_tokens": result.num_tokens,
                "noted": result.noted["num_long"] if result.noted else [],
                "ids": [name for own in processes.gather_objects(ids) for name in own],
            }
        )
    return rows


def save(engine: Any, stem: Path) -> None:
    trained, state = engine.trained_state(), engine.state()
    if processes.is_main():
        save_file({name: value.cpu().contiguous() for name, value in trained.items()}, f"{stem}.model.safetensors")
        save_file({name: value.cpu().contiguous() for name, value in state.tensors.items()}, f"{stem}.safetensors")
        Path(f"{stem}.json").write_text(json.dumps(state.values))
    processes.barrier()


def load(engine: Any, stem: Path) -> None:
    engine.load_trained(load_file(f"{stem}.model.safetensors"))
    engine.load_state(EngineState(load_file(f"{stem}.safetensors"), json.loads(Path(f"{stem}.json").read_text())))


def main(out: Path, states: Path | None, configs: Path, names: list[str]) -> None:
    launch = processes.read_launch()
    processes.start(launch, device=torch.device("cpu"), timeout_s=60, even_alone=True)
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for name in names:
        began = time.perf_counter()
        engine, model = make(name, configs)
        if states is None:
            first = train(engine, 0, SAVED_AT)
            save(engine, out / name)
            rows = first + train(engine, SAVED_AT, NUM_STEPS)
            save(engine, out / f"{name}-end")
        else:
            load(engine, states / name)
            save(engine, out / f"{name}-back")
            rows = train(engine, SAVED_AT, NUM_STEPS)
            save(engine, out / f"{name}-end")
        image = torch.arange(24.0).reshape(2, 3, 2, 2) / 24
        scores = engine.run(lambda model=model, image=image: model.logits(image)).float().cpu()
        results[name] = {"rows": rows, "scores": scores.tolist(), "seconds": time.perf_counter() - began}
        if name != "torch":
            engine.close()
    if processes.is_main():
        (out / "results.json").write_text(json.dumps(results))
    processes.stop()


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        Path(sys.argv[2]) if sys.argv[2] != "-" else None,
        Path(sys.argv[3]),
        sys.argv[4].split(",") if len(sys.argv) > 4 else list(ENGINES),
    )
