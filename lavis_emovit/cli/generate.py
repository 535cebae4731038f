"""`emovit generate`: captions, attributes and instructions for records, by a chat model or offline."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lavis_emovit.cli.generate_job import describe, given, open_job, print_estimates, refuse_stopped
from lavis_emovit.cli.generate_seke import seke

if TYPE_CHECKING:
    from lavis_emovit.generation.job import Job, StepResult

app = typer.Typer(
    help="Write captions, attributes and instructions, by a chat model or offline.",
    no_args_is_help=True,
    add_completion=False,
)


class Order(str, Enum):
    """How the options of the categorical question are listed."""

    FIXED = "fixed"
    SHUFFLED = "shuffled"
    ROTATED = "rotated"


# Command -> (steps, help). `all` draws a mix as well.
COMMANDS: dict[str, tuple[tuple[str, ...], str]] = {
    "captions": (("captions",), "Give records a caption where they have none."),
    "attributes": (("attributes",), "Measure light and colour, and let a vision model name what else is missing."),
    "categorical": (("categorical",), "Ask for the emotion, with the label as the answer. Needs no model."),
    "conversation": (("conversation",), "Two simple questions and a complex one about each picture."),
    "reasoning": (("reasoning",), "One question beyond description, with a reasoned answer."),
    "description": (("description",), "A detailed description with its mood."),
    "explanation": (("explanation",), "Which emotion, and why."),
    "all": (
        ("captions", "attributes", "categorical", "conversation", "reasoning", "description", "explanation"),
        "All steps, for the pictures of a mix.",
    ),
}
# Options that only these commands have.
ONLY_FOR = {
    "mix": ("all",),
    "allow_short": ("all",),
    "captioner": ("captions", "all"),
    "redo_captions": ("captions", "all"),
    "device": ("captions", "all"),
    "vocabulary": ("attributes", "all"),
    "wording": ("categorical", "all"),
    "option_order": ("categorical", "all"),
    "open_set": ("categorical", "all"),
    "vision": ("conversation", "reasoning", "description", "explanation", "all"),
    "regenerate": ("captions", "attributes", "conversation", "reasoning", "description", "explanation", "all"),
    "examples": ("conversation", "reasoning", "description", "explanation", "all"),
    "judge": ("conversation", "reasoning", "description", "explanation", "all"),
}
# `categorical` asks no model.
_CHAT_OPTIONS = (
    "model", "base_url", "in_flight", "rpm", "tpm", "max_usd", "prices", "stream", "dry_run", "batch", "wait",
)  # fmt: skip


def _generate(
    command: str,
    records: Annotated[Path, typer.Argument(help="Records file (`emovit data import` makes one).")],
    out: Annotated[Path, typer.Option(help="Folder for records.jsonl, the ledger, rejected pairs and the preview.")],
    images: Annotated[Path | None, typer.Option(help="Where picture paths start, if not beside the records.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML with settings; options of this command win.")] = None,
    split: Annotated[str | None, typer.Option(help="Records of this split only; 'every' takes all.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of wordings, examples and the mix.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Chat model, or 'offline' for templates without any model (the default).")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="OpenAI-compatible address up to /v1; the key is in OPENAI_API_KEY.")
    ] = None,
    in_flight: Annotated[int | None, typer.Option(help="Calls at the same time, up to 1000.")] = None,
    rpm: Annotated[float | None, typer.Option(help="Requests per minute.")] = None,
    tpm: Annotated[float | None, typer.Option(help="Tokens per minute.")] = None,
    max_usd: Annotated[float | None, typer.Option(help="Hard limit on the cost of everything in the ledger.")] = None,
    prices: Annotated[Path | None, typer.Option(help="JSON file with prices of models.")] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Receive replies piece by piece.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask nothing; print what it would cost.")] = False,
    batch: Annotated[bool, typer.Option("--batch", help="Use the Batch API: half the price, within a day.")] = False,
    wait: Annotated[
        bool, typer.Option(help="Wait for batches; with --no-wait the same command collects later.")
    ] = True,
    vision: Annotated[bool, typer.Option("--vision", help="Send the picture along with what is known.")] = False,
    examples: Annotated[int | None, typer.Option(help="Worked examples in the prompt.")] = None,
    regenerate: Annotated[int | None, typer.Option(help="How often rejected replies are asked for again.")] = None,
    judge: Annotated[str | None, typer.Option(help="Chat model that looks at every pair.")] = None,
    mix: Annotated[str | None, typer.Option(help="Counts of pictures: all, released, paper or small.")] = None,
    allow_short: Annotated[
        bool, typer.Option("--allow-short", help="Take what there is where a class has too few pictures.")
    ] = False,
    captioner: Annotated[
        str | None, typer.Option(help="LAVIS captioner instead of the model: lavis:NAME or lavis:NAME/TYPE.")
    ] = None,
    redo_captions: Annotated[
        bool, typer.Option("--redo-captions", help="Write new captions for records that have one.")
    ] = False,
    device: Annotated[str, typer.Option(help="Where the LAVIS captioner runs.")] = "cpu",
    vocabulary: Annotated[Path | None, typer.Option(help="EmoSet's info.json, for the terms of attributes.")] = None,
    wording: Annotated[list[int] | None, typer.Option(help="Categorical wordings to choose from.")] = None,
    option_order: Annotated[Order | None, typer.Option(help="Order of the options in the question.")] = None,
    open_set: Annotated[bool, typer.Option("--open-set", help="Ask without a list of options.")] = False,
    held_out: Annotated[
        list[Path] | None, typer.Option(help="Records of test sets that training must not touch.")
    ] = None,
    check_overlap: Annotated[bool, typer.Option(help="Refuse pictures that are in a test set as well.")] = True,
    conversations: Annotated[
        bool, typer.Option("--conversations", help="Write LLaVA-style conversations.json as well.")
    ] = False,
    shards: Annotated[
        bool, typer.Option("--shards", help="Build shards of every split in OUT/shards as well.")
    ] = False,
    preview: Annotated[int, typer.Option(min=0, help="Pictures on the preview page; 0 writes none.")] = 24,
) -> None:
    from lavis_emovit.cli.generate_settings import read_settings
    from lavis_emovit.generation.outputs import MANIFEST, PREVIEW, RECORDS, ledger_line, write_outputs
    from lavis_emovit.generation.pipeline import run_steps

    chat_options = {
        "model": model, "base_url": base_url, "max_in_flight": in_flight, "rpm": rpm, "tpm": tpm, "max_usd": max_usd,
        "prices": str(prices) if prices else None, "stream": stream or None,
    }  # fmt: skip
    job_options = {
        "seed": seed, "split": split, "vision": vision or None, "num_examples": examples, "regenerate": regenerate,
        "wordings": tuple(wording) if wording else None, "open_set": open_set or None,
        "option_order": option_order.value if option_order else None,
    }  # fmt: skip
    chat, judge_chat, settings, chosen_mix = read_settings(config, given(chat_options), given(job_options), judge, mix)
    with open_job(
        records, images, out, settings, chat=chat, judge=judge_chat, batch=batch, wait=wait, dry_run=dry_run
    ) as (job, source_sha256):
        results: list[StepResult] = []
        for result in run_steps(
            job,
            COMMANDS[command][0],
            mix=chosen_mix[1] if chosen_mix and command == "all" else None,
            allow_short=allow_short,
            captioner=captioner,
            redo_captions=redo_captions,
            vocabulary=vocabulary,
            device=device,
            held_out=held_out or (),
            check_overlap=check_overlap,
        ):
            results.append(result)
            if not dry_run:
                typer.echo(describe(result))
        if dry_run:
            print_estimates(job)
            return
        write_outputs(
            job,
            results,
            source=records,
            source_sha256=source_sha256,
            mix=chosen_mix if command == "all" else None,
            conversations=conversations,
            num_preview=preview,
        )
        if shards:
            _build_shards(job, out / "shards")
        typer.echo(ledger_line(job))
        typer.echo(f"{out / RECORDS}, {out / MANIFEST}" + (f", {out / PREVIEW}" if preview else ""))
        refuse_stopped(results[-1].stopped)


def _build_shards(job: Job, folder: Path) -> None:
    from lavis_emovit.shards.writer import write_shards

    for split in sorted({record.split for record in job.records}):
        chosen = [record for record in job.records if record.split == split]
        index = write_shards(chosen, job.image_root, folder / split, seed=job.settings.seed, overwrite=True)
        typer.echo(f"{split}: {index.num_samples} samples in {len(index.shards)} shards in {folder / split}")


def _command(name: str) -> Callable[..., None]:
    """`_generate` for one command, with the options that mean something for it."""

    signature = inspect.signature(_generate, eval_str=True)
    parameters = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.name != "command"
        and name in ONLY_FOR.get(parameter.name, (name,))
        and not (name == "categorical" and parameter.name in _CHAT_OPTIONS)
    ]
    defaults = {
        parameter.name: parameter.default for parameter in signature.parameters.values() if parameter not in parameters
    }
    defaults.pop("command", None)

    def with_defaults(**options: Any) -> None:
        _generate(name, **{**defaults, **options})

    with_defaults.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_defaults.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    with_defaults.__doc__ = COMMANDS[name][1]
    return with_defaults


for _name in COMMANDS:
    app.command(_name)(_command(_name))
app.command("seke")(seke)
