"""From the command line to a run: arguments, logging, exit codes, and what is said when a run ends early."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from lavis_emovit.errors import UserError

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

# How long a rank that fails waits with its end: launchers end all ranks then, and rank 0 has to tell why.
_TELL_S = 3.0


def launch(
    argv: Sequence[str] | None,
    *,
    prog: str,
    description: str,
    run: Callable[[str, Sequence[str]], Any],
    goes_on: str = "from the newest checkpoint",
) -> int:
    """Read the command line and run a recipe; what both commands have in common.

    Args:
        argv: arguments, those of the process if None.
        run: what is done with the recipe and the options.
        goes_on: where the same command goes on after Ctrl-C.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument(
        "--cfg-path", required=True, metavar="RECIPE", help="YAML file, for example projects/emovit/train.yaml"
    )
    parser.add_argument(
        "--options",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="settings over those of the recipe, for example run.max_epoch=2 model.trained_parts=all",
    )
    # The deepspeed launcher passes it; the environment says the same.
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--debug", action="store_true", help="show tracebacks and debug messages")
    arguments = parser.parse_args(argv)
    set_up_logging(debug=arguments.debug)
    try:
        from lavis_emovit.plugin import activate

        activate()
        run(arguments.cfg_path, arguments.options)
        _leave_ranks()
        return 0
    except (Exception, KeyboardInterrupt) as error:
        code = _tell(_worker_ended(error) or error, goes_on)
        if code is None or (arguments.debug and code in (EXIT_USER_ERROR, EXIT_INTERRUPTED)):
            raise
        return code


def _worker_ended(error: BaseException) -> UserError | None:
    if not isinstance(error, RuntimeError):
        return None  # LAVIS may be missing, and the loaders need it
    from lavis_emovit.runners.loaders import worker_ended

    return worker_ended(error)


def _tell(error: BaseException, goes_on: str) -> int | None:
    """Tell of the end of a run, here and to the other ranks; the exit code, or None for what is a bug.

    A message that all ranks have is printed by rank 0 alone.
    """
    if isinstance(error, KeyboardInterrupt):
        _print_once(f"stopped; the same command goes on {goes_on}")
        return EXIT_INTERRUPTED
    # Looked up and not imported: where LAVIS itself is missing, these cannot be loaded.
    signals = sys.modules.get("lavis_emovit.distributed.signals")
    if signals is not None and isinstance(error, signals.RunStopped):
        _print_once(f"{error}; the same command goes on from there")
        return signals.EXIT_STOPPED
    heartbeat = sys.modules.get("lavis_emovit.distributed.heartbeat")
    watch = heartbeat.current() if heartbeat is not None else None
    if heartbeat is not None and watch is not None:
        # A collective fails when another rank has left it: that rank is the news.
        lost = watch.verdict(wait_s=_TELL_S if heartbeat.is_exchange_error(error) else 0.0)
        if lost is not None:
            watch.stop()
            return heartbeat.EXIT_RANK_LOST
        watch.leave_word(str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")
    if isinstance(error, UserError):
        _print_once(f"error: {error}")
        if watch is not None:
            time.sleep(_TELL_S)
        return EXIT_USER_ERROR
    return None


def _print_once(text: str) -> None:
    """To standard error, on rank 0; before the ranks have met, on the first rank of each machine."""
    heartbeat = sys.modules.get("lavis_emovit.distributed.heartbeat")
    name = "RANK" if heartbeat is not None and heartbeat.current() is not None else "LOCAL_RANK"
    if os.environ.get(name, os.environ.get("SLURM_PROCID" if name == "RANK" else "SLURM_LOCALID", "0")) == "0":
        print(text, file=sys.stderr)


def _leave_ranks() -> None:
    """Go when all ranks have come to the end."""
    from lavis_emovit.distributed import heartbeat, processes

    processes.barrier()
    heartbeat.end()
    processes.stop()


def set_up_logging(*, debug: bool = False) -> None:
    """Our messages to standard error; those of other packages from warnings on."""
    handler = _CurrentStderr()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"))
    own = logging.getLogger("lavis_emovit")
    own.handlers = [handler]
    own.setLevel(logging.DEBUG if debug else logging.INFO)


class _CurrentStderr(logging.Handler):
    """Writes to what standard error is at the moment: a live progress bar puts itself in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)
