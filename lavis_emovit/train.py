"""`python -m lavis.train`, or `python -m lavis_emovit.train`: tune a model as a recipe says."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from lavis_emovit.errors import DataError, UserError

logger = logging.getLogger(__name__)

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

# How long a rank that fails waits with its end: launchers end all ranks then, and rank 0 has to tell why.
_TELL_S = 3.0


def main(argv: Sequence[str] | None = None) -> int:
    """Train; the exit code is 0, 2 for something that the user can put right, 75 after SIGTERM or SIGUSR1 with all
    saved that is needed to go on, or 130 after Ctrl-C."""
    return launch(
        argv,
        prog="python -m lavis.train",
        description="Tune an EmoVIT model as a recipe says. Started again, a run goes on from its newest checkpoint.",
    )


def launch(
    argv: Sequence[str] | None,
    *,
    prog: str,
    description: str,
    run: Callable[[str, Sequence[str]], Any] | None = None,
    goes_on: str = "from the newest checkpoint",
) -> int:
    """Read the command line and run a recipe; what both commands have in common.

    Args:
        argv: arguments, those of the process if None.
        run: what is done with the recipe and the options; `run_recipe` if None.
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
        (run or run_recipe)(arguments.cfg_path, arguments.options)
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
    signals = sys.modules.get("lavis_emovit.runners.signals")
    if signals is not None and isinstance(error, signals.RunStopped):
        _print_once(f"{error}; the same command goes on from there")
        return signals.EXIT_STOPPED
    heartbeat = sys.modules.get("lavis_emovit.runners.heartbeat")
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
    heartbeat = sys.modules.get("lavis_emovit.runners.heartbeat")
    name = "RANK" if heartbeat is not None and heartbeat.current() is not None else "LOCAL_RANK"
    if os.environ.get(name, os.environ.get("SLURM_PROCID" if name == "RANK" else "SLURM_LOCALID", "0")) == "0":
        print(text, file=sys.stderr)


def _leave_ranks() -> None:
    """Go when all ranks have come to the end."""
    from lavis_emovit.runners import heartbeat, processes

    processes.barrier()
    heartbeat.end()
    processes.stop()


def run_recipe(cfg_path: str, options: Sequence[str] = (), overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Run a recipe in this process, which must have LAVIS and the plugin loaded.

    What is cheap comes first: a wrong setting, a folder in use or a finished run is known before any weight is loaded.

    Returns:
        what the run's metrics.json holds.

    Raises:
        UserError: something that the user can put right.
    """
    from lavis.common.registry import registry
    from lavis.tasks import setup_task

    from lavis_emovit.models.settings import ModelSettings
    from lavis_emovit.models.weights import check_weights
    from lavis_emovit.runners import processes
    from lavis_emovit.runners.config import Config
    from lavis_emovit.runners.resume import find_trained
    from lavis_emovit.runners.run_folder import RunFolder
    from lavis_emovit.runners.seeding import limit_threads, seed_everything

    launch = processes.read_launch()
    config = Config.load(cfg_path, options, overrides)
    _join_ranks(launch, config.run)
    # Rank 0 locks the folder and looks at it; what it refuses, all refuse.
    opened: list[RunFolder] = []
    processes.on_main(lambda: opened.append(RunFolder.open(config)))
    with opened[0] if opened else RunFolder.open(config) as folder:
        finished = None
        if not config.run.evaluate:
            finished = processes.on_main(lambda: folder.finished_metrics(with_report=config.run.report))
        if finished is not None:
            logger.info("the run in %s is finished, see %s; nothing is trained again", folder.path, folder.metrics_path)
            return finished
        num_threads = limit_threads(config.run.num_threads, launch.local_world_size)
        logger.debug("torch uses %d CPU threads", num_threads)
        seed_everything("start", config.run.seed)
        task = setup_task(config)
        to_fetch = check_weights(config.model) if isinstance(config.model, ModelSettings) else None
        if config.run.evaluate and config.run.checkpoint is not None:
            find_trained(config.run.checkpoint)
        try:
            datasets = task.build_datasets(config)
        except DataError as error:
            raise DataError(f"{error}\nBesides, {to_fetch}.") if to_fetch else error from None
        model = task.build_model(config)
        runner_class = registry.get_runner_class(config.run.runner)
        return runner_class(cfg=config, task=task, model=model, datasets=datasets, folder=folder).train()


def _join_ranks(launch: Any, run: Any) -> None:
    """Meet the other processes of the run, and begin to watch each other."""
    from lavis_emovit.runners import heartbeat, processes
    from lavis_emovit.runners.engines.devices import choose_device

    if launch.is_alone or processes.world_size() > 1:
        return
    # The heartbeat, which knows who is late, is to speak before a collective gives up.
    processes.start(launch, device=choose_device(run.device, launch), timeout_s=run.timeout_s + 60.0)
    heartbeat.begin(processes.store("heartbeat"), launch.rank, launch.world_size, run.timeout_s)
    heartbeat.note("starting", long=True)
    if launch.rank:
        _name_rank(launch.rank)
    logger.info("%d processes (%s), device %s", launch.world_size, launch.launcher, run.device)
    if not run.evaluate and run.global_batch_size < launch.world_size:
        logger.warning(
            "run.global_batch_size is %d for all processes together, so %d of them have nothing to do; set it higher",
            run.global_batch_size,
            launch.world_size - run.global_batch_size,
        )


def _name_rank(rank: int) -> None:
    """What all ranks would say is left to rank 0; of the others one hears what only they can know: of their data."""
    logging.getLogger("lavis_emovit").setLevel(logging.ERROR)
    logging.getLogger("lavis_emovit.datasets").setLevel(logging.WARNING)
    for handler in logging.getLogger("lavis_emovit").handlers:
        handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s rank {rank}: %(message)s", "%H:%M:%S"))


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


if __name__ == "__main__":
    raise SystemExit(main())
