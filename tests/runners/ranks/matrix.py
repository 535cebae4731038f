"""One rank of a job that trains under every engine, one after the other, and writes down what came out."""

from __future__ import annotations

import json
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from small import SmallModel, SmallTask, learning_rate, settings, steps

from lavis_emovit.checkpoints.training_state import EngineState
from lavis_emovit.distributed import processes
from lavis_emovit.runners.engines import build_engine
from lavis_emovit.runners.engines.base import NonFiniteError, is_empty

NUM_STEPS, SAVED_AT, NUM_HALF_STEPS = 20, 10, 6
ENGINES = ("torch", "zero0", "zero1", "zero2", "zero3", "zero2_offload", "zero3_offload")


def make(name: str, configs: Path, **changes: Any) -> Any:
    """An engine around a new model; with bf16 autocast its frozen parts are in bf16 as well."""
    if name != "torch":
        changes = {"engine": "deepspeed", "deepspeed_config": str(configs / f"{name}.json"), **changes}
    model = SmallModel()
    if changes.get("amp") == "bf16":
        model.encoder.bfloat16()
        model.head.bfloat16()
    return build_engine(model, SmallTask(), settings(**changes))


def train(engine: Any, first: int, last: int) -> list[dict[str, Any]]:
    rows = []
    for step, batches in enumerate(steps(first, last, engine.rank, engine.world_size), start=first):
        ids = [name for batch in batches for name in batch["instance_id"]]
        result = engine.train_step(engine.prepare(batches), learning_rate(step))
        rows.append(
            {
                "loss": result.loss,
                "grad_norm": result.grad_norm,
                "num_tokens": result.weight,
                "measures": result.measures,
                "num_batches": sum(processes.gather_objects(sum(not is_empty(batch) for batch in batches))),
                "applied": result.applied,
                "noted": result.noted.get("num_long", []),
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


def scores(engine: Any) -> list[Any]:
    image = torch.arange(24.0).reshape(2, 3, 2, 2) / 24
    return engine.run(partial(engine.model.logits, image)).float().cpu().tolist()


def stops_at_nan(engine: Any) -> dict[str, Any]:
    """A step with NaN on the last rank alone, and with nothing else changed."""
    (batches,) = steps(0, 1, engine.rank, engine.world_size)
    if engine.rank == engine.world_size - 1:
        batches[0]["factor"] = float("nan")
    before = scores(engine)
    try:
        engine.train_step(batches, 0.1)
        message = None
    except NonFiniteError as error:
        message = str(error)
    return {"messages": processes.gather_objects(message), "is_unchanged": scores(engine) == before}


def train_under_every_engine(out: Path, configs: Path, states: Path | None = None) -> None:
    """All engines from the beginning; or, with states of another job, each from the middle of its training."""
    processes.start(processes.read_launch(), device=torch.device("cpu"), timeout_s=60, even_alone=True)
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for name in ENGINES:
        engine = make(name, configs)
        first_scores = scores(engine)  # evaluation comes before training, as in a run
        if states is None:
            rows = train(engine, 0, SAVED_AT)
            save(engine, out / name)
            rows += train(engine, SAVED_AT, NUM_STEPS)
        else:
            load(engine, states / name)
            save(engine, out / f"{name}-back")
            rows = train(engine, SAVED_AT, NUM_STEPS)
        save(engine, out / f"{name}-end")
        results[name] = {"rows": rows, "first_scores": first_scores, "scores": scores(engine)}
        if states is None:
            results[name]["nan"] = stops_at_nan(engine)
        engine.close()
    if states is None:
        for amp, name in product(("fp16", "bf16"), ("torch", "zero0", "zero2", "zero3")):
            engine = make(name, configs, amp=amp)
            rows = train(engine, 0, NUM_HALF_STEPS)
            results[f"{name}-{amp}"] = {"rows": rows, "scaler": engine.state().values["scaler"]}
            engine.close()
    if processes.is_main():
        (out / "results.json").write_text(json.dumps(results))
    processes.stop()
