"""`emovit data import` and `list`: turns a published or custom dataset into records with the categorical question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option

from lavis_emovit.errors import ConfigError, DataError, bullet_list
from lavis_emovit.files import load_json

if TYPE_CHECKING:
    from lavis_emovit.records import EmotionRecord
    from lavis_emovit.sources.base import Reader
    from lavis_emovit.sources.catalogue import CatalogueEntry

DEFAULT_FRACTIONS = "train=0.8,val=0.05,test=0.15"
_RECORD_KEYS = {"id", "image", "split", "source"}

OverwriteOption = Annotated[bool, Option("--overwrite", help="Replace an existing records file.")]


def import_dataset(
    dataset: Annotated[
        str,
        Argument(
            help="Name of a dataset (`emovit data list`), a dataset's YAML file, or a layout: table (CSV, JSON, "
            "Parquet), folder (one per class), conversations (LLaVA-style JSON, other trainers' files), huggingface "
            "(`save_to_disk`), openface, py_feat or libreface (tables of action units)."
        ),
    ],
    path: Annotated[Path, Argument(help="Folder of the dataset, or the file of a table or conversations.")],
    out: Annotated[Path | None, Option(help="Records file; by default NAME.jsonl in the working directory.")] = None,
    overwrite: OverwriteOption = False,
    name: Annotated[str | None, Option(help="Name of the dataset; by default that of its folder.")] = None,
    column: Annotated[
        list[str] | None,
        Option(help="FIELD=COLUMN of a table, repeatable; fields are image, emotion, split, group, ..."),
    ] = None,
    label_set: Annotated[str | None, Option(help="Label set, like mikels8, or your own: 'labels:calm, tense'.")] = None,
    change: Annotated[
        list[str] | None, Option("--set", help="KEY=VALUE in the dataset's layout, repeatable, for example ties=soft.")
    ] = None,
    split_seed: Annotated[int | None, Option(help="Draw new splits with this seed, group by group.")] = None,
    fractions: Annotated[
        str | None, Option(help=f"Shares of the splits that --split-seed draws; by default {DEFAULT_FRACTIONS}.")
    ] = None,
    stratify: Annotated[bool, Option("--stratify", help="Give each new split its share of every label.")] = False,
    own_splits: Annotated[
        bool, Option("--own-splits", help="Keep the published splits instead of those of the dataset's YAML.")
    ] = False,
    fold: Annotated[
        int | None, Option(help="The published fold to test; the others are for training. By default that of the YAML.")
    ] = None,
    strict: Annotated[bool, Option("--strict", help="Refuse other counts than published, and skipped images.")] = False,
    categorical: Annotated[bool, Option(help="Write the categorical instruction into each record.")] = True,
    wording: Annotated[list[int] | None, Option(help="Wordings to choose from, repeatable.")] = None,
    option_order: Annotated[Literal["fixed", "shuffled"], Option(help="Order of the options in questions.")] = "fixed",
    seed: Annotated[int, Option(help="Seed of wordings and option orders.")] = 0,
) -> None:
    """Read a dataset and write its records for `emovit shards build`. Nothing is downloaded."""
    from lavis_emovit.generation.categorical import add_categorical
    from lavis_emovit.records import RecordStore, write_records, write_summary
    from lavis_emovit.sources.catalogue import DATASET_NAME
    from lavis_emovit.sources.splits import resplit
    from lavis_emovit.sources.statistics import compare_counts

    shares = _new_splits(split_seed, fractions, stratify=stratify, own_splits=own_splits)
    if name is not None and not DATASET_NAME.fullmatch(name):
        raise ConfigError([f"'{name}' is not a valid name; a name consists of letters, digits, _ and -"], "--name")
    entry = _entry(dataset)
    if fold is not None:
        entry = _with_fold(dataset, entry, fold, draws=split_seed is not None, keeps=own_splits)
    root = path if path.is_dir() else path.parent
    source = name or (entry.name if entry is not None else root.resolve().name)
    is_chosen = out is not None
    out = out if out is not None else Path(f"{source}.jsonl")
    if not is_chosen and root.resolve() in out.resolve().parents:
        raise DataError(f"{out}: would be written into the dataset's folder {root.resolve()}; choose it with --out")
    # `_open` checks the files inside a folder, once its layout is known.
    check_output(out, [path] if path.is_file() else [], overwrite=overwrite)
    reader = _open(dataset, entry, path, source, column or [], label_set, change or [], out)
    if not is_chosen and reader.image_root == reader.extract_to:
        raise DataError(
            f"{path}: contains the images, which become files beside the records file; choose a folder for them with "
            f"--out, for example --out {source}/records.jsonl"
        )
    notes = reader.notes
    notes.refuses_unused = entry is None  # the YAML of a published dataset names the columns on purpose
    records: Sequence[EmotionRecord] = RecordStore(reader.read())
    num_read = len(records)
    differences = compare_counts(records, entry.about.published) if entry is not None else []
    if not records:
        raise DataError(f"{path}: has no usable records\n" + "\n".join(notes.report()))
    if strict and (differences or notes.serious()):
        lines = bullet_list([*differences, *notes.serious()])
        raise DataError(f"{path}: not imported, because --strict refuses differences and skipped images:\n{lines}")
    if split_seed is not None:
        records = resplit(records, shares, split_seed, stratify)
    elif entry is not None and not own_splits:
        records = entry.layout.resplit(records, reader.image_root, root=root)
    written: Iterable[EmotionRecord] = records
    if categorical and dataset != "conversations":
        written = add_categorical(records, wordings=tuple(wording or (1,)), option_order=option_order, seed=seed)
    splits: Counter[str] = Counter()
    with writing(out, overwrite=overwrite):
        total = write_records(out, _counted(written, splits))
        write_summary(out, reader.image_root, source=source, **notes.to_dict(num_read))
    typer.echo(f"{total} records in {out}: {', '.join(f'{split} {count}' for split, count in sorted(splits.items()))}")
    typer.echo(f"  {notes.account(num_read)}")
    for line in notes.report():
        typer.echo(f"  note: {line}")
    for line in differences:
        typer.echo(f"  differs: {line}")
    if entry is not None:
        if entry.about.layout_status == "documented":
            typer.echo("  its layout is known only from documentation; check it with `emovit data preview`")
        typer.echo(f"  licence: {entry.about.licence}")
    if reader.image_root.resolve() != out.parent.resolve():
        typer.echo(
            f"  image paths are relative to {reader.image_root}; later commands read this from the summary beside it"
        )


def _counted(records: Iterable[EmotionRecord], splits: Counter[str]) -> Iterator[EmotionRecord]:
    for record in records:
        splits[record.split] += 1
        yield record


def list_datasets() -> None:
    """List the datasets that `emovit data import` can read, with their layouts, sources and licences."""
    from lavis_emovit.sources.catalogue import all_entries

    entries, problems = all_entries()
    for name, entry in entries.items():
        about = entry.about
        typer.echo(f"{name}: {entry.layout.source} layout, {about.layout_status}\n    {about.where_to_get}")
        typer.echo(f"    licence: {about.licence}")
        if about.layout_note:
            typer.echo(f"    {about.layout_note}")
    typer.echo(f"general layouts: {', '.join(_general_layouts())}")
    if problems:
        raise ConfigError(problems, "the list of datasets")


def _general_layouts() -> list[str]:
    """The layouts that do not belong to a particular dataset."""
    from lavis_emovit.sources.layouts import LAYOUTS

    return sorted(name for name, reader in LAYOUTS.items() if reader.imported_from is not None)


def parse_fractions(text: str) -> dict[str, float]:
    """`train=0.8,test=0.2` as split -> share. ConfigError for duplicate splits, or shares that don't sum to 1."""
    from lavis_emovit.files import is_plain_name

    fractions: dict[str, float] = {}
    problems = []
    for part in text.split(","):
        name, _, share = part.partition("=")
        name = name.strip()
        try:
            value = float(share)
        except ValueError:
            value = -1.0
        if not is_plain_name(name) or not 0 <= value <= 1:
            problems.append(f"'{part}' is not SPLIT=SHARE with a share from 0 to 1, as in train=0.8")
        elif name in fractions:
            problems.append(f"split '{name}' has two shares")
        else:
            fractions[name] = value
    total = sum(fractions.values())
    if not problems and abs(total - 1.0) > 1e-6:
        problems.append(f"the shares must sum to 1, those of '{text}' sum to {total:g}")
    if problems:
        raise ConfigError(problems, "--fractions")
    return fractions


