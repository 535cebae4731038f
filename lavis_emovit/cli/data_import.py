"""`emovit data import`: a published dataset, or one of one's own, as records with the categorical question in them."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lavis_emovit.cli.data_output import OverwriteOption, check_output

if TYPE_CHECKING:
    from lavis_emovit.sources.catalogue import CatalogueEntry
    from lavis_emovit.sources.layouts import OpenDataset
    from lavis_emovit.sources.problems import Notes

# Layouts that belong to no dataset in particular.
GENERAL_LAYOUTS = ("table", "folder", "conversations", "huggingface")
DEFAULT_FRACTIONS = "train=0.8,val=0.05,test=0.15"


class Order(str, Enum):
    """How the options of a question are listed."""

    FIXED = "fixed"
    SHUFFLED = "shuffled"


def import_dataset(
    dataset: Annotated[
        str,
        typer.Argument(
            help="Name of a dataset (`emovit data list`), a dataset's YAML file, or a general layout: table (CSV, "
            "JSON, Parquet), folder (one a class), conversations (LLaVA-style JSON), huggingface (`save_to_disk`)."
        ),
    ],
    path: Annotated[Path, typer.Argument(help="Folder of the dataset, or the file of a table or of conversations.")],
    out: Annotated[Path | None, typer.Option(help="Records file; by default records.jsonl in the folder.")] = None,
    overwrite: OverwriteOption = False,
    name: Annotated[str | None, typer.Option(help="Name of the dataset; by default its own or its folder's.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="FIELD=COLUMN of a table, as often as needed; fields are image, emotion, split, group, ..."),
    ] = None,
    label_set: Annotated[
        str | None, typer.Option(help="Label set, for example mikels8, or one of your own: 'labels:calm, tense'.")
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE in the dataset's layout, as often as needed, for example ties=soft."),
    ] = None,
    split_seed: Annotated[int | None, typer.Option(help="Draw new splits with this seed, group by group.")] = None,
    fractions: Annotated[
        str | None, typer.Option(help=f"Shares of the splits that --split-seed draws; by default {DEFAULT_FRACTIONS}.")
    ] = None,
    stratify: Annotated[bool, typer.Option("--stratify", help="Give each new split its share of every label.")] = False,
    own_splits: Annotated[
        bool, typer.Option("--own-splits", help="Keep the splits as published, whatever the dataset's YAML draws.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse what differs from the published counts, or was left out.")
    ] = False,
    categorical: Annotated[bool, typer.Option(help="Write the categorical instruction into each record.")] = True,
    wording: Annotated[list[int] | None, typer.Option(help="Wordings to choose from, as often as needed.")] = None,
    option_order: Annotated[Order, typer.Option(help="Order of the options in the question.")] = Order.FIXED,
    seed: Annotated[int, typer.Option(help="Seed of wordings and option orders.")] = 0,
) -> None:
    """Read a dataset and write its records, ready for `emovit shards build`. Nothing is downloaded."""
    from collections import Counter

    from lavis_emovit.errors import ConfigError, DataError
    from lavis_emovit.generation.categorical import add_categorical
    from lavis_emovit.records import write_records
    from lavis_emovit.sources.catalogue import DATASET_NAME
    from lavis_emovit.sources.problems import Notes
    from lavis_emovit.sources.published import compare_counts
    from lavis_emovit.sources.splits import resplit

    shares = _new_splits(split_seed, fractions, stratify=stratify, own_splits=own_splits)
    if name is not None and not DATASET_NAME.fullmatch(name):
        raise ConfigError([f"'{name}' is no name of a dataset; names are letters, digits, _ and -"], "--name")
    entry = _entry(dataset)
    root = path if path.is_dir() else path.parent
    out = out if out is not None else root / "records.jsonl"
    # A folder is no file that could be lost; the files in it are known when its layout is.
    check_output(out, [path] if path.is_file() else [], overwrite=overwrite)
    notes = Notes()
    source = name or (entry.name if entry is not None else root.resolve().name)
    opened = _open(dataset, entry, path, source, column or [], label_set, change or [], out, notes)
    records = list(opened.records)
    differences = compare_counts(records, entry.about.published) if entry is not None else []
    if strict and (differences or notes.serious()):
        lines = "\n".join(f"  - {line}" for line in (*differences, *notes.serious()))
        raise DataError(f"{path}: not imported, because --strict refuses what differs or is left out:\n{lines}")
    if split_seed is not None:
        records = list(resplit(records, shares, split_seed, stratify))
    elif entry is not None and not own_splits:
        records = list(resplit(records, entry.fractions, entry.split_seed, entry.stratify))
    if categorical and dataset != "conversations":
        records = list(
            add_categorical(records, wordings=tuple(wording or (1,)), option_order=option_order.value, seed=seed)
        )
    if not records:
        raise DataError(f"{path}: no record came out of it\n" + "\n".join(notes.report()))
    total = write_records(out, records)
    splits = Counter(record.split for record in records)
    typer.echo(f"{total} records in {out}: {', '.join(f'{split} {count}' for split, count in sorted(splits.items()))}")
    for line in notes.report():
        typer.echo(f"  note: {line}")
    for line in differences:
        typer.echo(f"  differs: {line}")
    if entry is not None:
        if entry.about.layout_status == "documented":
            typer.echo("  its layout is known from documentation only; look at it with `emovit data preview`")
        typer.echo(f"  licence: {entry.about.licence}")
    if opened.image_root.resolve() != out.parent.resolve():
        typer.echo(f"  picture paths start at {opened.image_root}: give --images {opened.image_root} to later commands")


def list_datasets() -> None:
    """List the datasets that `emovit data import` knows, with their label sets, licences and layouts."""
    from lavis_emovit.sources.catalogue import find_entry, known_names

    for name in known_names():
        entry = find_entry(name)
        assert entry is not None
        about = entry.about
        typer.echo(f"{name}: {entry.layout.source} layout, {about.layout_status}\n    {about.where_to_get}")
        typer.echo(f"    licence: {about.licence}")
        if about.layout_note:
            typer.echo(f"    {about.layout_note}")
    typer.echo(f"general layouts: {', '.join(GENERAL_LAYOUTS)}")


def parse_fractions(text: str) -> dict[str, float]:
    """`train=0.8,test=0.2` as split -> share.

    Raises:
        ConfigError: not of that form, a split twice, or shares that are not together 1.
    """
    from math import isclose

    from lavis_emovit.errors import ConfigError

    fractions: dict[str, float] = {}
    problems = []
    for part in text.split(","):
        name, _, share = part.partition("=")
        name = name.strip()
        try:
            value = float(share)
        except ValueError:
            value = -1.0
        if not name or not 0 <= value <= 1:
            problems.append(f"'{part}' is not SPLIT=SHARE with a share from 0 to 1, as in train=0.8")
        elif name in fractions:
            problems.append(f"split '{name}' has two shares")
        else:
            fractions[name] = value
    total = sum(fractions.values())
    if not problems and not isclose(total, 1.0, abs_tol=1e-6):
        problems.append(f"the shares must sum to 1, those of '{text}' sum to {total:g}")
    if problems:
        raise ConfigError(problems, "--fractions")
    return fractions


def _new_splits(split_seed: int | None, fractions: str | None, *, stratify: bool, own_splits: bool) -> dict[str, float]:
    """Shares of the splits to draw; refuses options that would do nothing."""
    from lavis_emovit.errors import ConfigError

    problems = []
    if split_seed is None:
        given = {"--fractions": fractions is not None, "--stratify": stratify}
        problems = [f"{option} is about new splits, which only --split-seed draws" for option in given if given[option]]
    elif own_splits:
        problems = ["--own-splits keeps the published splits, --split-seed draws new ones: give one of them"]
    if problems:
        raise ConfigError(problems, "the command line")
    return parse_fractions(fractions if fractions is not None else DEFAULT_FRACTIONS)


def _entry(dataset: str) -> CatalogueEntry | None:
    from lavis_emovit.sources.catalogue import find_entry, unknown_dataset

    if dataset in GENERAL_LAYOUTS:
        return None
    entry = find_entry(dataset)
    if entry is None:
        raise unknown_dataset(dataset, list(GENERAL_LAYOUTS))
    return entry


def _open(
    dataset: str,
    entry: CatalogueEntry | None,
    path: Path,
    source: str,
    columns: list[str],
    label_set: str | None,
    changes: list[str],
    out: Path,
    notes: Notes,
) -> OpenDataset:
    from lavis_emovit.errors import ConfigError, DataError
    from lavis_emovit.settings import parse_settings
    from lavis_emovit.sources.layouts import LayoutSettings, OpenDataset, list_files, open_dataset, present_layout
    from lavis_emovit.sources.table_settings import TableSettings

    if entry is not None and not path.is_dir():
        raise DataError(f"{path}: no such folder. {entry.about.where_to_get}")
    values: dict[str, Any] = {}
    if entry is not None:
        layout = present_layout(path, entry.layout)
        node = layout.source
        if node != "emoset":
            values = getattr(layout, node).model_dump()
    else:
        node = "table" if dataset == "huggingface" else dataset  # type: ignore[assignment]
        if dataset in ("table", "conversations"):
            values["file"] = path.name
    if dataset == "conversations" and "check_images" not in {pair.partition("=")[0] for pair in changes}:
        # Instruction files travel without their pictures; `emovit data verify` looks for those.
        values["check_images"] = False
    if columns:
        if node != "table":
            raise ConfigError([f"'{dataset}' has no table, so its columns cannot be named"], "--column")
        values["columns"] = {**values.get("columns", {}), **_parse_columns(columns)}
    if label_set is not None:
        values["label_set"] = label_set
    for pair in changes:
        _set_value(values, pair)
    if dataset == "huggingface":
        from lavis_emovit.sources.huggingface import read_huggingface

        settings, problems = parse_settings(TableSettings, values, "--set")
        if settings is None:
            raise ConfigError(_plain(problems, "--set."), "the command line")
        records = read_huggingface(path, settings, source=source, extract_to=out.parent, notes=notes)
        return OpenDataset(records, out.parent)
    given: dict[str, Any] = {"source": node, **({node: values} if values else {})}
    parsed, problems = parse_settings(LayoutSettings, given, "--set")
    if parsed is None:
        raise ConfigError(_plain(problems, f"--set.{node}."), "the command line")
    root = path if path.is_dir() or entry is not None or dataset == "folder" else path.parent
    # Whether an existing file may be replaced was asked before; here no list of the dataset may be that file.
    check_output(out, list_files(root, parsed), overwrite=True)
    return open_dataset(root, parsed, source=source, notes=notes, extract_to=out.parent)


def _plain(problems: list[str], prefix: str) -> list[str]:
    """Problems under the names of the options: columns are named by --column, all else by --set."""
    lines = []
    for line in problems:
        key = line.removeprefix(prefix)
        lines.append(f"--column.{key.removeprefix('columns.')}" if key.startswith("columns.") else f"--set {key}")
    return lines


def _parse_columns(pairs: list[str]) -> dict[str, object]:
    from lavis_emovit.errors import ConfigError

    values: dict[str, object] = {}
    for pair in pairs:
        field, separator, column = pair.partition("=")
        if not separator or not column:
            raise ConfigError([f"'{pair}' is not FIELD=COLUMN"], "--column")
        values[field] = tuple(column.split(",")) if field in ("extra", "box") else column
    return values


def _set_value(values: dict[str, Any], pair: str) -> None:
    """Put `a.b=value` into nested mappings; the value is read as YAML."""
    import yaml

    from lavis_emovit.errors import ConfigError

    key, separator, text = pair.partition("=")
    if not separator or not key:
        raise ConfigError([f"'{pair}' is not KEY=VALUE"], "--set")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    if isinstance(value, dict) and None in value.values():
        value = text  # a pattern such as {label}/{name}, which YAML takes for a mapping
    _put(values, key.split("."), value, pair)


def _put(node: Any, keys: list[str], value: Any, pair: str) -> Any:
    """`node` with `value` at a path of keys, where a number counts into a list; mappings are changed in place."""
    from lavis_emovit.errors import ConfigError

    if not keys:
        return value
    key, *rest = keys
    if isinstance(node, (list, tuple)):
        if not key.isdigit() or int(key) >= len(node):
            raise ConfigError([f"'{pair}': '{key}' is none of the numbers 0 to {len(node) - 1}"], "--set")
        return [_put(one, rest, value, pair) if n == int(key) else one for n, one in enumerate(node)]
    node = node if isinstance(node, dict) else {}
    node[key] = _put(node.get(key), rest, value, pair)
    return node
