"""One rank of a job without models and data: it joins, exchanges numbers, and is killed or frozen at some point.

Arguments: the point (`joining`, `training` or `leaving`), the signal, its rank, `run.timeout_s` and the folder of logs.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from lavis_emovit import launch
from lavis_emovit.distributed import heartbeat, joining, processes


def _run(point: str, name: str, lost_rank: int, timeout_s: float, folder: Path) -> None:
    own = processes.read_launch()

    def happen(here: str) -> None:
        if (here, own.rank) == (point, lost_rank):
            time.sleep(2.5 if here != "joining" else 0)  # the others have seen this rank
            (folder / "lost").touch()
            os.kill(os.getpid(), getattr(signal, name))

    happen("joining")
    joining.join_ranks(own, SimpleNamespace(device="cpu", timeout_s=timeout_s, evaluate=True))
    for step in range(60 if point == "leaving" else 10_000):
        heartbeat.note("computing", step=step)
        if step == 50:
            happen("training")
        processes.barrier()
        time.sleep(0.02)
    happen("leaving")


def main() -> int:
    arguments = [value for value in sys.argv[1:] if not value.startswith("--")]
    point, name, rank, timeout_s, folder = arguments
    own = Path(folder, f"pid{os.environ['RANK']}")
    own.with_suffix(".new").write_text(str(os.getpid()))
    own.with_suffix(".new").rename(own)
    log = (Path(folder) / f"rank{os.environ['RANK']}.log").open("w", buffering=1)
    os.dup2(log.fileno(), 2)
    sys.stderr = log
    code = launch.launch(
        ["--cfg-path", "none"], prog="lost", description="",
        run=lambda path, options: _run(point, name, int(rank), float(timeout_s), Path(folder)),
    )  # fmt: skip
    (Path(folder) / f"code{os.environ['RANK']}").write_text(str(code))
    return code


if __name__ == "__main__":
    sys.exit(main())