def _new_splits(split_seed: int | None, fractions: str | None, *, stratify: bool, own_splits: bool) -> dict[str, float]:
    """Shares of the splits to draw; refuses options without effect."""
    problems = []
    if split_seed is None:
        given = {"--fractions": fractions is not None, "--stratify": stratify}
        problems = [f"{option} needs --split-seed, which draws new splits" for option in given if given[option]]
    elif own_splits:
        problems = ["--own-splits keeps the published splits, --split-seed draws new ones: use only one of them"]
    if problems:
        raise ConfigError(problems, "the command line")
    return parse_fractions(fractions if fractions is not None else DEFAULT_FRACTIONS)


def _entry(dataset: str) -> CatalogueEntry | None:
    from lavis_emovit.registered import ADD_DATASET, dataset_files
    from lavis_emovit.settings import nearest_name
    from lavis_emovit.sources.catalogue import find_entry

    general = _general_layouts()
    if dataset in general:
        return None
    entry = find_entry(dataset)
    if entry is None and (dataset in dataset_files() or dataset.endswith((".yaml", ".yml"))):
        raise DataError(f"'{dataset}' has nothing to import: it is drawn, or declared with finished shards")
    if entry is None:
        hint = nearest_name(dataset, [*dataset_files(), *general])
        raise DataError(f"unknown dataset '{dataset}'{hint}. {ADD_DATASET}")
    return entry


