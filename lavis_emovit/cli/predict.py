"""`emovit predict`: what a tuned model says about images."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from lavis_emovit.errors import UserError

if TYPE_CHECKING:
    from lavis_emovit.tuned.predictions import ImagePrediction

app = typer.Typer(help="Let a tuned model say what it sees in images.", add_completion=False)

KINDS = ("emotion", "valence_arousal", "action_units", "explanation")
_SHOWN_ROWS = 40
_SHOWN_ERRORS = 10


@app.command()
def predict(
    model: Annotated[str, Argument(help="Folder of a run, a checkpoint, an exported folder, or an archive.")],
    images: Annotated[
        list[str], Argument(help="Images, folders, patterns, records files or shards; - reads names from the input.")
    ],
    out: Annotated[Path | None, Option(help="File to write: *.csv, *.jsonl or *.parquet.")] = None,
    kinds: Annotated[
        str | None, Option(help=f"What to ask: {', '.join(KINDS)}, separated by commas; by default as in the run.")
    ] = None,
    explain: Annotated[bool, Option("--explain", help="Also ask why.")] = False,
    labels: Annotated[
        str | None, Option(help="Label set to choose from instead of the run's, such as 'labels: calm, tense'.")
    ] = None,
    top_k: Annotated[int | None, Option(min=1, help="Report the probabilities of this many labels only.")] = None,
    threshold: Annotated[
        float | None,
        Option(min=0.0, max=1.0, help="Give no label below this confidence, calibrated on the validation split."),
    ] = None,
    calibrated: Annotated[bool, Option("--calibrated", help="Calibrate probabilities without a threshold.")] = False,
    image_root: Annotated[Path | None, Option(help="Folder of the image paths of records, if not theirs.")] = None,
    batch_size: Annotated[int, Option(min=1, help="Images at once.")] = 16,
    workers: Annotated[int | None, Option(min=0, help="Processes that read images; by default up to 8.")] = None,
    device: Annotated[str, Option(help="auto, cpu, cuda or cuda:<number>.")] = "auto",
    amp: Annotated[str, Option(help="off, bf16 or fp16.")] = "off",
    step: Annotated[int | None, Option(help="Checkpoint of this step instead of the best one.")] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace the file, also an unfinished one.")] = False,
) -> None:
    """Let a tuned model say what it sees in images. An interrupted command with --out resumes if it is repeated."""
    from lavis_emovit.progress import progress
    from lavis_emovit.tuned.inputs import input_images
    from lavis_emovit.tuned.output import PredictionFile
    from lavis_emovit.tuned.predictions import Asking, PredictionSettings, count_errors

    chosen = _kinds(kinds, explain)
    found = input_images(_places(images), image_root)
    from lavis_emovit import load_tuned
    from lavis_emovit.tuned.predictions import predict as predict_images

    tuned = load_tuned(model, device=device, amp=amp, step=step, labels=labels)
    asked = chosen or [question.kind for question in tuned.questions.questions]
    if not asked:
        from lavis_emovit.tuned.loading import NO_QUESTIONS

        raise UserError(f"{model}: {NO_QUESTIONS}")
    if explain and "explanation" not in asked:
        asked = [*asked, "explanation"]
    askings = tuple(Asking.of(tuned.asked(kind)) for kind in dict.fromkeys(asked))
    workers = _num_workers(workers, len(found), batch_size)
    temperature = 1.0
    if threshold is not None or calibrated:
        from lavis_emovit.tuned.calibrating import calibrate

        calibration = calibrate(tuned, batch_size=batch_size, num_workers=workers)
        temperature = calibration.temperature
        typer.echo(
            f"confidence calibrated on {calibration.num_images} images of {calibration.dataset}: temperature "
            f"{temperature:.3g}, ECE {calibration.ece_before:.3f} before and {calibration.ece_after:.3f} after",
            err=True,
        )
    settings = PredictionSettings(askings, temperature, threshold, top_k)
    made_with = {
        **tuned.adapter.identity(),
        "questions": [(one.kind, one.method, one.benchmark.model_dump(mode="json")) for one in askings],
        "settings": [temperature, threshold, top_k, amp],
    }
    file = PredictionFile(out, made_with, overwrite=overwrite) if out is not None else None
    left = [image for image in found if file is None or image.name not in file.done]
    rows: list[ImagePrediction] = []
    try:
        with progress("predicting", len(found), done=len(found) - len(left)) as line:
            done = len(found) - len(left)
            for batch in predict_images(tuned.adapter, left, settings, batch_size=batch_size, num_workers=workers):
                if file is not None:
                    file.write(batch)
                else:
                    rows += batch
                done += len(batch)
                line.update(done)
        if file is not None:
            rows = file.finish([image.name for image in found])
    finally:
        if file is not None:
            file.close()
    _show(rows, out)
    if count_errors(rows) == len(rows):
        raise UserError(f"no image could be predicted; the first: {rows[0].image}: {rows[0].error}")


def _places(images: Sequence[str]) -> list[str]:
    """The places, with the lines of the standard input in the place of `-`."""
    places: list[str] = []
    for place in images:
        lines = [line.rstrip("\r\n") for line in sys.stdin] if place == "-" else [place]
        places += [line for line in lines if line.strip()]
    if not places:
        raise UserError("no images: the standard input has no lines")
    return places


def _kinds(kinds: str | None, explain: bool) -> list[str]:
    chosen = [kind.strip() for kind in kinds.split(",")] if kinds is not None else []
    for kind in chosen:
        if kind not in KINDS:
            raise UserError(f"--kinds: '{kind}' is not one of {', '.join(KINDS)}")
    return chosen


def _num_workers(given: int | None, num_images: int, batch_size: int) -> int:
    """Processes that read images; none for a few batches, since each takes a second to start."""
    from lavis_emovit.distributed.cores import usable_cpus

    if given is not None:
        return given
    return min(max(0, usable_cpus() - 1), 8, num_images // (4 * batch_size))


def _show(rows: Sequence[ImagePrediction], out: Path | None) -> None:
    """The rows as a table, or a summary if they are in a file."""
    errors = [row for row in rows if row.error is not None]
    if out is None:
        _print_table(rows[:_SHOWN_ROWS])
        if len(rows) > _SHOWN_ROWS:
            typer.echo(f"... and {len(rows) - _SHOWN_ROWS} more images; --out FILE keeps all rows")
    else:
        counts = Counter(row.emotion for row in rows if row.emotion is not None)
        shares = ", ".join(f"{label} {count}" for label, count in counts.most_common())
        typer.echo(f"{out}: {len(rows)} images{f': {shares}' if shares else ''}")
    if abstained := sum(bool(row.abstained) for row in rows):
        typer.echo(f"no label for {abstained} of {len(rows)} images: their confidence is below the threshold")
    if errors:
        typer.echo(f"{len(errors)} of {len(rows)} images could not be predicted:", err=True)
        for row in errors[:_SHOWN_ERRORS]:
            typer.echo(f"  {row.image}: {row.error}", err=True)
        if len(errors) > _SHOWN_ERRORS:
            typer.echo(f"  ... and {len(errors) - _SHOWN_ERRORS} more", err=True)


def _print_table(rows: Sequence[ImagePrediction]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = {
        "image": lambda row: row.image,
        "emotion": lambda row: row.emotion or ("(below the threshold)" if row.abstained else None),
        "probabilities": lambda row: _shares(row.probabilities),
        "valence": lambda row: None if row.valence is None else f"{row.valence:+.2f}",
        "arousal": lambda row: None if row.arousal is None else f"{row.arousal:+.2f}",
        "action units": lambda row: _shares(row.action_units, least=0.5) if row.action_units is not None else None,
        "explanation": lambda row: row.explanation,
        "error": lambda row: row.error,
    }
    used = {name: value for name, value in columns.items() if any(value(row) is not None for row in rows)}
    for name in used:
        table.add_column(name, overflow="fold")
    for row in rows:
        # As text, because names of files may have brackets, which rich reads as markup.
        table.add_row(*(Text(value(row) or "") for value in used.values()))
    Console().print(table)


def _shares(values: dict[str, float] | None, least: float = 0.0) -> str | None:
    if values is None:
        return None
    shown = [(name, share) for name, share in values.items() if share >= least][:5]
    return "  ".join(f"{name} {share:.2f}" for name, share in shown) or "none"
