"""Shared by the commands of `emovit generate`: options and settings, and a job from its opening to its results."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer import Argument, Option

from lavis_emovit.errors import ConfigError, DataError, UserError
from lavis_emovit.paths import RECORDS_NAME

if TYPE_CHECKING:
    from lavis_emovit.chat.settings import ChatSettings
    from lavis_emovit.generation.job import Job, JobSettings, StepResult
    from lavis_emovit.generation.mix import Mix
    from lavis_emovit.generation.seke.settings import SekeSettings
    from lavis_emovit.settings import Settings

    SettingsT = TypeVar("SettingsT", bound=Settings)

logger = logging.getLogger(__name__)

OFFLINE = "offline"
SECTIONS = ("chat", "judge", "job", "mix", "seke", "statements", "synthesis")


@dataclass(frozen=True)
class JobOptions:
    """Options of every command: one field per option, with its help text."""

    records: Annotated[Path, Argument(help="Records file, for example from `emovit data import`.")]
    out: Annotated[Path, Option(help="Folder for records.jsonl, the ledger, rejected pairs and the preview.")]
    images: Annotated[Path | None, Option(help="Folder of the image paths, if not the records'.")] = None
    config: Annotated[Path | None, Option(help="YAML file with settings; the command's options take precedence.")] = (
        None
    )
    split: Annotated[str | None, Option(help="Only records of this split; 'every' for all.")] = None
    seed: Annotated[int | None, Option(help="Seed of wordings, examples and mixes.")] = None
    model: Annotated[str | None, Option(help="Chat model, or 'offline' (default): templates, tables for faces.")] = None
    base_url: Annotated[str | None, Option(help="OpenAI-compatible address up to /v1; key: OPENAI_API_KEY.")] = None
    in_flight: Annotated[int | None, Option(help="Simultaneous requests, up to 1000.")] = None
    rpm: Annotated[float | None, Option(help="Requests per minute.")] = None
    tpm: Annotated[float | None, Option(help="Tokens per minute.")] = None
    max_usd: Annotated[float | None, Option(help="Hard limit on the cost of the whole ledger.")] = None
    prices: Annotated[Path | None, Option(help="JSON file with prices of models.")] = None
    stream: Annotated[bool, Option("--stream", help="Stream the replies.")] = False
    dry_run: Annotated[bool, Option("--dry-run", help="Send nothing; print the expected cost.")] = False
    batch: Annotated[bool, Option("--batch", help="Use the Batch API: half the price, within a day.")] = False
    wait: Annotated[bool, Option(help="Wait for batches. With --no-wait, repeat the command to collect.")] = True
    abandon_batches: Annotated[
        bool, Option("--abandon-batches", help="Send again what is in batches that the endpoint no longer has.")
    ] = False
    held_out: Annotated[list[Path] | None, Option(help="Test records that must not overlap with training data.")] = None
    check_overlap: Annotated[bool, Option(help="Reject images that are also in a test set.")] = True
    conversations: Annotated[
        bool, Option("--conversations", help="Also write LLaVA-style conversations-<split>.json.")
    ] = False
    shards: Annotated[bool, Option("--shards", help="Also build shards of every split in OUT/shards.")] = False
    preview: Annotated[int, Option(min=0, help="Images on the preview page; 0 writes no page.")] = 24

    def chat(self) -> dict[str, Any]:
        """The given endpoint options, by the names of `ChatSettings`."""
        same_names = {name: getattr(self, name) for name in ("model", "base_url", "rpm", "tpm", "max_usd")}
        prices = str(self.prices) if self.prices else None
        return given({**same_names, "max_in_flight": self.in_flight, "prices": prices, "stream": self.stream or None})

    def job(self, **more: Any) -> dict[str, Any]:
        """The given job options, and `more`, by the names of `JobSettings`."""
        return given({"seed": self.seed, "split": self.split, **more})

    def problems(self, *, has_model: bool) -> list[str]:
        """Options without effect or in conflict; `has_model` is whether the command uses a chat model."""
        found = []
        if self.batch and not has_model:
            found.append("--batch needs a chat model; add --model")
        if not self.wait and not self.batch:
            found.append("--no-wait applies to batches; add --batch")
        if self.abandon_batches and not self.batch:
            found.append("--abandon-batches applies to batches; add --batch")
        if self.batch and self.stream:
            found.append("--batch cannot stream replies; remove --stream or --batch")
        return found


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Options that the command line contains."""
    return {name: value for name, value in options.items() if value is not None}