def _with_fold(dataset: str, entry: CatalogueEntry | None, fold: int, *, draws: bool, keeps: bool) -> CatalogueEntry:
    """The dataset with another fold to test; ConfigError if it has none, or other options decide the splits."""
    from lavis_emovit.sources.catalogue import all_entries

    if draws or keeps:
        other = "--split-seed draws new splits" if draws else "--own-splits keeps every record in its own split"
        raise ConfigError([f"--fold tests one published fold, {other}: use only one of them"], "the command line")
    if entry is None or entry.layout.test_fold is None:
        folded = ", ".join(name for name, one in all_entries()[0].items() if one.layout.test_fold is not None)
        raise ConfigError([f"'{dataset}' has no published folds; those that have them are {folded}"], "--fold")
    return replace(entry, layout=entry.layout.model_copy(update={"test_fold": fold}))


def _open(
    dataset: str,
    entry: CatalogueEntry | None,
    path: Path,
    source: str,
    columns: list[str],
    label_set: str | None,
    changes: list[str],
    out: Path,
) -> Reader:
    from lavis_emovit.settings import parse_settings
    from lavis_emovit.sources.layouts import LAYOUTS, LayoutSettings, list_files, open_dataset, present_layout

    if entry is not None and not path.is_dir():
        raise DataError(f"{path}: no such folder. {entry.about.where_to_get}")
    root, node = path, dataset
    values: dict[str, Any] = {}
    if entry is not None:
        layout = present_layout(path, entry.layout)
        node = layout.source
        values = layout.node.model_dump(mode="json") if layout.node is not None else {}
    elif LAYOUTS[node].imported_from == "file":
        root = path if path.is_dir() else path.parent
        values["file"] = (LAYOUTS[node].file_of_folder if path.is_dir() else None) or path.name
    if dataset == "conversations" and "check_images" not in {pair.partition("=")[0] for pair in changes}:
        # Instruction files are published without their images; `emovit data verify` checks those.
        values["check_images"] = False
    if columns:
        settings_class = LAYOUTS[node].settings_class
        if settings_class is None or "columns" not in settings_class.model_fields:
            raise ConfigError([f"'{dataset}' has no table, so it has no columns to name"], "--column")
        values["columns"] = {**values.get("columns", {}), **parse_columns(columns)}
    if label_set is not None:
        values["label_set"] = label_set
    values = set_values(values, changes)
    given: dict[str, Any] = {"source": node, **({node: values} if values else {})}
    parsed, problems = parse_settings(LayoutSettings, given, "--set")
    if parsed is None:
        raise ConfigError(_plain(problems, f"--set.{node}."), "the command line")
    # The caller has checked whether an existing file may be replaced; here, that it is not a file of the dataset.
    check_output(out, list_files(root, parsed), overwrite=True)
    return open_dataset(root, parsed, source=source, extract_to=out.parent)


