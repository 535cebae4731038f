"""Shared by the commands of `emovit generate`: open a job in its folder, write its results, print them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lavis_emovit.cli.generate_options import JobOptions
from lavis_emovit.errors import ConfigError, DataError, UserError

if TYPE_CHECKING:
    from lavis_emovit.chat.settings import ChatSettings
    from lavis_emovit.generation.job import Job, JobSettings, StepResult
    from lavis_emovit.generation.mix import Mix
    from lavis_emovit.generation.seke.settings import SekeSettings

logger = logging.getLogger(__name__)


@contextmanager
def open_job(
    options: JobOptions,
    settings: JobSettings,
    *,
    chat: ChatSettings | None,
    judge: ChatSettings | None = None,
    problems: Sequence[str] = (),
    images_for: str | None = None,
) -> Iterator[tuple[Job, str]]:
    """Open a job over a records file, and yield it with the file's sha256. The ledger stays locked inside the block.

    `problems` are invalid options of the command (ConfigError). `images_for` is what needs the images, for the error if
    all are missing; None only warns. UserError for no record of the split, no image, an endpoint without a key, or a
    cost limit without a price.
    """
    from lavis_emovit.chat.ledger import Ledger
    from lavis_emovit.chat.prices import price_of
    from lavis_emovit.chat.progress import show_progress
    from lavis_emovit.files import file_sha256
    from lavis_emovit.generation.job import Job, find_image_root
    from lavis_emovit.generation.outputs import check_folder
    from lavis_emovit.records import read_records

    found = [*options.problems(has_model=chat is not None), *problems]
    if found:
        raise ConfigError(found, "the options")
    for endpoint in (chat, judge):
        if endpoint is not None:
            if not options.dry_run:
                endpoint.api_key()
            price_of(endpoint)
    if settings.split == "every":
        settings = settings.model_copy(update={"split": None})
    for _ in read_records(options.records):
        pass  # bad records are rejected before the folder is created
    source_sha256 = file_sha256(options.records)
    check_folder(options.out)
    with Ledger(options.out / "ledger.jsonl") as ledger:
        job = Job(
            source=read_records(options.records),
            image_root=find_image_root(options.records, options.images),
            folder=options.out,
            ledger=ledger,
            settings=settings,
            chat=chat,
            judge=judge,
            batch=options.batch,
            wait=options.wait,
            abandon_batches=options.abandon_batches,
            dry_run=options.dry_run,
            display=show_progress,
        )
        if not job.chosen():
            splits = ", ".join(job.records.splits()) or "none"
            raise UserError(
                f"{options.records}: no records of split '{settings.split}' (available: {splits}); see --split"
            )
        _check_images(job, "--shards" if options.shards else images_for)
        yield job, source_sha256


def finish(
    job: Job,
    options: JobOptions,
    results: Sequence[StepResult],
    *,
    source_sha256: str,
    mix: tuple[str, Mix] | None = None,
    seke: SekeSettings | None = None,
    also: Sequence[str] = (),
) -> None:
    """Write all output files of a job, print their paths and those of `also`, then raise if the run stopped early."""
    from lavis_emovit.generation.outputs import MANIFEST, PREVIEW, RECORDS, ledger_line, write_outputs

    write_outputs(
        job,
        results,
        source=options.records,
        source_sha256=source_sha256,
        mix=mix,
        seke=seke,
        conversations=options.conversations,
        num_preview=options.preview,
    )
    typer.echo(ledger_line(job))
    names = [RECORDS, MANIFEST, *also, *([PREVIEW] if options.preview else [])]
    typer.echo(", ".join(str(options.out / name) for name in names))
    if options.shards:
        _build_shards(job, options.out)
    num_under_way = sum(result.under_way for result in results)
    if num_under_way:
        typer.echo(f"{num_under_way} requests are under way in batches; run the same command again to collect them")
    refuse_stopped(results[-1].stopped)
    if not num_under_way and not any(result.num_done for result in results):
        raise UserError(f"no record got any result. {describe(results[-1])}.")


def _check_images(job: Job, purpose: str | None) -> None:
    chosen = job.chosen()
    if any((job.image_root / record.image).is_file() for record in chosen):
        return
    text = f"none of the {len(chosen)} images is in {job.image_root}. Pass the folder of their paths with --images."
    if purpose is not None:
        raise UserError(f"{text} They are needed for {purpose}.")
    logger.warning("%s", text)


def _build_shards(job: Job, out: Path) -> None:
    from lavis_emovit.generation.outputs import RECORDS
    from lavis_emovit.shards.writer import write_shards

    folder = out / "shards"
    for split in job.records.splits():
        chosen = job.records.of_split(split)
        try:
            index = write_shards(chosen, job.image_root, folder / split, seed=job.settings.seed, overwrite=True)
        except DataError as error:
            raise DataError(
                f"wrote {out / RECORDS}, but not the shards of '{split}':\n{error}\nTo skip such records, run `emovit "
                f"shards build {out / RECORDS} --images {job.image_root} --out {folder} --skip-bad`."
            ) from None
        typer.echo(f"{split}: {index.num_samples} samples in {len(index.shards)} shards in {folder / split}")


def refuse_stopped(reason: str | None) -> None:
    """End a command whose run stopped early with the reason (UserError)."""
    if reason:
        raise UserError(f"stopped early: {reason}. Run the same command again to resume; nothing is paid twice.")


def describe(result: StepResult) -> str:
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
    parts += [f"{status}: {reason}" for status, reason in result.faults.items()]
    parts += [f"{name}: {_plain(value)}" for name, value in result.notes.items() if value]
    return "; ".join(parts)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def print_estimates(job: Job) -> None:
    from lavis_emovit.chat.prices import load_prices

    if not job.estimates:
        typer.echo("no requests would be sent, so the cost is zero")
        return
    for item in job.estimates:
        cost = f", about ${item.usd:.2f}, at most ${item.usd_worst:.2f}" if item.usd is not None else ""
        paid = f", {item.num_paid} of them already paid" if item.num_paid else ""
        tokens = f"about {item.input_tokens} input and {item.output_tokens} output tokens"
        typer.echo(f"{item.label}: {item.num_requests} requests{paid}, {tokens}{cost}")
    table = load_prices(job.chat.prices if job.chat else None)
    known = [item for item in job.estimates if item.usd is not None and item.usd_worst is not None]
    if known:
        usd, worst = sum(item.usd or 0.0 for item in known), sum(item.usd_worst or 0.0 for item in known)
        typer.echo(f"total about ${usd:.2f}, at most ${worst:.2f} (prices of {table.date}: {table.source})")
    if len(known) < len(job.estimates):
        typer.echo("the table contains no price of this model; pass one with --prices to estimate the cost")
