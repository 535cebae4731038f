"""`emovit facial`: knowledge about faces, from labels to tables and from some levels to the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from lavis_emovit.cli.facial_teachers import (
    ANSWERS,
    ChatConfigOption,
    annotate,
    detect,
    fit_reliability,
    teachers,
)
from lavis_emovit.cli.generate_job import given
from lavis_emovit.errors import ConfigError, DataError

if TYPE_CHECKING:
    from lavis_emovit.records import EmotionRecord

app = typer.Typer(
    no_args_is_help=True,
    help="Annotate and find faces, estimate knowledge about them, conclude from it, and find contradictions.",
)
for _command in (annotate, detect, teachers):
    app.command()(_command)

PriorsOption = Annotated[
    Path | None, Option(help="JSON file of tables, such as one of `emovit facial fit`; by default the packaged ones.")
]
ActiveFromOption = Annotated[float, Option(min=0.01, max=5.0, help="Lowest intensity of an active unit.")]


@app.command()
def fit(
    records: Annotated[list[Path], Argument(help="Records files with labelled faces.")],
    out: Annotated[Path, Option(help="JSON file for the tables.")],
    base: PriorsOption = None,
    smoothing: Annotated[float, Option(min=0.01, help="Faces that the base tables count as.")] = 5.0,
    active_from: ActiveFromOption = 1.0,
    split: Annotated[str | None, Option(help="Only the records of this split.")] = None,
    programs: Annotated[bool, Option("--programs", help="Also use values from tables of programs.")] = False,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace existing tables.")] = False,
    teacher: Annotated[
        list[str] | None,
        Option(help="Also estimate how far to trust this teacher, as of `facial annotate`; repeat it for several."),
    ] = None,
    answers: Annotated[
        Path | None,
        Option(help="Answers of `facial annotate` by the teachers; missing ones are added. Default: beside --out."),
    ] = None,
    images: Annotated[Path | None, Option(help="Folder of the image paths, if not that of the records.")] = None,
    config: ChatConfigOption = None,
) -> None:
    """Estimate the tables from labelled faces; `generate seke` and `facial annotate` use them with --priors FILE."""
    from lavis_emovit.emotion.facial import facial_priors
    from lavis_emovit.files import write_json
    from lavis_emovit.generation.seke.fitting import count_faces, fit_priors
    from lavis_emovit.records import read_records

    if not teacher and (unused := given({"--answers": answers, "--images": images, "--config": config})):
        raise ConfigError([f"{name}: is for teachers; add --teacher" for name in unused], "the options")
    if out.resolve() in [path.resolve() for path in (*records, *([base] if base is not None else []))]:
        raise DataError(f"{out}: is an input file, which would be lost; use another --out")
    if out.exists():
        if not overwrite:
            raise DataError(f"{out}: already exists; use another --out, or --overwrite to replace it")
        facial_priors(out)  # refuses to replace anything else than tables
    tables = facial_priors(base)
    labelled: dict[Path, list[EmotionRecord]] = {path: [] for path in records}  # for the teachers

    def chosen() -> Iterator[EmotionRecord]:
        for path in records:
            for record in read_records(path):
                if split is None or record.split == split:
                    if teacher:
                        labelled[path].append(record)
                    yield record

    counts = count_faces(chosen(), tables, active_from=active_from, programs=programs)
    fitted = fit_priors(counts, tables, smoothing=smoothing)
    if teacher:
        known = answers or out.parent / ANSWERS
        fitted = fit_reliability(fitted, labelled, teacher, known, images=images, config=config, smoothing=smoothing)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, fitted.model_dump(mode="json", exclude_defaults=True))
    for source, number in sorted(counts.faces.items()):
        levels = ", ".join(
            f"{level} {counts.levels[source, level]}"
            for level in ("expression", "affect", "units")
            if counts.levels[source, level]
        )
        typer.echo(f"{source}: {number} faces: {levels}")
    faces = counts.per_expression()
    for name in tables.expressions:
        typer.echo(f"  {name}: {faces[name]} faces" if name in faces else f"  {name}: no face, stays as in the base")
    for reason, number in sorted(counts.skipped.items()):
        typer.echo(f"  skipped: {number} {reason}")
    typer.echo(str(out))


@app.command()
def infer(
    expression: Annotated[str | None, Option(help="Known expression.")] = None,
    valence: Annotated[float | None, Option(min=-1.0, max=1.0, help="Known valence.")] = None,
    arousal: Annotated[float | None, Option(min=-1.0, max=1.0, help="Known arousal.")] = None,
    units: Annotated[str | None, Option(help="Active units, like 6,12 or 6:2.5,12:4 with intensities.")] = None,
    coded: Annotated[
        str | None,
        Option(help="Units that were looked for; those not in --units are not active."),
    ] = None,
    priors: PriorsOption = None,
) -> None:
    """Show what known levels of a face say about the others, and whether they contradict each other."""
    from lavis_emovit.emotion.facial import facial_priors
    from lavis_emovit.emotion.facial_knowledge import Evidence
    from lavis_emovit.emotion.facial_knowledge import infer as conclude
    from lavis_emovit.emotion.labels_faces import EXPRESSIONS8
    from lavis_emovit.generation.seke.levels import Levels
    from lavis_emovit.generation.seke.rules import contradictions
    from lavis_emovit.generation.seke.settings import SekeSettings

    tables = facial_priors(priors)
    active = _units(units, "--units", set(tables.units))
    looked_for = dict.fromkeys(_units(coded, "--coded", set(tables.units)), False)
    known = {**looked_for, **dict.fromkeys(active, True)}
    label = EXPRESSIONS8.canonical(expression) if expression is not None else None
    intensities = {unit: value for unit, value in active.items() if value is not None}
    evidence = Evidence(label, valence, arousal, known, intensities)
    if not evidence:
        raise ConfigError(["name at least one level: --expression, --valence, --arousal or --units"], "facial infer")
    beliefs = conclude(tables, evidence)
    if label is None:
        likely = [f"{name} {share:.2f}" for name, share in beliefs.likeliest() if share >= 0.01]
        typer.echo(f"expression: {', '.join(likely)}")
    for axis, value, stated in (("valence", beliefs.valence, valence), ("arousal", beliefs.arousal, arousal)):
        if stated is None:
            typer.echo(f"{axis}: mean {value.mean:.2f}, standard deviation {value.sd:.2f}")
    frequent = sorted(beliefs.units.items(), key=lambda item: (-item[1], item[0]))
    for unit, probability in frequent:
        if probability >= 0.1:
            strength = f", intensity {beliefs.intensities[unit]:.1f} if active" if unit in beliefs.intensities else ""
            typer.echo(f"AU{unit} {tables.unit_name(unit)}: {probability:.2f}{strength}")
    levels = Levels(label, valence, arousal, known)
    for finding in contradictions(Levels(), levels, tables, SekeSettings()):
        typer.echo(f"contradiction: {finding.text}")


@app.command()
def check(
    records: Annotated[Path, Argument(help="Records file with labelled faces.")],
    out: Annotated[Path | None, Option(help="JSON lines file for the contradictions.")] = None,
    priors: PriorsOption = None,
    active_from: ActiveFromOption = 1.0,
    show: Annotated[int, Option(min=0, help="Number of contradictions to show.")] = 10,
) -> None:
    """Find faces whose labels contradict each other, such as a smile with a very low valence."""
    import json

    from lavis_emovit.emotion.facial import facial_priors
    from lavis_emovit.files import atomic_writer
    from lavis_emovit.generation.seke.levels import LEVELS, Levels, known_levels
    from lavis_emovit.generation.seke.rules import contradictions
    from lavis_emovit.generation.seke.settings import SekeSettings
    from lavis_emovit.records import read_records

    if out is not None and out.exists():
        raise DataError(f"{out}: already exists; use another --out")
    tables, settings = facial_priors(priors), SekeSettings(active_from=active_from)
    rows: list[dict[str, Any]] = []
    num_faces = num_comparable = 0
    for record in read_records(records):
        levels = known_levels(record, active_from)
        num_faces += 1
        num_comparable += sum(levels.has(level) for level in LEVELS) > 1
        found = contradictions(Levels(), levels, tables, settings)
        rows += [{"record": record.id, "rule": item.rule, "text": item.text} for item in found]
    for row in rows[:show]:
        typer.echo(f"{row['record']}: {row['text']}")
    if len(rows) > show:
        typer.echo(f"... and {len(rows) - show} more")
    if out is not None:
        with atomic_writer(out) as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    contradicting = len({row["record"] for row in rows})
    several = f"{num_comparable} of {num_faces} faces have several levels"
    typer.echo(f"{several}, and {contradicting} of them contradict the tables")


def _units(text: str | None, option: str, known: set[int]) -> dict[int, float | None]:
    """`6,12` or `6:2.5,12` as unit -> intensity, or None without one."""
    found: dict[int, float | None] = {}
    for part in text.split(",") if text else ():
        unit, _, intensity = part.strip().removeprefix("AU").partition(":")
        try:
            number, value = int(unit), float(intensity) if intensity else None
        except ValueError:
            raise ConfigError([f"'{part}' is not a unit, like 12, or 12:2.5 with its intensity"], option) from None
        if number not in known or (value is not None and not 0 <= value <= 5):
            raise ConfigError([f"'{part}': expected a unit of FACS, with an intensity from 0 to 5"], option)
        found[number] = value
    return found