def with_job_options(
    function: Callable[..., None], *, exclude: Collection[str] = (), doc: str | None = None
) -> Callable[..., None]:
    """A typer command with the options of `JobOptions`, except `exclude`, and those in the function's signature.

    The function takes `JobOptions` first, and its other options by name. `doc` replaces its docstring as the help.
    """
    shared = inspect.signature(JobOptions, eval_str=True).parameters
    special = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in (*shared.values(), *special)
        if parameter.name not in exclude
    ]

    def command(**values: Any) -> None:
        options = JobOptions(**{name: values.pop(name) for name in shared if name in values})
        function(options, **values)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__doc__ = doc or function.__doc__
    return command


def read_settings(
    config: Path | None,
    chat: dict[str, Any],
    job: dict[str, Any],
    judge: str | None,
    mix: str | None,
    *,
    is_for_teachers: bool = False,
) -> tuple[ChatSettings | None, ChatSettings | None, JobSettings, tuple[str, Mix] | None]:
    """Combine the settings file (YAML with any of `SECTIONS`) with the given options, which take precedence.

    Returns the endpoint (None: the offline writer), that of the judge or None, the settings of the job, and name and
    parts of the mix or None. ConfigError lists all unknown keys and wrong values. `is_for_teachers`: chat models that
    are teachers have the settings of the endpoint, so no writer needs to be named.
    """
    from lavis_emovit.chat.settings import ChatSettings
    from lavis_emovit.generation.job import JobSettings
    from lavis_emovit.generation.mix import MIXES, Mix
    from lavis_emovit.settings import nearest_name, parse_settings

    sections = read_sections(config)
    problems: list[str] = []

    def parse(cls: type[SettingsT], values: dict[str, Any], name: str) -> SettingsT | None:
        parsed, found = parse_settings(cls, values, name)
        problems.extend(found)
        return parsed

    chat_values = {"model": OFFLINE, **sections["chat"], **chat}
    endpoint = parse(ChatSettings, chat_values, "chat") if chat_values["model"] != OFFLINE else None
    wants_judge = bool(judge or sections["judge"])
    # Without a writer, address and limits apply to the judge.
    if endpoint is None and not (wants_judge or is_for_teachers or problems) and set(chat_values) > {"model"}:
        given = sorted(set(chat_values) - {"model"})
        problems.append(f"chat: {', '.join(given)} need a chat model; add --model")
    judge_values = {**chat_values, "temperature": 0.0, **sections["judge"], **({"model": judge} if judge else {})}
    judge_endpoint = parse(ChatSettings, judge_values, "judge") if wants_judge else None
    job_settings = parse(JobSettings, {**sections["job"], **job}, "job")
    chosen: tuple[str, Mix] | None = None
    if mix is not None and mix not in MIXES:
        problems.append(f"--mix: unknown mix '{mix}'{nearest_name(mix, list(MIXES))}")
    elif mix is not None:
        chosen = (mix, MIXES[mix])
    elif sections["mix"]:
        custom = parse(Mix, sections["mix"], "mix")
        chosen = ("own", custom) if custom is not None else None
    if problems or job_settings is None:
        raise ConfigError(problems, str(config) if config and not (chat or job) else "the settings of this command")
    return endpoint, judge_endpoint, job_settings, chosen


def read_step(
    options: JobOptions, settings_class: type[SettingsT], section: str, chosen: dict[str, Any], regenerate: int | None
) -> tuple[ChatSettings | None, JobSettings, SettingsT | None, list[str]]:
    """Settings of the endpoint, the job and a step, and the problems of the latter.

    For the step, the options that are `chosen` take precedence over its section of the settings file.
    """
    from lavis_emovit.settings import parse_settings

    job_options = options.job(regenerate=regenerate)
    chat, _, job_settings, _ = read_settings(options.config, options.chat(), job_options, None, None)
    values = {**read_sections(options.config)[section], **given(chosen)}
    return chat, job_settings, *parse_settings(settings_class, values, section)


