"""From the command line to a run: arguments, logging, exit codes, and the message if a run ends early."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from lavis_emovit.distributed.signals import EXIT_INTERRUPTED, EXIT_STOPPED, RunStopped
from lavis_emovit.distributed.workers import killed_worker
from lavis_emovit.errors import JoinError, UserError
from lavis_emovit.files import os_error_text

EXIT_USER_ERROR = 2

# How long a failing rank waits before it exits: launchers then end all ranks, and rank 0 must report the reason first.
_REPORT_S = 3.0


def launch(
    argv: Sequence[str] | None,
    *,
    prog: str,
    description: str,
    run: Callable[[str, Sequence[str]], Any],
    resumes_from: str = "from the newest checkpoint",
) -> int:
    """Read the command line and run a recipe: the shared part of both commands. Returns the exit code.

    `run` is called with the path of the recipe and the options; after Ctrl-C, a run resumes at `resumes_from`.
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
        help="settings that override the recipe's, for example run.max_epoch=2 model.trained_parts=all",
    )
    # The deepspeed launcher passes it; the same number is in the environment.
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--debug", action="store_true", help="show tracebacks and debug messages")
    arguments = parser.parse_args(argv)
    set_up_logging(debug=arguments.debug)
    try:
        from lavis_emovit.plugin import activate

        activate()
        run(arguments.cfg_path, arguments.options)
        from lavis_emovit.distributed import heartbeat, processes

        processes.barrier()
        heartbeat.end()
        processes.stop()
        return 0
    except (Exception, KeyboardInterrupt) as error:
        code = _report(killed_worker(error) or error, resumes_from)
        if code is None or (arguments.debug and code in (EXIT_USER_ERROR, EXIT_INTERRUPTED)):
            raise
        return code


def _report(error: BaseException, resumes_from: str) -> int | None:
    """Report the error that ends a run, here and to the other ranks. Only rank 0 prints a message that all ranks have.

    Returns the exit code, or None if the error is a bug.
    """
    if isinstance(error, OSError) and error.filename is not None:
        error = UserError(os_error_text(error))
    if isinstance(error, KeyboardInterrupt):
        _print_once(f"stopped; run the same command again to resume {resumes_from}")
        return EXIT_INTERRUPTED
    if isinstance(error, RunStopped):
        _print_once(f"{error}; run the same command again to resume from there")
        return EXIT_STOPPED
    # Not imported: it loads torch, and if it is not loaded yet, the error is not about ranks.
    heartbeat = sys.modules.get("lavis_emovit.distributed.heartbeat")
    watch = heartbeat.current() if heartbeat is not None else None
    if heartbeat is not None and watch is not None:
        # A collective fails if another rank has left it: report that rank instead.
        lost = watch.verdict(wait_s=_REPORT_S if heartbeat.is_exchange_error(error) else 0.0)
        if lost is not None:
            watch.stop()
            return heartbeat.EXIT_RANK_LOST
        watch.report_error(str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")
    if isinstance(error, UserError):
        if isinstance(error, JoinError):
            print(f"error: {error}", file=sys.stderr)
        else:
            _print_once(f"error: {error}")
        if watch is not None:
            time.sleep(_REPORT_S)
        return EXIT_USER_ERROR
    return None


def _print_once(text: str) -> None:
    """Print to standard error, on rank 0; before the ranks have met, on the first rank of each machine."""
    heartbeat = sys.modules.get("lavis_emovit.distributed.heartbeat")
    name = "RANK" if heartbeat is not None and heartbeat.current() is not None else "LOCAL_RANK"
    if os.environ.get(name, os.environ.get("SLURM_PROCID" if name == "RANK" else "SLURM_LOCALID", "0")) == "0":
        print(text, file=sys.stderr)


def set_up_logging(*, debug: bool = False) -> None:
    """Write our messages to standard error; other packages' messages only from warnings on."""
    handler = _CurrentStderr()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"))
    own = logging.getLogger("lavis_emovit")
    own.handlers = [handler]
    own.setLevel(logging.DEBUG if debug else logging.INFO)


class _CurrentStderr(logging.Handler):
    """Writes to the current `sys.stderr`, which a live progress bar replaces."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)