def parse_columns(pairs: Iterable[str]) -> dict[str, str | tuple[str, ...]]:
    """`FIELD=COLUMN` of each pair as field -> column, or several columns, separated by commas."""
    columns: dict[str, str | tuple[str, ...]] = {}
    for pair in pairs:
        field, separator, column = pair.partition("=")
        if not separator or not column:
            raise ConfigError([f"'{pair}' is not FIELD=COLUMN"], "--column")
        columns[field] = tuple(column.split(",")) if field in ("extra", "box", "ignore") else column
    return columns


def _plain(problems: list[str], prefix: str) -> list[str]:
    """Problems with the names of the options: --column for columns, --set for everything else."""
    keys = [line.removeprefix(prefix) for line in problems]
    return [f"--column.{key[8:]}" if key.startswith("columns.") else f"--set {key}" for key in keys]


def set_values(values: dict[str, Any], pairs: list[str]) -> dict[str, Any]:
    """The values with every `a.b=value` set in nested mappings and lists; a value is parsed as YAML."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    config = OmegaConf.create(values)
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator or not key:
            raise ConfigError([f"'{pair}' is not KEY=VALUE"], "--set")
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError):  # also what looks like a date and is none
            value = text
        # YAML parses a pattern such as {label}/{name} as a mapping, and a delimiter such as | or # as no text.
        if (isinstance(value, dict) and None in value.values()) or (
            len(text) == 1 and not text.isalnum() and text != "~"
        ):
            value = text
        try:
            OmegaConf.update(config, key, value, merge=False, force_add=True)
        except (OmegaConfBaseException, TypeError, ValueError) as error:
            raise ConfigError([f"'{pair}': {str(error).splitlines()[0]}"], "--set") from None
    result: Any = OmegaConf.to_container(config)
    return result


def check_output(out: Path, inputs: Iterable[Path], *, overwrite: bool) -> None:
    """Refuse (DataError) an output file whose creation would lose data; `overwrite` may replace only a records file."""
    place = out.resolve()
    for path in inputs:
        if path.resolve() == place:
            raise DataError(f"{out}: is an input file, which would be lost; use another --out")
    if out.is_dir():
        raise DataError(f"{out}: is a folder; --out must be a file, for example {out / 'records.jsonl'}")
    in_the_way = next((place for place in out.parents if place.exists() and not place.is_dir()), None)
    if in_the_way is not None:
        raise DataError(f"{out}: {in_the_way} is a file, not a folder; use another --out")
    if not out.exists():
        return
    if not overwrite:
        raise DataError(f"{out}: already exists; use another --out, or --overwrite to replace it")
    if not _is_records_file(out):
        raise DataError(f"{out}: is not a records file, and --overwrite replaces only those; use another --out")


@contextmanager
def writing(out: Path, *, overwrite: bool) -> Iterator[None]:
    """Let one command at a time write a records file with its summary; DataError if another wrote it meanwhile."""
    from filelock import FileLock

    out.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(out.with_name(f".{out.name}.lock")):
        check_output(out, (), overwrite=overwrite)
        yield


def _is_records_file(path: Path) -> bool:
    """Whether the first line is a record, or empty."""
    from lavis_emovit.files import regular_file

    with regular_file(path).open("rb") as file:
        line = file.readline()
    try:
        return not line.strip() or set(load_json(line)) >= _RECORD_KEYS
    except (ValueError, TypeError):
        return False
