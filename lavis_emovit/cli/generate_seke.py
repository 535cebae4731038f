"""`emovit generate seke`: missing levels of faces, verified, and instructions from coarse to fine."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lavis_emovit.cli.generate_job import describe, given, open_job, print_estimates, refuse_stopped

if TYPE_CHECKING:
    from lavis_emovit.generation.seke.settings import SekeSettings


class Verification(str, Enum):
    """Who looks at what the answers come to."""

    OFF = "off"
    RULES = "rules"
    DOUBTFUL = "doubtful"
    ALWAYS = "always"


def seke(
    records: Annotated[Path, typer.Argument(help="Records of faces (`emovit data import` makes them).")],
    out: Annotated[Path, typer.Option(help="Folder for records.jsonl, the ledger, the trail and the preview.")],
    images: Annotated[Path | None, typer.Option(help="Where picture paths start, if not beside the records.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML with settings; options of this command win.")] = None,
    split: Annotated[str | None, typer.Option(help="Records of this split only; 'every' takes all.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of wordings.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Vision chat model, or 'offline' for the tables of priors alone (the default).")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="OpenAI-compatible address up to /v1; the key is in OPENAI_API_KEY.")
    ] = None,
    in_flight: Annotated[int | None, typer.Option(help="Calls at the same time, up to 1000.")] = None,
    rpm: Annotated[float | None, typer.Option(help="Requests per minute.")] = None,
    tpm: Annotated[float | None, typer.Option(help="Tokens per minute.")] = None,
    max_usd: Annotated[float | None, typer.Option(help="Hard limit on the cost of everything in the ledger.")] = None,
    prices: Annotated[Path | None, typer.Option(help="JSON file with prices of models.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask nothing; print what it would cost.")] = False,
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
    held_out: Annotated[
        list[Path] | None, typer.Option(help="Records of test sets that training must not touch.")
    ] = None,
    check_overlap: Annotated[bool, typer.Option(help="Refuse pictures that are in a test set as well.")] = True,
    preview: Annotated[int, typer.Option(min=0, help="Pictures on the preview page; 0 writes none.")] = 24,
) -> None:
    """Complete expression, valence and arousal, and action units of faces; write instructions from coarse to fine."""
    from lavis_emovit.cli.generate_settings import read_settings
    from lavis_emovit.generation.outputs import PREVIEW, RECORDS, ledger_line, write_outputs
    from lavis_emovit.generation.pipeline import refuse_held_out
    from lavis_emovit.generation.seke.step import CHECK, TRAIL, check_levels, complete_levels

    chat_options = {
        "model": model, "base_url": base_url, "max_in_flight": in_flight, "rpm": rpm, "tpm": tpm, "max_usd": max_usd,
        "prices": str(prices) if prices else None,
    }  # fmt: skip
    seke_options = {
        "n0": n0, "n_max": n_max, "prior": prior, "sampling": sampling, "adaptive": adaptive,
        "verification": verification.value if verification else None, "priors": str(priors) if priors else None,
    }  # fmt: skip
    chat, _, job_settings, _ = read_settings(
        config, given(chat_options), given({"seed": seed, "split": split}), None, None
    )
    settings = _seke_settings(config, given(seke_options))
    with open_job(records, images, out, job_settings, chat=chat, dry_run=dry_run) as (job, source_sha256):
        if check:
            report = check_levels(job, settings)
            if dry_run:
                print_estimates(job)
                return
            _print_check(report)
            typer.echo(ledger_line(job))
            typer.echo(str(out / CHECK))
            refuse_stopped(report["stopped"])
            return
        if check_overlap and job.settings.split is not None and settings.instructions:
            refuse_held_out(job, None, held_out or ())
        result = complete_levels(job, settings)
        if dry_run:
            print_estimates(job)
            return
        typer.echo(describe(result))
        result.notes["settings"] = settings.model_dump(mode="json")
        write_outputs(job, [result], source=records, source_sha256=source_sha256, num_preview=preview)
        typer.echo(ledger_line(job))
        typer.echo(f"{out / RECORDS}, {out / TRAIL}" + (f", {out / PREVIEW}" if preview else ""))
        refuse_stopped(result.stopped)


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
