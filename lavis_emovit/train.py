"""`python -m lavis.train`, or `python -m lavis_emovit.train`: tune a model as a recipe says."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from lavis_emovit.errors import DataError, UserError

logger = logging.getLogger(__name__)

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


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
) -> int:
    """Read the command line and run a recipe; what both commands have in common.

    Args:
        argv: arguments, those of the process if None.
        run: what is done with the recipe and the options; `run_recipe` if None.
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
    parser.add_argument("--debug", action="store_true", help="show tracebacks and debug messages")
    arguments = parser.parse_args(argv)
    set_up_logging(debug=arguments.debug)
    try:
        from lavis_emovit.plugin import activate

        activate()
        (run or run_recipe)(arguments.cfg_path, arguments.options)
        return 0
    except UserError as error:
        if arguments.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        if arguments.debug:
            raise
        print("stopped; the same command goes on from the newest checkpoint", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        from lavis_emovit.runners.signals import EXIT_STOPPED, RunStopped  # LAVIS is loaded by now

        if not isinstance(error, RunStopped):
            raise
        print(f"{error}; the same command goes on from there", file=sys.stderr)
        return EXIT_STOPPED


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
    from lavis_emovit.runners.config import Config
    from lavis_emovit.runners.resume import find_trained
    from lavis_emovit.runners.run_folder import RunFolder
    from lavis_emovit.runners.seeding import limit_threads, seed_everything

    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size > 1:
        raise UserError(
            f"started as one of {world_size} processes; run.engine=torch trains in one: start it with python -m"
        )
    config = Config.load(cfg_path, options, overrides)
    with RunFolder.open(config) as folder:
        finished = None if config.run.evaluate else folder.finished_metrics(with_report=config.run.report)
        if finished is not None:
            logger.info("the run in %s is finished, see %s; nothing is trained again", folder.path, folder.metrics_path)
            return finished
        num_threads = limit_threads(config.run.num_threads)
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
