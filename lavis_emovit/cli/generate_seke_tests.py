"""`emovit generate seke-tests`: a test set of faces for each level, out of what people labelled."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lavis_emovit.cli.data_output import OverwriteOption, check_output

if TYPE_CHECKING:
    from lavis_emovit.records import EmotionRecord

MANIFEST = "manifest.json"


class Level(str, Enum):
    """What a test set is about."""

    EXPRESSION = "expression"
    AFFECT = "affect"
    UNITS = "units"


def seke_tests(
    records: Annotated[Path, typer.Argument(help="Faces split by person (`emovit data split` does it).")],
    out: Annotated[Path, typer.Option(help="Folder for test_<level>.jsonl and manifest.json.")],
    overwrite: OverwriteOption = False,
    images: Annotated[Path | None, typer.Option(help="Where picture paths start, if not beside the records.")] = None,
    split: Annotated[str, typer.Option(help="The split that tests are made of.")] = "test",
    level: Annotated[list[Level] | None, typer.Option(help="Only these levels; by default all.")] = None,
    per_class: Annotated[int | None, typer.Option(min=1, help="Faces of each class at most.")] = None,
    balanced: Annotated[
        bool, typer.Option("--balanced", help="No more faces of a class than its level's rarest one has.")
    ] = False,
    active_from: Annotated[float, typer.Option(help="Intensity from which an action unit is active.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Another seed chooses other faces.")] = 0,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Refuse what is only noted: faces without a person, classes without a face."),
    ] = False,
) -> None:
    """Make test sets of one split, one for each level that people labelled; no person may be in another split."""
    from lavis_emovit.emotion.facial import facial_priors
    from lavis_emovit.errors import ConfigError, DataError
    from lavis_emovit.generation.job import find_image_root
    from lavis_emovit.generation.overlap import refuse_overlap
    from lavis_emovit.generation.seke.level_sets import count_classes, level_set
    from lavis_emovit.generation.seke.settings import LEVELS, SekeSettings
    from lavis_emovit.records import read_records, write_records
    from lavis_emovit.settings import parse_settings

    settings, problems = parse_settings(SekeSettings, {"active_from": active_from}, "seke")
    if settings is None:
        raise ConfigError(problems, "the options")
    wanted = [name for name in LEVELS if not level or Level(name) in level]
    files = {name: out / f"test_{name}.jsonl" for name in LEVELS}
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: a file; give the folder that results go into")
    for path in files.values():
        check_output(path, [records], overwrite=overwrite)
    root = find_image_root(records, images)
    found = list(read_records(records))
    tested = [record for record in found if record.split == split]
    others = [record for record in found if record.split != split]
    if not tested:
        there = ", ".join(sorted({record.split for record in found})) or "none at all"
        raise DataError(f"{records}: no record is of split '{split}' (there are: {there}); see --split")
    refuse_overlap(others, tested, root, root)
    sets = {
        name: level_set(tested, name, settings, facial_priors(), per_class=per_class, balanced=balanced, seed=seed)
        for name in wanted
    }
    if not any(sets.values()):
        raise DataError(
            f"{records}: of split '{split}', people labelled none of {', '.join(wanted)}; nothing is written"
        )
    counts = {name: count_classes(sets[name], name, settings.active_from) for name in wanted}
    notes = _notes(tested, found, root)
    for name in wanted:
        lacking = sorted(set(count_classes(others, name, settings.active_from)) - set(counts[name]))
        notes += [f"test_{name} has no face of {', '.join(lacking)}, which other splits have"] if lacking else []
    if strict and notes:
        raise DataError("refused by --strict, nothing written:\n" + "\n".join(f"  - {line}" for line in notes))
    for name, path in files.items():
        if sets.get(name):
            write_records(path, sets[name])
        else:
            path.unlink(missing_ok=True)  # of an earlier run, which --overwrite replaces
    choices = {
        "split": split, "seed": seed, "per_class": per_class, "balanced": balanced, "active_from": active_from,
    }  # fmt: skip
    _write_manifest(out, records, choices, found, {files[name]: (sets[name], counts[name]) for name in wanted}, notes)
    for name in wanted:
        listed = ", ".join(f"{one} {count}" for one, count in counts[name].items())
        typer.echo(f"{files[name]}: {_size(sets[name])} ({listed})" if sets[name] else f"{name}: no face is labelled")
    for line in notes:
        typer.echo(f"  note: {line}")
    typer.echo(f"{out / MANIFEST}")
    if out.resolve() != records.parent.resolve():
        typer.echo(f"  picture paths start where those of {records} do: give --images to later commands")


def _notes(tested: Sequence[EmotionRecord], found: Sequence[EmotionRecord], root: Path) -> list[str]:
    """What makes the sets worth less than they look."""
    notes = []
    nameless = sum(record.group is None for record in tested)
    if nameless:
        notes.append(
            f"{nameless} of {len(tested)} faces name no person (`group`), so nobody can tell whether training has them"
        )
    missing = sum(not (root / record.image).is_file() for record in found)
    if missing:
        notes.append(
            f"{missing} of {len(found)} pictures are not in {root}, so their doubles were not found (--images)"
        )
    return notes


def _size(chosen: Sequence[EmotionRecord]) -> str:
    return f"{len(chosen)} faces of {_num_persons(chosen)} persons"


def _num_persons(chosen: Sequence[EmotionRecord]) -> int:
    """Persons; a face without one counts as one."""
    from lavis_emovit.sources.splits import group_of

    return len({group_of(record) for record in chosen})


def _write_manifest(
    out: Path,
    source: Path,
    choices: dict[str, Any],
    found: Sequence[EmotionRecord],
    sets: dict[Path, tuple[list[EmotionRecord], dict[str, int]]],
    notes: list[str],
) -> None:
    from importlib.metadata import version

    from lavis_emovit.files import atomic_writer, file_sha256

    by_split = {name: [record for record in found if record.split == name] for name in {r.split for r in found}}
    content = {
        "made_by": f"lavis-emovit {version('lavis-emovit')}",
        "input": {
            "records": source.name,
            "sha256": file_sha256(source),
            "splits": {
                name: {"records": len(chosen), "persons": _num_persons(chosen)}
                for name, chosen in sorted(by_split.items())
            },
        },
        "settings": choices,
        "output": {
            path.name: {
                "sha256": file_sha256(path),
                "records": len(chosen),
                "persons": _num_persons(chosen),
                "classes": counts,
            }
            for path, (chosen, counts) in sets.items()
            if chosen
        },
        "notes": notes,
    }
    with atomic_writer(out / MANIFEST) as file:
        json.dump(content, file, ensure_ascii=False, indent=2)
        file.write("\n")
