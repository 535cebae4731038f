"""`emovit predict`: what a tuned model says about images."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from lavis_emovit.cli.options import AmpOption, BaseOption, DeviceOption, StepOption
from lavis_emovit.errors import UserError

if TYPE_CHECKING:
    from lavis_emovit.tuned.loading import Tuned
    from lavis_emovit.tuned.predictions import Asking, ImagePrediction

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
    processes: Annotated[int, Option(min=1, help="Processes with a model each, on a GPU or some cores each.")] = 1,
    device: DeviceOption = "auto",
    amp: AmpOption = "off",
    step: StepOption = None,
    base: BaseOption = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace the file, also an unfinished one.")] = False,
) -> None:
    """Let a tuned model say what it sees in images. An interrupted command with --out resumes if it is repeated."""
    from lavis_emovit import load_tuned
    from lavis_emovit.boxes import BoxCounts, box_identity, shows_both
    from lavis_emovit.distributed.workers import killed_worker
    from lavis_emovit.progress import progress
    from lavis_emovit.tuned.inputs import input_images
    from lavis_emovit.tuned.output import PredictionFile
    from lavis_emovit.tuned.predictions import PredictionSettings
    from lavis_emovit.tuned.predictions import predict as predict_images
    from lavis_emovit.tuned.processes import devices_of, predict_in_processes

    chosen = _kinds(kinds)
    found = input_images(_places(images), image_root)
    devices = devices_of(device, processes) if processes > 1 else [device]
    load = partial(load_tuned, model, amp=amp, step=step, base=base, labels=labels)
    tuned = load(device=devices[0])
    askings = tuned.askings(chosen)
    if explain and all(one.kind != "explanation" for one in askings):
        askings += tuned.askings(["explanation"])
    _refuse_confidence(
        askings, {"--threshold": threshold is not None, "--calibrated": calibrated, "--top-k": top_k is not None}
    )
    workers = _num_workers(workers, len(found), batch_size)
    is_calibrated = threshold is not None or calibrated
    temperature = _temperature(tuned, batch_size, workers) if is_calibrated else 1.0
    settings = PredictionSettings(askings, temperature, threshold, top_k, tuned.box)
    counts = BoxCounts()
    for image in found:
        if image.record is not None:
            counts.add(image.record.image, image.record.clip, image.record.box)
        else:
            counts.num_without += 1
    if (problem := counts.problem(tuned.box)) is not None:
        shown = "the whole image and the crop (`box: both`)" if shows_both(tuned.box) else "whole images, without `box`"
        typer.echo(f"warning: {problem}; the model was evaluated on {shown}", err=True)
    made_with = {
        **tuned.adapter.identity(),
        "questions": [(one.kind, one.method, one.benchmark.model_dump(mode="json")) for one in askings],
        "settings": [temperature, threshold, top_k, amp],
        **box_identity(tuned.box),
    }
    file = PredictionFile(out, found, made_with, overwrite=overwrite) if out is not None else None
    left = file.left if file is not None else found
    if file is not None and file.num_changed:
        typer.echo(f"images that changed after their row was written, predicted again: {file.num_changed}", err=True)
    if processes > 1:
        del tuned  # each process has its own
        batches = predict_in_processes(load, left, settings, devices, batch_size=batch_size)
    else:
        batches = predict_images(tuned.adapter, left, settings, batch_size=batch_size, num_workers=workers)
    rows: dict[str, ImagePrediction] = {}
    done = len(found) - len(left)
    try:
        with progress("predicting", len(found), done=done) as line:
            for batch in batches:
                if file is not None:
                    file.write(batch)
                else:
                    rows |= {row.image: row for row in batch}
                done += len(batch)
                line.update(done)
        ordered = file.finish() if file is not None else [rows[image.name] for image in found]
    except RuntimeError as error:
        raise killed_worker(error) or error from None
    finally:
        if file is not None:
            file.close()
    _show(ordered, out)
    if all(row.error is not None for row in ordered):
        raise UserError(f"no image could be predicted; the first: {ordered[0].image}: {ordered[0].error}")


def _refuse_confidence(askings: Sequence[Asking], given: dict[str, bool]) -> None:
    """UserError for a given option about probabilities, if no question has them."""
    if not any(one.kind == "emotion" and one.method != "generation" for one in askings):
        for option in (name for name, is_given in given.items() if is_given):
            raise UserError(
                f"{option}: needs the probabilities of labels, which only questions of the kind emotion have, if the "
                "run scores labels. Add it to --kinds, or omit the option."
            )


def _temperature(tuned: Tuned, batch_size: int, workers: int) -> float:
    from lavis_emovit.tuned.calibrating import calibrate

    found = calibrate(tuned, batch_size=batch_size, num_workers=workers)
    typer.echo(
        f"confidence calibrated on {found.num_images} images of {found.dataset}: temperature {found.temperature:.3g}, "
        f"ECE {found.ece_before:.3f} before and {found.ece_after:.3f} after",
        err=True,
    )
    return found.temperature


def _places(images: Sequence[str]) -> list[str]:
    """The places, with the lines of the standard input in the place of `-`."""
    places: list[str] = []
    for place in images:
        # As bytes, because names of files need not be UTF-8.
        lines = [os.fsdecode(line).rstrip("\r\n") for line in sys.stdin.buffer] if place == "-" else [place]
        places += [line for line in lines if line.strip()]
    if not places:
        raise UserError("no images: the standard input has no lines")
    return places


def _kinds(kinds: str | None) -> list[str]:
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

    folder = _common_folder([row.image for row in rows])
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = {
        f"image in {folder}" if folder else "image": lambda row: row.image.removeprefix(folder),
        "emotion": lambda row: "(below the threshold)" if row.abstained else row.emotion,
        "probabilities": lambda row: _shares(row.probabilities),
        "valence": lambda row: None if row.valence is None else f"{row.valence:+.2f}",
        "arousal": lambda row: None if row.arousal is None else f"{row.arousal:+.2f}",
        "action units": lambda row: _shares(row.action_units, least=0.5) if row.action_units is not None else None,
        "explanation": lambda row: row.explanation,
    }
    used = {name: value for name, value in columns.items() if any(value(row) is not None for row in rows)}
    for name in used:
        table.add_column(Text(name), overflow="fold")
    for row in rows:
        # As text, because names of files may have brackets, which rich reads as markup.
        table.add_row(*(Text(value(row) or "") for value in used.values()))
    Console().print(table)


def _common_folder(names: Sequence[str]) -> str:
    """The folder that all names begin with, with its slash; empty if there is none or one name."""
    shared = os.path.commonprefix(names) if len(names) > 1 else ""  # noqa: RUF071, cut at a slash below
    return shared[: shared.rfind("/") + 1]


def _shares(values: dict[str, float] | None, least: float = 0.0) -> str | None:
    if values is None:
        return None
    shown = [(name, share) for name, share in values.items() if share >= least][:5]
    return "  ".join(f"{name} {share:.2f}" for name, share in shown) or "none"
