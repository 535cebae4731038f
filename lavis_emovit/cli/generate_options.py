"""The options that the commands of `emovit generate` share, declared once, and how a command comes by them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer


@dataclass(frozen=True)
class JobOptions:
    """What every command takes: one field an option, with its help text."""

    records: Annotated[Path, typer.Argument(help="Records file (`emovit data import` makes one).")]
    out: Annotated[Path, typer.Option(help="Folder for records.jsonl, the ledger, rejected pairs and the preview.")]
    images: Annotated[Path | None, typer.Option(help="Where picture paths start, if not beside the records.")] = None
    config: Annotated[Path | None, typer.Option(help="YAML with settings; options of this command win.")] = None
    split: Annotated[str | None, typer.Option(help="Records of this split only; 'every' takes all.")] = None
    seed: Annotated[int | None, typer.Option(help="Seed of wordings, examples and mixes.")] = None
    model: Annotated[
        str | None, typer.Option(help="Chat model, or 'offline' (the default): templates, or tables for faces.")
    ] = None
    base_url: Annotated[
        str | None, typer.Option(help="OpenAI-compatible address up to /v1; the key is in OPENAI_API_KEY.")
    ] = None
    in_flight: Annotated[int | None, typer.Option(help="Calls at the same time, up to 1000.")] = None
    rpm: Annotated[float | None, typer.Option(help="Requests per minute.")] = None
    tpm: Annotated[float | None, typer.Option(help="Tokens per minute.")] = None
    max_usd: Annotated[float | None, typer.Option(help="Hard limit on the cost of everything in the ledger.")] = None
    prices: Annotated[Path | None, typer.Option(help="JSON file with prices of models.")] = None
    stream: Annotated[bool, typer.Option("--stream", help="Receive replies piece by piece.")] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask nothing; print what it would cost.")] = False
    batch: Annotated[bool, typer.Option("--batch", help="Use the Batch API: half the price, within a day.")] = False
    wait: Annotated[bool, typer.Option(help="Wait for batches; with --no-wait the same command collects later.")] = True
    held_out: Annotated[list[Path] | None, typer.Option(help="Records of test sets that training must not touch.")] = (
        None
    )
    check_overlap: Annotated[bool, typer.Option(help="Refuse pictures that are in a test set as well.")] = True
    conversations: Annotated[
        bool, typer.Option("--conversations", help="Write LLaVA-style conversations.json as well.")
    ] = False
    shards: Annotated[bool, typer.Option("--shards", help="Build shards of every split in OUT/shards as well.")] = False
    preview: Annotated[int, typer.Option(min=0, help="Pictures on the preview page; 0 writes none.")] = 24

    def chat(self) -> dict[str, Any]:
        """The options about the endpoint that were given, by the names of `ChatSettings`."""
        return given(
            {
                "model": self.model,
                "base_url": self.base_url,
                "max_in_flight": self.in_flight,
                "rpm": self.rpm,
                "tpm": self.tpm,
                "max_usd": self.max_usd,
                "prices": str(self.prices) if self.prices else None,
                "stream": self.stream or None,
            }
        )

    def job(self, **more: Any) -> dict[str, Any]:
        """The options about the job that were given, and `more`, by the names of `JobSettings`."""
        return given({"seed": self.seed, "split": self.split, **more})

    def problems(self, *, has_model: bool) -> list[str]:
        """Options that would do nothing beside the others.

        Args:
            has_model: whether a chat model is asked.
        """
        found = []
        if self.batch and not has_model:
            found.append("--batch means nothing without a model; name one with --model")
        if not self.wait and not self.batch:
            found.append("--no-wait is about batches; give --batch, too")
        if self.batch and self.stream:
            found.append("--stream receives replies piece by piece, which a batch (--batch) does not: give one of them")
        return found


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Options that stand on the command line."""
    return {name: value for name, value in options.items() if value is not None}


def with_job_options(
    function: Callable[..., None], *, leave_out: Collection[str] = (), doc: str | None = None
) -> Callable[..., None]:
    """A command for typer, which reads options out of signatures: those of `JobOptions` and the function's own.

    Args:
        function: takes `JobOptions` first, and options of its own by name.
        leave_out: names that the command does not have; they keep their defaults.
        doc: help of the command; None is the function's docstring.
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
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in (*shared.values(), *own)
        if parameter.name not in leave_out
    ]

    def command(**values: Any) -> None:
        options = JobOptions(**{name: values.pop(name) for name in shared if name in values})
        function(options, **values)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__doc__ = doc or function.__doc__
    return command
