"""`emovit generate seke`: missing levels of faces, verified, and instructions from coarse to fine."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lavis_emovit.cli.generate_job import describe, finish, open_job, print_estimates, refuse_stopped
from lavis_emovit.cli.generate_options import JobOptions, given

if TYPE_CHECKING:
    from lavis_emovit.generation.seke.settings import SekeSettings


class Verification(str, Enum):
    """Who looks at what the answers come to."""

    OFF = "off"
    RULES = "rules"
    DOUBTFUL = "doubtful"
    ALWAYS = "always"


def seke(
    options: JobOptions,
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Hide known levels and measure how well they come back; no records.")
    ] = False,
    n0: Annotated[int | None, typer.Option(help="Answers for each face at first.")] = None,
    n_max: Annotated[int | None, typer.Option(help="Answers for each face at most.")] = None,
    prior: Annotated[bool | None, typer.Option(help="Use the tables, in questions and rules.")] = None,
    sampling: Annotated[bool | None, typer.Option(help="Ask many times; without, once.")] = None,
    adaptive: Annotated[
        bool | None, typer.Option(help="Ask more where answers disagree; without, n0 times each.")
    ] = None,
    verification: Annotated[Verification | None, typer.Option(help="Rules, and the model's own review.")] = None,
    priors: Annotated[Path | None, typer.Option(help="JSON file with tables of your own.")] = None,
) -> None:
    """Complete expression, valence and arousal, and action units of faces; write instructions from coarse to fine."""
    from lavis_emovit.cli.generate_settings import read_settings
    from lavis_emovit.generation.outputs import ledger_line
    from lavis_emovit.generation.pipeline import refuse_held_out
    from lavis_emovit.generation.seke.step import CHECK, TRAIL, check_levels, complete_levels

    seke_options = {
        "n0": n0, "n_max": n_max, "prior": prior, "sampling": sampling, "adaptive": adaptive,
        "verification": verification.value if verification else None, "priors": str(priors) if priors else None,
    }  # fmt: skip
    chat, _, job_settings, _ = read_settings(options.config, options.chat(), options.job(), None, None)
    settings = _seke_settings(options.config, given(seke_options))
    idle = []
    if check and (options.conversations or options.shards):
        idle.append("--check writes no records, so there is nothing to export with --conversations or --shards")
    if check and not options.wait:
        idle.append("--check measures when all answers are there, so it waits for its batches; leave out --no-wait")
    pictures_for = "the model" if chat is not None else None
    with open_job(options, job_settings, chat=chat, problems=idle, pictures_for=pictures_for) as (job, source_sha256):
        if check:
            report = check_levels(job, settings)
            if options.dry_run:
                print_estimates(job)
                return
            _print_check(report)
            typer.echo(ledger_line(job))
            typer.echo(str(options.out / CHECK))
            refuse_stopped(report["stopped"])
            return
        if options.check_overlap and job.settings.split is not None and settings.instructions:
            refuse_held_out(job, None, options.held_out or ())
        result = complete_levels(job, settings)
        if options.dry_run:
            print_estimates(job)
            return
        typer.echo(describe(result))
        finish(job, options, [result], source_sha256=source_sha256, seke=settings, also=(TRAIL,))


def _seke_settings(config: Path | None, options: dict[str, Any]) -> SekeSettings:
    from lavis_emovit.cli.generate_settings import read_section
    from lavis_emovit.errors import ConfigError
    from lavis_emovit.generation.seke.settings import SekeSettings
    from lavis_emovit.settings import parse_settings

    settings, problems = parse_settings(SekeSettings, {**read_section(config, "seke"), **options}, "seke")
    if settings is None:
        raise ConfigError(problems, str(config) if config and not options else "the settings of this command")
    return settings


def _print_check(report: dict[str, Any]) -> None:
    if not report["levels"]:
        typer.echo("no level is known of any face, so there is nothing to hide and compare")
    for level, found in report["levels"].items():
        value = "none" if found["value"] is None else f"{found['value']:.3f}"
        if found["low"] is not None:
            value += f" ({found['low']:.3f} to {found['high']:.3f})"
        parts = [
            f"{level}: {found['measure']} {value}, came back for {found['kept']:.1%} of {found['num_faces']} faces"
        ]
        parts.append(f"{found['calls_per_face']:g} calls a face")
        if found["auroc"] is not None:
            parts.append(f"uncertainty ranks errors with AUROC {found['auroc']:.3f}")
        if found["without"]:
            parts.append("without: " + ", ".join(f"{reason} {count}" for reason, count in found["without"].items()))
        typer.echo("; ".join(parts))
