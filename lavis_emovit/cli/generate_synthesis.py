"""`emovit generate synthesis`: texts about faces by a model that knows the truth, of which only the right ones stay."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Option

from lavis_emovit.cli.generate_job import JobOptions, describe, finish, open_job, print_estimates, read_step
from lavis_emovit.errors import ConfigError


def synthesis(
    options: JobOptions,
    *,
    regenerate: Annotated[int | None, Option(help="Further attempts for rejected texts.")] = None,
    least_rise: Annotated[
        float | None, Option(help="Rise of the acceptance rate below which the rounds are over.")
    ] = None,
    active_from: Annotated[float | None, Option(help="Lowest intensity of an active unit.")] = None,
) -> None:
    """A model writes about faces with the truth in its prompt; texts with wrong units, label or form are dropped."""
    from lavis_emovit.generation.pipeline import refuse_held_out
    from lavis_emovit.generation.synthesis import ROUNDS, SynthesisSettings, is_over, read_rounds, synthesise

    chosen = {"least_rise": least_rise, "active_from": active_from}
    chat, job_settings, settings, problems = read_step(options, SynthesisSettings, "synthesis", chosen, regenerate)
    if chat is None:
        problems.append("synthesis needs a model that sees the images; add --model, and for `emovit serve` --base-url")
    if problems or settings is None or chat is None:
        raise ConfigError(problems, "the settings of this command")
    with open_job(options, job_settings, chat=chat, images_for="the model") as (job, source_sha256):
        if options.check_overlap and job.settings.split is not None:
            refuse_held_out(job, None, options.held_out or ())
        result = synthesise(job, chat, settings)
        if options.dry_run:
            print_estimates(job)
            return
        typer.echo(describe(result))
        rounds = read_rounds(job.folder)
        for number, one in enumerate(rounds, start=1):
            typer.echo(f"round {number}: {one.model}: {one.num_accepted} of {one.num_faces} faces, {one.rate:.1%}")
        more = {"synthesis": settings.model_dump(mode="json")}
        also = (ROUNDS,) if rounds else ()
        finish(job, options, [result], source_sha256=source_sha256, also=also, more=more)
        if is_over(rounds, settings.least_rise):
            typer.echo("the acceptance rate no longer rises: stop here")
        else:
            typer.echo("next: train on these records, serve the new model under a new name, and run this again with it")
