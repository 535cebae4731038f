"""`emovit generate synthesis`: texts about faces by a model that knows the truth, of which only the right ones stay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from lavis_emovit.cli.generate_job import JobOptions, describe, finish, open_job, print_estimates, read_step
from lavis_emovit.cli.options import DeviceOption
from lavis_emovit.errors import ConfigError

if TYPE_CHECKING:
    from lavis_emovit.chat.settings import ChatSettings
    from lavis_emovit.generation.job import JobSettings
    from lavis_emovit.generation.synthesis import SynthesisSettings


def synthesis(
    options: JobOptions,
    *,
    regenerate: Annotated[int | None, Option(help="Further attempts for rejected texts.")] = None,
    least_rise: Annotated[
        float | None, Option(help="Rise of the acceptance rate below which the rounds are over.")
    ] = None,
    active_from: Annotated[float | None, Option(help="Lowest intensity of an active unit.")] = None,
    recipe: Annotated[
        Path | None,
        Option(help="Train with this recipe on the accepted texts, write again, until the rounds are over."),
    ] = None,
    dataset: Annotated[
        str | None, Option(help="With --recipe: its dataset that gets the records of each round, if it has several.")
    ] = None,
    start: Annotated[
        str | None, Option(help="With --recipe: tuned model that writes first, such as a run, in place of --model.")
    ] = None,
    rounds: Annotated[int | None, Option(min=2, help="With --recipe: most rounds; by default no limit.")] = None,
    device: DeviceOption = "auto",
    launcher: Annotated[
        str | None,
        Option(help="With --recipe: starts the trainings, as `torchrun --standalone --nproc_per_node=8` does."),
    ] = None,
) -> None:
    """A model writes about faces with the truth in its prompt; texts with wrong units, label or form are dropped."""
    from lavis_emovit.cli.synthesis_rounds import Training
    from lavis_emovit.generation.synthesis import SynthesisSettings

    if start is not None:
        others = {"--model": options.model, "--base-url": options.base_url}
        if unused := [name for name, value in others.items() if value is not None]:
            raise ConfigError(
                [f"--start: writes in place of {name}; remove one of the two" for name in unused], "the options"
            )
        options = replace(options, model=Path(start).resolve().name)
    chosen = {"least_rise": least_rise, "active_from": active_from}
    chat, job_settings, settings, problems = read_step(options, SynthesisSettings, "synthesis", chosen, regenerate)
    if chat is None:
        problems.append("synthesis needs a model that sees the images; add --model, and for `emovit serve` --base-url")
    if recipe is None:
        alone = {
            "--dataset": dataset,
            "--start": start,
            "--rounds": rounds,
            "--device": None if device == "auto" else device,
            "--launcher": launcher,
        }
        problems += [f"{name}: is for rounds with training; add --recipe" for name, value in alone.items() if value]
    else:
        unfit = {"--dry-run": options.dry_run, "--batch": options.batch}
        reason = "does not go with --recipe, whose models write on this machine"
        problems += [f"{name}: {reason}" for name, is_given in unfit.items() if is_given]
    if problems or settings is None or chat is None:
        raise ConfigError(problems, "the settings of this command")

    def write(writer: ChatSettings) -> bool:
        return _write(options, writer, job_settings, settings)

    if recipe is not None:
        training = Training.read(recipe, dataset, options, device=device, launcher=launcher)
        training.run_rounds(chat, write, start=start, least_rise=settings.least_rise, most=rounds)
    elif write(chat):
        typer.echo("next: train on these records, serve the new model under a new name, and run this again with it")


def _write(options: JobOptions, chat: ChatSettings, job_settings: JobSettings, settings: SynthesisSettings) -> bool:
    """One round; returns whether another one can follow."""
    from lavis_emovit.generation.pipeline import refuse_held_out
    from lavis_emovit.generation.synthesis import ROUNDS, is_over, read_rounds, synthesise

    with open_job(options, job_settings, chat=chat, images_for="the model") as (job, source_sha256):
        if options.check_overlap and job.settings.split is not None:
            refuse_held_out(job, None, options.held_out or ())
        result = synthesise(job, chat, settings)
        if options.dry_run:
            print_estimates(job)
            return False
        typer.echo(describe(result))
        rounds = read_rounds(job.folder)
        for number, one in enumerate(rounds, start=1):
            typer.echo(f"round {number}: {one.model}: {one.num_accepted} of {one.num_faces} faces, {one.rate:.1%}")
        more = {"synthesis": settings.model_dump(mode="json")}
        also = (ROUNDS,) if rounds else ()
        finish(job, options, [result], source_sha256=source_sha256, also=also, more=more)
        if is_over(rounds, settings.least_rise):
            typer.echo("the acceptance rate no longer rises: stop here")
            return False
        return True
