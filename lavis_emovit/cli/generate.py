"""`emovit generate`: captions, attributes and instructions for records, by a chat model or offline."""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from lavis_emovit.cli.generate_job import describe, finish, open_job, print_estimates
from lavis_emovit.cli.generate_options import JobOptions, with_job_options
from lavis_emovit.cli.generate_seke import seke
from lavis_emovit.cli.generate_seke_tests import seke_tests

if TYPE_CHECKING:
    from lavis_emovit.generation.job import StepResult

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
    options: JobOptions,
    command: str,
    *,
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
    device: Annotated[str | None, typer.Option(help="Where the LAVIS captioner runs, by default cpu.")] = None,
    vocabulary: Annotated[
        str | None,
        typer.Option(help="EmoSet's info.json: the terms that a model may name attributes with; without it any."),
    ] = None,
    wording: Annotated[list[int] | None, typer.Option(help="Categorical wordings to choose from.")] = None,
    option_order: Annotated[Order | None, typer.Option(help="Order of the options in the question.")] = None,
    open_set: Annotated[bool, typer.Option("--open-set", help="Ask without a list of options.")] = False,
) -> None:
    from lavis_emovit.cli.generate_settings import read_settings
    from lavis_emovit.generation.pipeline import run_steps

    job_options = options.job(
        vision=vision or None,
        num_examples=examples,
        regenerate=regenerate,
        wordings=tuple(wording) if wording else None,
        open_set=open_set or None,
        option_order=option_order.value if option_order else None,
    )
    chat, judge_chat, settings, chosen_mix = read_settings(options.config, options.chat(), job_options, judge, mix)
    steps = COMMANDS[command][0]
    # What would do nothing beside the other options; the same keys in a settings file may wait there for a model.
    idle = {
        "--allow-short is about mixes; give one with --mix": allow_short and chosen_mix is None,
        "--device is about the LAVIS captioner; give one with --captioner": device is not None and captioner is None,
        "--option-order orders a list of options, which --open-set leaves out": open_set and option_order is not None,
        "--vision sends pictures to a chat model; name one with --model": vision and chat is None,
        "--examples are for a chat model; name one with --model": examples is not None and chat is None,
        "--vocabulary is for a chat model; name one with --model": vocabulary is not None and chat is None,
    }
    sends = chat is not None and (settings.vision or steps in (("captions",), ("attributes",)))
    pictures_for = "--captioner" if captioner is not None else "the model" if sends else None
    problems = [text for text, is_idle in idle.items() if is_idle]
    with open_job(options, settings, chat=chat, judge=judge_chat, problems=problems, pictures_for=pictures_for) as (
        job,
        source_sha256,
    ):
        results: list[StepResult] = []
        for result in run_steps(
            job,
            steps,
            mix=chosen_mix[1] if chosen_mix and command == "all" else None,
            allow_short=allow_short,
            captioner=captioner,
            redo_captions=redo_captions,
            vocabulary=vocabulary,
            device=device or "cpu",
            held_out=options.held_out or (),
            check_overlap=options.check_overlap,
        ):
            results.append(result)
            if not options.dry_run:
                typer.echo(describe(result))
        if options.dry_run:
            print_estimates(job)
            return
        finish(job, options, results, source_sha256=source_sha256, mix=chosen_mix if command == "all" else None)


def _left_out(command: str) -> set[str]:
    """Options that mean nothing for a command."""
    names = {name for name, commands in ONLY_FOR.items() if command not in commands}
    return names | {"command"} | (set(_CHAT_OPTIONS) if command == "categorical" else set())


for _name, (_, _help) in COMMANDS.items():
    app.command(_name)(with_job_options(partial(_generate, command=_name), leave_out=_left_out(_name), doc=_help))
app.command("seke")(with_job_options(seke))
app.command("seke-tests")(seke_tests)
