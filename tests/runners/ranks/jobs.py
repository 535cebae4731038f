"""Jobs of several processes that a launcher would have started, forked off with everything loaded already."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lavis_emovit.runners.engines.torch_engine import TorchEngine

REPOSITORY = Path(__file__).resolve().parents[3]
Ranks = list[Any]


def load_deepspeed() -> None:
    """Load it for the CPU in this process, so that no rank has to, and leave the environment as it was."""
    before = os.environ.get("DS_ACCELERATOR")
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed
    import deepspeed.runtime.superoffload.superoffload_stage3
    import deepspeed.runtime.zero.stage3  # noqa: F401
    from deepspeed.accelerator import get_accelerator

    get_accelerator()
    if before is None:
        del os.environ["DS_ACCELERATOR"]


def stop_before(step: int, start: Callable[[], Any]) -> None:
    """Call `start`, whose training is interrupted before its optimizer step `step`, counted from 1 in this call."""
    real, done = TorchEngine.train_step, 0

    def stops(self: TorchEngine, *arguments: Any) -> Any:
        nonlocal done
        done += 1
        if done == step:
            raise KeyboardInterrupt
        return real(self, *arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(TorchEngine, "train_step", stops)
        with pytest.raises(KeyboardInterrupt):
            start()


def write_zero_configs(folder: Path) -> set[str]:
    """Copies of DeepSpeed's shipped configurations under which small models are spread too; returns their names."""
    folder.mkdir()
    for path in sorted((REPOSITORY / "projects" / "emovit" / "deepspeed").glob("*.json")):
        content = json.loads(path.read_text())
        if content["zero_optimization"]["stage"] == 3:
            # So small a model would stay whole on every rank; and let there be several sub-groups.
            content["zero_optimization"] |= {"stage3_param_persistence_threshold": 0, "sub_group_size": 50}
        (folder / path.name).write_text(json.dumps(content))
    return {path.stem for path in folder.glob("*.json")}


def free_port() -> int:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return own.getsockname()[1]


def start_ranks(num_ranks: int, function: Callable[..., Any], arguments: Sequence[Any], folder: Path) -> Ranks:
    """One process for each rank that calls a function; what they print goes to `folder`/rank<r>.log."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    context = multiprocessing.get_context("fork")

    def run(rank: int) -> None:
        os.environ |= {
            "RANK": str(rank),
            "WORLD_SIZE": str(num_ranks),
            "LOCAL_RANK": str(rank),
            "LOCAL_WORLD_SIZE": str(num_ranks),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        log = (folder / f"rank{rank}.log").open("w", buffering=1)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.stdout = sys.stderr = log
        raise SystemExit(function(*arguments))

    ranks = [context.Process(target=run, args=(rank,)) for rank in range(num_ranks)]
    for rank in ranks:
        rank.start()
    return ranks


def finish(ranks: Ranks, timeout_s: float = 240) -> list[int | None]:
    """Exit codes; ranks that do not end are killed and have none."""
    for rank in ranks:
        rank.join(timeout_s)
    codes = [rank.exitcode for rank in ranks]
    for rank in ranks:
        if rank.is_alive():
            rank.kill()
            rank.join()
    return codes


def logs(folder: Path) -> str:
    return "\n".join(f"{path.name}:\n{path.read_text()}" for path in sorted(folder.glob("rank*.log")))
