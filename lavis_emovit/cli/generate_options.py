"""The options that the commands of `emovit generate` share, and the typed settings that options and file give."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

from typer import Argument, Option

from lavis_emovit.errors import ConfigError

if TYPE_CHECKING:
    from lavis_emovit.chat.settings import ChatSettings
    from lavis_emovit.generation.job import JobSettings
    from lavis_emovit.generation.mix import Mix
    from lavis_emovit.settings import Settings

    SettingsT = TypeVar("SettingsT", bound=Settings)

OFFLINE = "offline"
SECTIONS = ("chat", "judge", "job", "mix", "seke")


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
    hints = get_type_hints(JobOptions, include_extras=True)
    shared = {
        field.name: inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(JobOptions)
    }
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
    config: Path | None, chat: dict[str, Any], job: dict[str, Any], judge: str | None, mix: str | None
) -> tuple[ChatSettings | None, ChatSettings | None, JobSettings, tuple[str, Mix] | None]:
    """Combine the settings file (YAML with any of `SECTIONS`) with the given options, which take precedence.

    Returns the endpoint (None: the offline writer), that of the judge or None, the settings of the job, and name and
    parts of the mix or None. ConfigError lists all unknown keys and wrong values.
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
    if endpoint is None and not wants_judge and not problems and set(chat_values) > {"model"}:
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


def read_sections(path: Path | None) -> dict[str, dict[str, Any]]:
    """The unparsed sections of the settings file. ConfigError if it cannot be read or has unknown sections."""
    import yaml

    from lavis_emovit.settings import nearest_name

    if path is None:
        return {name: {} for name in SECTIONS}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError([f"cannot be read as YAML ({error})"], str(path)) from None
    content = content if content is not None else {}
    if not isinstance(content, dict):
        raise ConfigError([f"expected the sections {', '.join(SECTIONS)}"], str(path))
    problems = [
        f"{name}: unknown section{nearest_name(str(name), list(SECTIONS))}" for name in content if name not in SECTIONS
    ]
    problems += [f"{name}: must be a mapping" for name in SECTIONS if not isinstance(content.get(name) or {}, dict)]
    if problems:
        raise ConfigError(problems, str(path))
    return {name: dict(content.get(name) or {}) for name in SECTIONS}
