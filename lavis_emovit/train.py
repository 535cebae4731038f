"""`python -m lavis.train`, or `python -m lavis_emovit.train`: tune a model with a recipe."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from lavis_emovit.errors import DataError
from lavis_emovit.launch import launch

if TYPE_CHECKING:
    from lavis_emovit.runners.config import Config

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0, 2 for an error that the user can fix, 130 after Ctrl-C, 75 after SIGTERM or SIGUSR1."""
    return launch(
        argv,
        prog="python -m lavis.train",
        description="Tune an EmoVIT model with a recipe. Started again, a run resumes from its newest checkpoint.",
        run=run_recipe,
    )


def run_recipe(cfg_path: str, options: Sequence[str] = (), overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Run a recipe in this process, in which the plugin must be active; returns the content of the run's metrics.json.

    A `first_run` of the recipe comes before it. Cheap checks come first: wrong settings, a folder in use and a finished
    run are found before any weight is loaded.
    """
    from lavis_emovit.runners.config import Config

    config = Config.load(cfg_path, options, overrides)
    if config.first is not None:
        _run(config.first)
        _start_from(config, config.first)
    return _run(config)


def _start_from(config: Config, first: Config) -> None:
    """Let a run begin with the best weights of an earlier one, and log which these are."""
    from lavis_emovit.checkpoints.finding import find_trained

    path, _ = find_trained(first.run.output_dir)
    logger.info("the run in %s starts from %s", config.run.output_dir, path)
    config.model_cfg.load_finetuned, config.model_cfg.finetuned = True, str(path)


def _run(config: Config) -> dict[str, Any]:
    # Imported only now, so that a wrong recipe is refused before torch is loaded.
    from lavis.common.registry import registry
    from lavis.tasks import setup_task

    from lavis_emovit.checkpoints.finding import find_trained
    from lavis_emovit.distributed import processes
    from lavis_emovit.distributed.joining import join_ranks
    from lavis_emovit.distributed.seeding import limit_threads, seed_everything
    from lavis_emovit.models.mapped_files import casts_later
    from lavis_emovit.plugin.registration import register
    from lavis_emovit.runners.drop_samples import reasons_of
    from lavis_emovit.runners.engines import spreads_weights
    from lavis_emovit.runners.run_folder import RunFolder
    from lavis_emovit.runners.splits import check_images, check_stages

    register()  # the datasets beside the recipe
    launch = processes.read_launch()
    join_ranks(launch, config.run)
    # Rank 0 locks the folder and checks it; if it refuses the folder, all ranks do.
    opened: list[RunFolder] = []
    processes.on_main(lambda: opened.append(RunFolder.open(config)))
    with opened[0] if opened else RunFolder.open(config) as folder:
        finished = None
        if not config.run.evaluate:
            finished = processes.on_main(lambda: folder.finished_metrics(with_report=config.run.report))
        if finished is not None:
            logger.info("the run in %s is already finished, see %s", folder.path, folder.metrics_path)
            return finished
        num_threads = limit_threads(config.run.num_threads, launch.local_world_size)
        logger.debug("torch uses %d CPU threads", num_threads)
        seed_everything("start", config.run.seed)
        task = setup_task(config)
        if not config.run.evaluate:
            reasons_of(config.run, task)  # refuses what does not fit before data and weights are loaded
        to_fetch = registry.get_model_class(config.model_cfg.arch).check_weights(config.model)
        if config.run.evaluate and config.run.checkpoint is not None:
            find_trained(config.run.checkpoint)
        try:
            datasets = task.build_datasets(config)
        except DataError as error:
            raise DataError(f"{error}\nAlso, {to_fetch}.") if to_fetch else error from None
        check_stages(config.run, datasets)
        check_images(datasets)
        with casts_later() if spreads_weights(config.run) else nullcontext():
            model = task.build_model(config)
        runner_class = registry.get_runner_class(config.run.runner)
        return runner_class(cfg=config, task=task, model=model, datasets=datasets, folder=folder).train()


if __name__ == "__main__":
    raise SystemExit(main())
