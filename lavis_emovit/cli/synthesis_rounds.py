"""Rounds of synthesis with a training between them: what passed the checks trains the model that writes next."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lavis_emovit.cli.generate_job import JobOptions
from lavis_emovit.cli.serve import KEY_VARIABLE
from lavis_emovit.errors import ConfigError, UserError
from lavis_emovit.paths import RECORDS_NAME

if TYPE_CHECKING:
    from lavis_emovit.chat.settings import ChatSettings

RUNS, SERVE_LOG = "runs", "serve.log"
LAUNCHER = "--launcher"  # the option that names it
_ADDRESS = re.compile(r"serving '.*' at (http://\S+)")
_SHOWN_LINES = 5  # of the log of a server that does not start


@dataclass(frozen=True)
class Training:
    """How the models of the rounds are trained: all from where the recipe starts, each on the records of its round."""

    recipe: Path
    dataset: str  # of the recipe, of a records file; it gets the records
    options: JobOptions
    device: str  # that serves
    launcher: str | None  # that starts the trainings; None: one process each

    @classmethod
    def read(
        cls, recipe: Path, dataset: str | None, options: JobOptions, *, device: str, launcher: str | None
    ) -> Training:
        """ConfigError for a recipe without the dataset, or with several of which none is named, and for a launcher that
        is not there.
        """
        from lavis_emovit.distributed.children import training_command
        from lavis_emovit.settings import nearest_name, read_yaml

        named = read_yaml(recipe).get("datasets")
        names = [str(name) for name in named] if isinstance(named, dict) else []
        if not names:
            raise ConfigError(["datasets: must name the dataset that gets the records of each round"], str(recipe))
        if dataset is None and len(names) > 1:
            raise ConfigError([f"datasets: {', '.join(names)}; choose one of them with --dataset"], str(recipe))
        if dataset is not None and dataset not in names:
            raise ConfigError([f"--dataset: no dataset '{dataset}'{nearest_name(dataset, names)}"], str(recipe))
        if shutil.which(program := training_command(launcher, LAUNCHER, "", ())[0]) is None:
            raise ConfigError([f"{LAUNCHER}: no program '{program}' is installed"], "the options")
        return cls(recipe, dataset or names[0], options, device, launcher)

    def run_rounds(
        self,
        first: ChatSettings,
        write: Callable[[ChatSettings], bool],
        *,
        start: str | None,
        least_rise: float,
        most: int | None,
    ) -> None:
        """Write and train in turns, after the finished rounds of the folder.

        Args:
            first: endpoint of the model of the first round; the others are the same but for model and address.
            write: writes a round by an endpoint; returns whether another one can follow.
            start: tuned model that is served for the first round.

        Raises:
            UserError: a training or a server failed; the same command resumes.
        """
        from lavis_emovit.generation.synthesis import is_over, read_rounds

        has_next = True
        while has_next:
            rounds = read_rounds(self.options.out)
            if is_over(rounds, least_rise) or (most is not None and len(rounds) >= most):
                break
            if rounds and not any(one.num_accepted for one in rounds):
                raise UserError(
                    f"{self.options.out}: no text has passed, so there is nothing to train on; begin with another "
                    "model and another --out"
                )
            if rounds or start is not None:
                name = f"{self.recipe.stem}-{len(rounds)}" if rounds else first.model
                place = self._train(name) if rounds else Path(str(start))
                has_next = self._write_served(first, write, name, place)
            else:
                has_next = write(first)
        rounds = read_rounds(self.options.out)
        best = max(rounds, key=lambda one: one.rate)
        typer.echo(f"{len(rounds)} rounds; the highest acceptance rate is {best.rate:.1%}, of {best.model}")
        if (run := self._run_of(best.model)).is_dir():
            typer.echo(f"its run: {run}")

    def _run_of(self, name: str) -> Path:
        return (self.options.out / RUNS / name).resolve()

    def _train(self, name: str) -> Path:
        """Train on the records of the last round; returns the folder of the run. A finished run is not repeated."""
        from lavis_emovit.distributed.children import run_training, training_command
        from lavis_emovit.distributed.signals import EXIT_STOPPED, RunStopped
        from lavis_emovit.records import find_image_root

        run, node = self._run_of(name), f"datasets.{self.dataset}.build_info"
        images = find_image_root(self.options.records, self.options.images)
        settings = [
            f"run.output_dir={run}",
            f"{node}.prepare.root={images.resolve()}",
            f"{node}.prepare.records.file={(self.options.out / RECORDS_NAME).resolve()}",
            f"{node}.images.storage={run.with_name(name + '-shards')}",
        ]
        typer.echo(f"training {name} in {run}")
        try:
            command = training_command(self.launcher, LAUNCHER, str(self.recipe), settings)
            code = run_training(name, command, LAUNCHER)
        except RunStopped as stopped:
            typer.echo(f"{stopped}; run the same command again to resume from there", err=True)
            raise typer.Exit(EXIT_STOPPED) from None
        if code:
            raise UserError(
                f"the training of {name} ended with code {code}; its messages are above. Run the same command again to "
                "resume; no round is repeated."
            )
        return run

    def _write_served(self, first: ChatSettings, write: Callable[[ChatSettings], bool], name: str, place: Path) -> bool:
        with _served(place, name, first.max_output_tokens, self.device, self.options.out / SERVE_LOG) as address:
            # Limits of an endpoint that costs money do not apply to a process of this command.
            own = {"model": name, "base_url": address, "max_usd": None, "rpm": None, "tpm": None}
            return write(first.model_copy(update=own))


@contextmanager
def _served(place: Path, name: str, max_tokens: int, device: str, log: Path) -> Iterator[str]:
    """`emovit serve` of a tuned model in a process of its own; yields the address. UserError if it does not start."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "lavis_emovit.cli.main", "serve", str(place), "--name", name, "--port", "0"]
    command += ["--max-tokens", str(max_tokens), "--device", device]
    environment = {key: value for key, value in os.environ.items() if key != KEY_VARIABLE}
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    try:
        while (found := _ADDRESS.search(log.read_text(encoding="utf-8"))) is None:
            if process.poll() is not None:
                lines = log.read_text(encoding="utf-8").strip().splitlines()[-_SHOWN_LINES:]
                raise UserError(f"{place}: cannot be served, see {log}:\n" + "\n".join(lines))
            time.sleep(0.1)
        yield found[1]
    finally:
        process.terminate()
        process.wait()
