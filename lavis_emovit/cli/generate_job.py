"""What all commands of `emovit generate` share: opening a job in its folder, and the lines that tell of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from lavis_emovit.generation.job import Estimate, Job, JobSettings, StepResult


@contextmanager
def open_job(
    records: Path, images: Path | None, out: Path, settings: JobSettings, **options: Any
) -> Iterator[tuple[Job, str]]:
    """A job over a records file, with the ledger of its folder locked while the block runs.

    Args:
        records: records file.
        images: where picture paths start, if not beside the records.
        out: folder of the job.
        settings: how instructions are written; the split `every` means all records.
        options: further fields of `Job`.

    Yields:
        the job, and the sha256 of the records file.

    Raises:
        UserError: no record is of the split.
    """
    from lavis_emovit.cli.generate_progress import make_display
    from lavis_emovit.errors import UserError
    from lavis_emovit.generation.chat.ledger import Ledger
    from lavis_emovit.generation.job import Job, find_image_root
    from lavis_emovit.generation.outputs import check_folder, file_sha256
    from lavis_emovit.records import read_records

    if settings.split == "every":
        settings = settings.model_copy(update={"split": None})
    source_sha256 = file_sha256(records)
    check_folder(out)
    with Ledger(out / "ledger.jsonl") as ledger:
        job = Job(
            records=list(read_records(records)),
            image_root=find_image_root(records, images),
            folder=out,
            ledger=ledger,
            settings=settings,
            display=make_display(),
            **options,
        )
        if not job.chosen():
            splits = ", ".join(sorted({record.split for record in job.records})) or "none at all"
            raise UserError(f"{records}: no records of split '{settings.split}' (there are: {splits}); see --split")
        yield job, source_sha256


def refuse_stopped(reason: str | None) -> None:
    """End a command whose run stopped early, by the reason (UserError)."""
    from lavis_emovit.errors import UserError

    if reason:
        raise UserError(f"stopped early: {reason}. Run the same command again to go on; nothing is paid twice.")


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Options that stand on the command line."""
    return {name: value for name, value in options.items() if value is not None}


def describe(result: StepResult) -> str:
    """A step's outcome on one line."""
    parts = [f"{result.step}: {result.num_done} of {result.num_records} records"]
    if result.num_pairs:
        parts.append(f"{result.num_pairs} pairs")
    if result.num_rejected:
        reasons = ", ".join(f"{reason} {count}" for reason, count in result.reasons.most_common())
        parts.append(f"{result.num_rejected} rejected ({reasons})")
    if result.leak_rate is not None and result.step != "categorical":
        parts.append(f"label leaks {result.leak_rate:.1%}")
    if result.missing:
        parts.append("without: " + ", ".join(f"{reason} {count}" for reason, count in result.missing.items()))
    parts += [f"{name}: {_plain(value)}" for name, value in result.notes.items() if value]
    return "; ".join(parts)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def print_estimates(job: Job) -> None:
    """What a dry run found: requests, tokens and their cost."""
    from lavis_emovit.generation.chat.prices import load_prices

    if not job.estimates:
        typer.echo("nothing would be asked: the offline writer costs nothing")
        return
    for item in job.estimates:
        typer.echo(_describe_estimate(item))
    table = load_prices(job.chat.prices if job.chat else None)
    known = [item for item in job.estimates if item.usd is not None and item.usd_worst is not None]
    if known:
        usd, worst = sum(item.usd or 0.0 for item in known), sum(item.usd_worst or 0.0 for item in known)
        typer.echo(f"together about ${usd:.2f}, at most ${worst:.2f} (prices of {table.date}: {table.source})")
    if len(known) < len(job.estimates):
        typer.echo("the model has no price in the table; give one with --prices to have costs counted")


def _describe_estimate(item: Estimate) -> str:
    cost = f", about ${item.usd:.2f}, at most ${item.usd_worst:.2f}" if item.usd is not None else ""
    paid = f", {item.num_paid} of them paid already" if item.num_paid else ""
    return (
        f"{item.label}: {item.num_requests} requests{paid}, about {item.input_tokens} input and {item.output_tokens} "
        f"output tokens{cost}"
    )
