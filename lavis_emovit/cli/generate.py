"""`emovit generate`: captions, attributes and instructions for records, by a chat model or offline."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from lavis_emovit.cli.generate_job import (
    JobOptions,
    describe,
    finish,
    open_job,
    print_estimates,
    read_settings,
    with_job_options,
)
from lavis_emovit.cli.generate_seke import seke
from lavis_emovit.cli.generate_seke_tests import seke_tests
from lavis_emovit.cli.generate_statements import statements, statements_reviewed
from lavis_emovit.cli.generate_synthesis import synthesis
from lavis_emovit.cli.options import EngineOption, RayAddressOption, RayWorkersOption, open_engine
from lavis_emovit.emotion.labels import Subject
from lavis_emovit.emotion.questions import OptionOrder
from lavis_emovit.generation.kinds import KINDS, TEMPLATES

if TYPE_CHECKING:
    from lavis_emovit.generation.job import StepResult

app = typer.Typer(
    help="Write captions, attributes and instructions, by a chat model or offline.",
    no_args_is_help=True,
    add_completion=False,
)

# Command -> (steps, help). `all` also draws a mix.
COMMANDS: dict[str, tuple[tuple[str, ...], str]] = {
    "captions": (("captions",), "Caption records that have no caption."),
    "attributes": (("attributes",), "Measure light and colour; a vision model names the other missing attributes."),
    "categorical": (("categorical",), "Ask for the emotion, with the label as the answer. Needs no model."),
    "affect": (("affect",), "Ask for valence and arousal, with the values as the answer. Needs no model."),
    "attribute": (("attribute",), "Ask for each known attribute, such as place, action and light. Needs no model."),
    "expression": (("expression",), "Ask for the expression, its action units and their changes. Needs no model."),
    **{kind.name: ((kind.name,), kind.summary) for kind in KINDS.values()},
    "all": (("captions", "attributes", "categorical", *KINDS), "Run all steps for the images of a mix."),
}
# Option -> the only commands that have it.
ONLY_FOR = {
    "mix": ("all",),
    "allow_short": ("all",),
    "captioner": ("captions", "all"),
    "redo_captions": ("captions", "all"),
    "device": ("captions", "all"),
    "engine": ("captions", "all"),
    "ray_address": ("captions", "all"),
    "workers": ("captions", "all"),
    "vocabulary": ("attributes", "all"),
    "wording": ("categorical", "all"),
    "option_order": ("categorical", "all"),
    "open_set": ("categorical", "all"),
    "about": ("affect",),
    "vision": (*KINDS, "all"),
    "regenerate": ("captions", "attributes", *KINDS, "all"),
    "examples": (*KINDS, "all"),
    "judge": (*KINDS, "all"),
}
_CHAT_OPTIONS = (
    "model", "base_url", "in_flight", "rpm", "tpm", "max_usd", "prices", "stream", "dry_run", "batch", "wait",
    "abandon_batches",
)  # fmt: skip


def _generate(
    options: JobOptions,
    command: str,
    *,
    vision: Annotated[bool, Option("--vision", help="Send the image along with the facts.")] = False,
    examples: Annotated[int | None, Option(help="Worked examples in the prompt.")] = None,
    regenerate: Annotated[int | None, Option(help="Further attempts for rejected replies.")] = None,
    judge: Annotated[str | None, Option(help="Chat model that rates every pair.")] = None,
    mix: Annotated[str | None, Option(help="Number of images per kind: all, released, paper or small.")] = None,
    allow_short: Annotated[bool, Option("--allow-short", help="Use all images of a class that has too few.")] = False,
    captioner: Annotated[
        str | None, Option(help="LAVIS captioner instead of the chat model: lavis:NAME or lavis:NAME/TYPE.")
    ] = None,
    redo_captions: Annotated[bool, Option("--redo-captions", help="Replace existing captions.")] = False,
    device: Annotated[str | None, Option(help="Device of the LAVIS captioner, by default cpu.")] = None,
    engine: EngineOption = "process",
    ray_address: RayAddressOption = None,
    workers: RayWorkersOption = None,
    vocabulary: Annotated[str | None, Option(help="EmoSet's info.json with the allowed terms; by default any.")] = None,
    wording: Annotated[list[int] | None, Option(help="Categorical wordings to choose from.")] = None,
    option_order: Annotated[OptionOrder | None, Option(help="Order of the options in the question.")] = None,
    open_set: Annotated[bool, Option("--open-set", help="Ask without a list of options.")] = False,
    about: Annotated[Subject | None, Option(help="What the values describe; by default decided by record.")] = None,
) -> None:
    from lavis_emovit.generation.pipeline import run_steps

    job_options = options.job(
        vision=vision or None,
        num_examples=examples,
        regenerate=regenerate,
        wordings=tuple(wording) if wording else None,
        open_set=open_set or None,
        option_order=option_order,
        about=about,
    )
    chat, judge_chat, settings, chosen_mix = read_settings(options.config, options.chat(), job_options, judge, mix)
    steps = COMMANDS[command][0]
    if command == "all" and chosen_mix is not None:
        in_mix = {kind for part in chosen_mix[1].parts for kind in part.kinds}
        steps += tuple(kind for kind in TEMPLATES if kind in in_mix and kind not in steps)
    # Options without effect. The same keys are allowed in a settings file, for runs that use them.
    without_effect = {
        "--allow-short applies to mixes; add --mix": allow_short and chosen_mix is None,
        "--device applies to the LAVIS captioner; add --captioner": device is not None and captioner is None,
        "--engine ray applies to the LAVIS captioner; add --captioner": engine == "ray" and captioner is None,
        "--option-order needs a list of options, but --open-set asks without one": open_set
        and option_order is not None,
        "--vision needs a chat model; add --model": vision and chat is None,
        "--examples needs a chat model; add --model": examples is not None and chat is None,
        "--vocabulary needs a chat model; add --model": vocabulary is not None and chat is None,
    }
    sends_images = chat is not None and (settings.vision or steps in (("captions",), ("attributes",)))
    images_for = "--captioner" if captioner is not None else "the model" if sends_images else None
    problems = [text for text, applies in without_effect.items() if applies]
    opened = open_job(options, settings, chat=chat, judge=judge_chat, problems=problems, images_for=images_for)
    with opened as (job, source_sha256), open_engine(engine, ray_address, workers, device=device or "cpu") as started:
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
            engine=started,
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


for _name, (_, _help) in COMMANDS.items():
    _excluded = {"command", *(option for option, commands in ONLY_FOR.items() if _name not in commands)}
    _excluded |= set(_CHAT_OPTIONS) if _name in TEMPLATES else set()
    app.command(_name)(with_job_options(partial(_generate, command=_name), exclude=_excluded, doc=_help))
app.command("seke")(with_job_options(seke))
app.command("seke-tests")(seke_tests)
app.command("statements")(with_job_options(statements, exclude=("held_out", "check_overlap", "conversations")))
app.command("statements-reviewed")(statements_reviewed)
app.command("synthesis")(with_job_options(synthesis))
