"""`emovit generate seke-tests`: a test set of faces for each level, from labels by people."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from lavis_emovit.cli.data_import import OverwriteOption, check_output
from lavis_emovit.errors import ConfigError, DataError, bullet_list

if TYPE_CHECKING:
    from lavis_emovit.records import EmotionRecord

MANIFEST = "manifest.json"


class Level(str, Enum):
    """Level of a test set. Typer has no lists of `Literal`."""

    EXPRESSION = "expression"
    AFFECT = "affect"
    UNITS = "units"


def seke_tests(
    records: Annotated[Path, Argument(help="Records of faces, split by person (`emovit data split`).")],
    out: Annotated[Path, Option(help="Folder for test_<level>.jsonl and manifest.json.")],
    overwrite: OverwriteOption = False,
    images: Annotated[Path | None, Option(help="Folder of the image paths, if not the records'.")] = None,
    split: Annotated[str, Option(help="Split to create the test sets from.")] = "test",
    level: Annotated[list[Level] | None, Option(help="Only these levels; by default all.")] = None,
    per_class: Annotated[int | None, Option(min=1, help="Highest number of faces per class.")] = None,
    balanced: Annotated[bool, Option("--balanced", help="Limit every class to the size of the rarest one.")] = False,
    active_from: Annotated[float, Option(help="Lowest intensity of an active action unit.")] = 1.0,
    seed: Annotated[int, Option(help="Another seed chooses other faces.")] = 0,
    strict: Annotated[bool, Option("--strict", help="Reject what is otherwise only noted.")] = False,
) -> None:
    """Create test sets of one split, one per level that people labelled; no person may be in another split."""
    from importlib.metadata import version

    from lavis_emovit.emotion.facial import facial_priors
    from lavis_emovit.files import file_sha256, write_json
    from lavis_emovit.generation.pipeline import refuse_overlap
    from lavis_emovit.generation.seke.level_sets import count_classes, level_set
    from lavis_emovit.generation.seke.settings import LEVELS, SekeSettings
    from lavis_emovit.records import find_image_root, read_records, write_records, write_summary
    from lavis_emovit.settings import parse_settings

    settings, problems = parse_settings(SekeSettings, {"active_from": active_from}, "seke")
    if settings is None:
        raise ConfigError(problems, "the options")
    wanted = [name for name in LEVELS if not level or Level(name) in level]
    files = {name: out / f"test_{name}.jsonl" for name in LEVELS}
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: this is a file; pass a folder for the results")
    for path in files.values():
        check_output(path, [records], overwrite=overwrite)
    root = find_image_root(records, images)
    found = list(read_records(records))
    tested = [record for record in found if record.split == split]
    others = [record for record in found if record.split != split]
    if not tested:
        available = ", ".join(sorted({record.split for record in found})) or "none"
        raise DataError(f"{records}: no records of split '{split}' (available: {available}); see --split")
    refuse_overlap(others, tested, root, root)
    sets = {
        name: level_set(tested, name, settings, facial_priors(), per_class=per_class, balanced=balanced, seed=seed)
        for name in wanted
    }
    if not any(sets.values()):
        raise DataError(
            f"{records}: split '{split}' has no labels by people for {', '.join(wanted)}; nothing was written"
        )
    counts = {name: count_classes(sets[name], name, settings.active_from) for name in wanted}
    notes = _notes(tested, found, root)
    for name in wanted:
        missing = sorted(set(count_classes(others, name, settings.active_from)) - set(counts[name]))
        notes += [f"test_{name} has no face of {', '.join(missing)}; other splits have some"] if missing else []
    if strict and notes:
        raise DataError(f"rejected by --strict, nothing was written:\n{bullet_list(notes)}")
    for name, path in files.items():
        if sets.get(name):
            write_records(path, sets[name])
            write_summary(path, root)
        else:
            # Left by an earlier run that --overwrite replaces.
            path.unlink(missing_ok=True)
            path.with_suffix(".summary.json").unlink(missing_ok=True)
    splits = sorted({record.split for record in found})
    manifest = {
        "made_by": f"lavis-emovit {version('lavis-emovit')}",
        "input": {
            "records": records.name,
            "sha256": file_sha256(records),
            "splits": {name: _sizes([record for record in found if record.split == name]) for name in splits},
        },
        "settings": {
            "split": split, "seed": seed, "per_class": per_class, "balanced": balanced, "active_from": active_from,
        },
        "output": {
            files[name].name: {"sha256": file_sha256(files[name]), **_sizes(sets[name]), "classes": counts[name]}
            for name in wanted
            if sets[name]
        },
        "notes": notes,
    }  # fmt: skip
    write_json(out / MANIFEST, manifest)
    for name in wanted:
        listed = ", ".join(f"{one} {count}" for one, count in counts[name].items())
        size = "{records} faces of {persons} persons".format(**_sizes(sets[name]))
        typer.echo(f"{files[name]}: {size} ({listed})" if sets[name] else f"{name}: no labelled face")
    for line in notes:
        typer.echo(f"  note: {line}")
    typer.echo(f"{out / MANIFEST}")


def _notes(tested: Sequence[EmotionRecord], found: Sequence[EmotionRecord], root: Path) -> list[str]:
    notes = []
    nameless = sum(record.group is None for record in tested)
    if nameless:
        notes.append(
            f"{nameless} of {len(tested)} faces do not name a person (`group`), so the training data may contain them"
        )
    missing = sum(not (root / record.image).is_file() for record in found)
    if missing:
        notes.append(f"{missing} of {len(found)} images are not in {root}, so duplicates were not found (--images)")
    return notes


def _sizes(chosen: Sequence[EmotionRecord]) -> dict[str, int]:
    """Numbers of records and of persons; a face without a person counts as one."""
    from lavis_emovit.sources.splits import group_of, one_spelling

    return {"records": len(chosen), "persons": len(set(one_spelling(map(group_of, chosen)).values()))}
