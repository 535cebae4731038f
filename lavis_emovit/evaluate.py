"""`python -m lavis.evaluate`, or `python -m lavis_emovit.evaluate`: evaluate models, tuned or not."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis_emovit.errors import ConfigError, UserError
from lavis_emovit.launch import launch
from lavis_emovit.paths import CHECKPOINT_NAME, MANIFEST_NAME, expand_home, output_root
from lavis_emovit.train import run_recipe

if TYPE_CHECKING:
    from lavis_emovit.evaluation.suite_settings import SuiteSettings
    from lavis_emovit.runners.config import Config

logger = logging.getLogger(__name__)

_LAUNCHER = "suite.launcher"  # the setting that names it


def main(argv: Sequence[str] | None = None) -> int:
    return launch(
        argv,
        prog="python -m lavis.evaluate",
        description="Evaluate the models of a suite on its benchmarks, after training those that a recipe of the suite "
        "makes. With a training recipe, evaluate its model on its test splits, with the weights of run.checkpoint.",
        run=run_evaluation,
        resumes_from="after the last answer",
    )


def run_evaluation(cfg_path: str, options: Sequence[str] = ()) -> dict[str, Any]:
    """Run a suite, or evaluate with a training recipe, in this process; returns the content of its metrics.json."""
    from lavis_emovit.evaluation.suite.recipe import load_suite

    suite = load_suite(cfg_path, options, check_names=True)
    if suite is None:
        return run_recipe(cfg_path, options, ["run.evaluate=true"])
    runs = _training_runs(suite)
    from lavis_emovit.evaluation.suite.suite import run_suite
    from lavis_emovit.plugin.registration import register

    register()  # the datasets beside the recipe
    return run_suite(suite, partial(_train_missing, suite, runs))


def _training_runs(suite: SuiteSettings) -> dict[str, Config]:
    """The recipe of every model with `train`, by the model's name; ConfigError lists all problems of all recipes."""
    from lavis_emovit.runners.config import Config

    runs: dict[str, Config] = {}
    problems: list[str] = []
    folders: dict[Path, Any] = {}
    for name, entry in suite.models.items():
        if getattr(entry, "train", None) is None:
            continue
        path = output_root() / expand_home(entry.checkpoint)
        if (path / MANIFEST_NAME).is_file():
            continue  # a checkpoint instead of a run's folder
        if CHECKPOINT_NAME.fullmatch(path.name):
            problems.append(f"suite.models.{name}.checkpoint: there is no {path}; `train` makes runs, not checkpoints")
            continue
        place = path.resolve()  # one folder has several spellings
        if folders.get(place) == entry.train:
            continue  # the run of a model before it
        if folders.setdefault(place, entry.train) != entry.train:
            problems.append(f"suite.models.{name}.train: another model trains {entry.checkpoint} in another way")
        try:
            runs[name] = Config.load(entry.train.recipe, entry.train.options, [f"run.output_dir={entry.checkpoint}"])
        except ConfigError as error:
            problems += [f"suite.models.{name}.train, {entry.train.recipe}: {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(problems, f"suite '{suite.name}'")
    return runs


def _train_missing(suite: SuiteSettings, runs: Mapping[str, Config]) -> None:
    """Train the runs that are not finished, one after the other; an interrupted one resumes."""
    from lavis_emovit.distributed import processes

    commands = processes.on_main(lambda: {name: _command(suite, name, run) for name, run in runs.items()})
    missing = {name: command for name, command in commands.items() if command}
    if missing and processes.world_size() > 1:
        lines = [
            f"suite.models.{name}: not trained yet; run `{shlex.join(command)}`" for name, command in missing.items()
        ]
        hint = "or start the suite in one process, which trains them (suite.launcher says with how many processes)"
        raise ConfigError([*lines, hint], f"suite '{suite.name}'")
    for number, (name, command) in enumerate(missing.items(), start=1):
        logger.info("training %s, run %d of %d: %s", name, number, len(missing), shlex.join(command))
        _run(name, command)


def _command(suite: SuiteSettings, name: str, config: Config) -> list[str]:
    """The command that trains a run, or nothing if it is finished; UserError if its folder has another run."""
    from lavis_emovit.distributed.children import training_command
    from lavis_emovit.runners.run_folder import RunFolder

    try:
        folder = RunFolder.open(config)
    except ConfigError as error:
        hint = f"suite.models.{name}.train=null evaluates the run that is there"
        raise ConfigError([*error.problems, hint], f"suite.models.{name}.train") from None
    with folder:
        if folder.finished_metrics(with_report=config.run.report) is not None:
            return []
    entry = suite.models[name]
    options = [*entry.train.options, f"run.output_dir={entry.checkpoint}"]
    return training_command(suite.launcher, _LAUNCHER, entry.train.recipe, options)


def _run(name: str, command: Sequence[str]) -> None:
    from lavis_emovit.distributed.children import run_training

    if code := run_training(name, command, _LAUNCHER):
        raise UserError(f"suite.models.{name}.train: the training ended with exit code {code}; its messages are above")


if __name__ == "__main__":
    raise SystemExit(main())