def read_sections(path: Path | None) -> dict[str, dict[str, Any]]:
    """The unparsed sections of the settings file. ConfigError if it cannot be read or has unknown sections."""
    from lavis_emovit.settings import nearest_name, read_yaml

    if path is None:
        return {name: {} for name in SECTIONS}
    content = read_yaml(path)
    problems = [
        f"{name}: unknown section{nearest_name(str(name), list(SECTIONS))}" for name in content if name not in SECTIONS
    ]
    problems += [f"{name}: must be a mapping" for name in SECTIONS if not isinstance(content.get(name) or {}, dict)]
    if problems:
        raise ConfigError(problems, str(path))
    return {name: dict(content.get(name) or {}) for name in SECTIONS}


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
    from lavis_emovit.chat.ledger import LEDGER_NAME, Ledger
    from lavis_emovit.chat.prices import price_of
    from lavis_emovit.chat.progress import show_progress
    from lavis_emovit.files import file_sha256
    from lavis_emovit.generation.job import Job
    from lavis_emovit.generation.outputs import check_folder, check_records
    from lavis_emovit.records import find_image_root, image_root_of, lost_image_root, read_records

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
    with Ledger(options.out / LEDGER_NAME) as ledger:
        job = Job(
            source=read_records(options.records),
            # Steps that need no images also run where there are none.
            image_root=find_image_root(options.records, options.images)
            if options.images
            else image_root_of(options.records),
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
        check_records(job)
        if not any((job.image_root / record.image).is_file() for record in job.chosen()):
            lost = lost_image_root(options.records) if options.images is None else None
            was = f" (they were in {lost}, which no longer exists)" if lost is not None else ""
            place = f"none of the {len(job.chosen())} images is in {job.image_root}{was}"
            text = f"{place}. Pass the folder of their paths with --images."
            if purpose := "--shards" if options.shards else images_for:
                raise UserError(f"{text} They are needed for {purpose}.")
            logger.warning("%s", text)
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
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write all output files of a job, print their paths and those of `also`, then raise if the run stopped early.

    The manifest contains the settings `more`, by the name of their section.
    """
    from lavis_emovit.generation.outputs import MANIFEST, PREVIEW, ledger_line, write_outputs

    write_outputs(
        job,
        results,
        source=options.records,
        source_sha256=source_sha256,
        mix=mix,
        seke=seke,
        conversations=options.conversations,
        num_preview=options.preview,
        more=more,
    )
    typer.echo(ledger_line(job))
    names = [RECORDS_NAME, MANIFEST, *also, *([PREVIEW] if options.preview else [])]
    typer.echo(", ".join(str(options.out / name) for name in names))
    if options.shards:
        _build_shards(job, options.out)
    num_under_way = sum(result.under_way for result in results)
    if num_under_way:
        typer.echo(f"{num_under_way} requests are under way in batches; run the same command again to collect them")
    refuse_stopped(results[-1].stopped)
    if not num_under_way and not any(result.num_done for result in results):
        raise UserError(f"no record got any result. {describe(results[-1])}.")


def _build_shards(job: Job, out: Path) -> None:
    from lavis_emovit.shards.writer import write_shards

    folder = out / "shards"
    for split in job.records.splits():
        chosen = job.records.of_split(split)
        try:
            index = write_shards(chosen, job.image_root, folder / split, seed=job.settings.seed, overwrite=True)
        except DataError as error:
            raise DataError(
                f"wrote {out / RECORDS_NAME}, but not the shards of '{split}':\n{error}\nTo skip such records, run "
                f"`emovit shards build {out / RECORDS_NAME} --images {job.image_root} --out {folder} --skip-bad`."
            ) from None
        typer.echo(f"{split}: {index.num_samples} samples in {len(index.shards)} shards in {folder / split}")


def refuse_stopped(reason: str | None) -> None:
    """End a command whose run stopped early with the reason (UserError)."""
    if reason:
        raise UserError(f"stopped early: {reason}. Run the same command again to resume; nothing is paid twice.")


def describe(result: StepResult) -> str:
    from lavis_emovit.generation.kinds import TEMPLATES

    parts = [f"{result.step}: {result.num_done} of {result.num_records} records"]
    if result.num_pairs:
        parts.append(f"{result.num_pairs} pairs")
    if result.num_rejected:
        reasons = ", ".join(f"{reason} {count}" for reason, count in result.reasons.most_common())
        parts.append(f"{result.num_rejected} rejected ({reasons})")
    if result.leak_rate is not None and result.step not in TEMPLATES:
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
