"""`emovit generate seke`: complete and verify missing levels of faces, and write instructions from coarse to fine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Option

from lavis_emovit.cli.facial_teachers import ANSWERS, chat_teachers, print_counts, refuse_detectors
from lavis_emovit.cli.generate_job import (
    JobOptions,
    describe,
    finish,
    given,
    open_job,
    print_estimates,
    read_sections,
    read_settings,
    refuse_stopped,
)
from lavis_emovit.errors import ConfigError, UserError

if TYPE_CHECKING:
    from lavis_emovit.generation.job import Job
    from lavis_emovit.generation.seke.settings import SekeSettings
    from lavis_emovit.teachers.catalogue import AnyTeacher
    from lavis_emovit.teachers.looking import Looking


def seke(
    options: JobOptions,
    *,
    teacher: Annotated[
        list[str] | None,
        Option(help="Teacher that answers in place of samples of a chat model, as of `facial annotate`; repeat it."),
    ] = None,
    answers: Annotated[
        Path | None, Option(help="Answers of `emovit facial annotate`; missing ones are added. Default: in OUT.")
    ] = None,
    check: Annotated[bool, Option("--check", help="Hide known levels, measure their completion; no records.")] = False,
    n0: Annotated[int | None, Option(help="Answers per face in the first round.")] = None,
    n_max: Annotated[int | None, Option(help="Highest number of answers per face.")] = None,
    prior: Annotated[bool | None, Option(help="Use the tables, in questions and rules.")] = None,
    sampling: Annotated[bool | None, Option(help="Request several answers; --no-sampling requests one.")] = None,
    adaptive: Annotated[bool | None, Option(help="Request more if answers disagree; --no-adaptive: n0 each.")] = None,
    vary: Annotated[
        str | None, Option(help="What differs between prompts: wording,order,crop,mirror,prior (all), or 'none'.")
    ] = None,
    verification: Annotated[
        Literal["off", "rules", "doubtful", "always"] | None, Option(help="Rules, and a review by the model.")
    ] = None,
    reviewer: Annotated[
        str | None, Option(help="Another chat model that reviews, at the same address; or another teacher.")
    ] = None,
    blind: Annotated[
        bool | None, Option("--blind", help="The reviewer sees no proposal; what it sees differently is rejected.")
    ] = None,
    resamples: Annotated[int | None, Option(help="How often to ask again about rejected items, before discarding.")] = (
        None
    ),
    priors: Annotated[Path | None, Option(help="JSON file with custom tables.")] = None,
    max_error: Annotated[
        float | None, Option(help="With --check: error rate of kept values that thresholds are fitted for.")
    ] = None,
    explanations: Annotated[
        bool | None, Option(help="Also write observation, interpretation and conclusion, from intensities.")
    ] = None,
) -> None:
    """Complete expression, valence and arousal, and action units of faces; write instructions from coarse to fine."""
    from lavis_emovit.generation.pipeline import refuse_held_out
    from lavis_emovit.generation.seke.settings import SekeSettings
    from lavis_emovit.generation.seke.step import CHECK, TRAIL, check_levels, complete_levels
    from lavis_emovit.generation.seke.thresholds import CURVES_CSV, CURVES_JSON, THRESHOLDS
    from lavis_emovit.settings import parse_settings
    from lavis_emovit.teachers.chat_teacher import CHAT

    seke_options = {
        "n0": n0, "n_max": n_max, "prior": prior, "sampling": sampling, "adaptive": adaptive,
        "vary": _parts(vary), "verification": verification, "priors": str(priors) if priors else None,
        "explanations": explanations, "max_error": max_error, "review": "blind" if blind else None,
        "resamples": resamples, "teachers": teacher,
    }  # fmt: skip
    values = {**read_sections(options.config)["seke"], **given(seke_options)}
    if values.get("teachers"):
        values |= {"teacher_reviewer": reviewer, "review": "blind"} if reviewer else {}
    names = [str(name) for name in (*(values.get("teachers") or ()), values.get("teacher_reviewer"))]
    chat, judge, job_settings, _ = read_settings(
        options.config,
        options.chat(),
        options.job(),
        None if values.get("teachers") else reviewer,
        None,
        is_for_teachers=any(name.startswith(CHAT) for name in names),
    )
    settings, wrong = parse_settings(SekeSettings, values, "seke")
    if settings is None:
        only_file = options.config is not None and not given(seke_options)
        raise ConfigError(wrong, str(options.config) if only_file else "the settings of this command")
    problems = []
    if check and (options.conversations or options.shards):
        problems.append("--check writes no records, so it cannot export --conversations or --shards")
    if judge is not None and chat is None:
        problems.append("--reviewer needs a model whose answers it reviews; add --model")
    if settings.teachers:
        problems += _wrong_with_teachers(options, settings, has_model=chat is not None, vary=vary, blind=blind)
    elif answers is not None:
        problems.append("--answers has the answers of teachers; add --teacher, or remove it")
    elif chat is None or settings.verification in ("off", "rules"):
        why = f"with verification '{settings.verification}'" if chat is not None else "without --model"
        unused = {"--reviewer": reviewer is not None and chat is not None, "--blind": blind}
        problems += [f"{name}: nothing is reviewed {why}; remove it" for name, is_given in unused.items() if is_given]
    if max_error is not None and not check:
        problems.append("--max-error is for the thresholds that --check fits; add --check, or remove it")
    if check and not options.wait:
        problems.append("--check needs all answers, so it waits for its batches; remove --no-wait")
    chosen = _find_teachers(options, settings)
    images_for = "the model" if chat is not None else "the teachers" if settings.teachers else None
    opened = open_job(options, job_settings, chat=chat, judge=judge, problems=problems, images_for=images_for)
    with opened as (job, source_sha256), _open_teachers(job, chosen, answers) as teachers:
        if check:
            report = check_levels(job, settings, teachers)
            if options.dry_run:
                print_estimates(job)
                return
            _print_check(report)
            _print_costs(job, teachers)
            typer.echo(", ".join(str(options.out / name) for name in (CHECK, THRESHOLDS, CURVES_JSON, CURVES_CSV)))
            refuse_stopped(report["stopped"])
            if not report["levels"]:
                raise UserError("no face has a known level, so there is nothing to hide and compare")
            return
        if options.check_overlap and job.settings.split is not None and settings.instructions:
            refuse_held_out(job, None, options.held_out or ())
        result = complete_levels(job, settings, teachers)
        if options.dry_run:
            print_estimates(job)
            return
        typer.echo(describe(result))
        if teachers is not None:
            print_counts(teachers.counts)
        finish(job, options, [result], source_sha256=source_sha256, seke=settings, also=(TRAIL,))


def _wrong_with_teachers(
    options: JobOptions, settings: SekeSettings, *, has_model: bool, vary: str | None, blind: bool | None
) -> list[str]:
    """Options that have no effect on teachers."""
    reviews, never = settings.teacher_reviewer is not None, settings.verification in ("off", "rules")
    found = {
        "--model: teachers answer in place of a chat model; remove --model or --teacher": has_model,
        "--dry-run: the requests of teachers are not estimated; remove it": options.dry_run,
        "--vary: teachers get no prompt that could vary; remove it": vary is not None,
        "--blind: no teacher reviews; add --reviewer with the name of another one": blind and not reviews,
        f"--reviewer: nothing is reviewed with verification '{settings.verification}'; remove it": reviews and never,
    }
    return [text for text, is_given in found.items() if is_given]


def _find_teachers(options: JobOptions, settings: SekeSettings) -> list[AnyTeacher]:
    """The teachers of the settings, the reviewer last; an error if one is unknown, not installed or a detector."""
    from lavis_emovit.teachers.catalogue import find_teachers

    reviewers = [] if settings.teacher_reviewer is None else [settings.teacher_reviewer]
    endpoint = {**read_sections(options.config)["chat"], **options.chat()}
    chosen = find_teachers([*settings.teachers, *reviewers], chat_teachers(options.out, endpoint))
    refuse_detectors(chosen)
    for teacher in chosen:
        teacher.require()
    return chosen


@contextmanager
def _open_teachers(job: Job, chosen: Sequence[AnyTeacher], answers: Path | None) -> Iterator[Looking | None]:
    """The teachers with the file of their answers; None without any."""
    from lavis_emovit.teachers.answers import AnswerFile
    from lavis_emovit.teachers.choosing import FaceSettings
    from lavis_emovit.teachers.looking import Looking

    if not chosen:
        yield None
        return
    with AnswerFile(answers or job.folder / ANSWERS) as file:
        yield Looking(job.image_root, chosen, file, FaceSettings())


def _print_costs(job: Job, teachers: Looking | None) -> None:
    from lavis_emovit.generation.outputs import ledger_line

    if teachers is not None:
        print_counts(teachers.counts)
    typer.echo(ledger_line(job))


def _parts(vary: str | None) -> list[str] | None:
    """`crop,mirror` as a list, `none` as an empty one."""
    return None if vary is None else [] if vary == "none" else [part.strip() for part in vary.split(",")]


def _print_check(report: dict[str, Any]) -> None:
    for level, found in report["levels"].items():
        value = "none" if found["value"] is None else f"{found['value']:.3f}"
        if found["low"] is not None:
            value += f" ({found['low']:.3f} to {found['high']:.3f})"
        parts = [
            f"{level}: {found['measure']} {value}, completed for {found['kept']:.1%} of {found['num_faces']} faces",
            f"{found['calls_per_face']:g} calls per face",
        ]
        if found["auroc"] is not None:
            parts.append(f"AUROC of the uncertainty {found['auroc']:.3f}")
        if found["tables"] is not None and None not in found["tables"].values():
            parts.append("single answers with the tables {with:.3f}, without {without:.3f}".format(**found["tables"]))
        if found["without"]:
            parts.append("without: " + ", ".join(f"{reason} {count}" for reason, count in found["without"].items()))
        typer.echo("; ".join(parts))
    for item, found in report["thresholds"].items():
        limit = "no threshold" if found["too_much"] is None else f"at most {found['too_much']:.3f}"
        stop = "" if found["enough"] is None else f", enough at {found['enough']:.3f}"
        typer.echo(
            f"{item}: {limit}{stop}; on held-back labels error {found['error']:.3f} of {found['coverage']:.1%} kept, "
            f"{found['error_of_all']:.3f} of all {found['num_values']}, calibration error {found['ece']:.3f}"
        )
    for status, reason in report["faults"].items():
        typer.echo(f"{status}: {reason}")
