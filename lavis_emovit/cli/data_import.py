"""`emovit data import`: a published dataset as records, with the categorical instruction written in."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lavis_emovit.records import EmotionRecord
    from lavis_emovit.sources.table import TableColumns


class Layout(str, Enum):
    """How a dataset lies on disk."""

    EMOSET = "emoset"
    TABLE = "table"
    CONVERSATIONS = "conversations"


class Order(str, Enum):
    """How the options of a question are listed."""

    FIXED = "fixed"
    SHUFFLED = "shuffled"


def import_dataset(
    layout: Annotated[
        Layout, typer.Argument(help="emoset: EmoSet's folders; table: a CSV file; conversations: LLaVA-style JSON.")
    ],
    path: Annotated[Path, typer.Argument(help="The folder (emoset) or file of the dataset.")],
    out: Annotated[Path | None, typer.Option(help="Records file; by default records.jsonl beside the dataset.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the dataset; by default that of its folder.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="FIELD=COLUMN of a table, as often as needed; fields are image, emotion, split, group, ..."),
    ] = None,
    label_set: Annotated[str | None, typer.Option(help="Label set of a table or of conversations.")] = None,
    split_seed: Annotated[int | None, typer.Option(help="Draw new splits with this seed, group by group.")] = None,
    fractions: Annotated[str, typer.Option(help="Shares of the new splits.")] = "train=0.8,val=0.05,test=0.15",
    categorical: Annotated[bool, typer.Option(help="Write the categorical instruction into each record.")] = True,
    wording: Annotated[list[int] | None, typer.Option(help="Wordings to choose from, as often as needed.")] = None,
    option_order: Annotated[Order, typer.Option(help="Order of the options in the question.")] = Order.FIXED,
    seed: Annotated[int, typer.Option(help="Seed of wordings and option orders.")] = 0,
) -> None:
    """Read a published dataset and write its records, ready for `emovit shards build`."""
    from collections import Counter

    from lavis_emovit.generation.categorical import add_categorical
    from lavis_emovit.records import read_records, write_records
    from lavis_emovit.sources.splits import split_by_group

    root = path if layout is Layout.EMOSET else path.parent
    out = out if out is not None else root / "records.jsonl"
    records = _read(layout, path, name or root.resolve().name, column or [], label_set)
    if split_seed is not None:
        records = split_by_group(records, _parse_fractions(fractions), split_seed)
    if categorical and layout is not Layout.CONVERSATIONS:
        records = add_categorical(records, wordings=tuple(wording or (1,)), option_order=option_order.value, seed=seed)
    total = write_records(out, records)
    splits = Counter(record.split for record in read_records(out))
    typer.echo(f"{total} records in {out}: {', '.join(f'{split} {count}' for split, count in sorted(splits.items()))}")


def _read(layout: Layout, path: Path, name: str, columns: list[str], label_set: str | None) -> Iterable[EmotionRecord]:
    from lavis_emovit.errors import DataError
    from lavis_emovit.records import from_conversations
    from lavis_emovit.sources.emoset import read_emoset
    from lavis_emovit.sources.table import read_table

    if layout is Layout.EMOSET:
        return read_emoset(path, source=name)
    if layout is Layout.TABLE:
        return read_table(path, _parse_columns(columns), source=name, label_set=label_set)
    try:
        items = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from None
    if not isinstance(items, list):
        raise DataError(f"{path}: expected a list of items, got {type(items).__name__}")
    return from_conversations(items, source=name, label_set=label_set, place=str(path))


def _parse_columns(pairs: list[str]) -> TableColumns:
    from lavis_emovit.errors import ConfigError
    from lavis_emovit.settings import parse_settings
    from lavis_emovit.sources.table import TableColumns as Columns

    values: dict[str, object] = {}
    for pair in pairs:
        field, separator, column = pair.partition("=")
        if not separator or not column:
            raise ConfigError([f"'{pair}' is not FIELD=COLUMN"], "--column")
        values[field] = tuple(column.split(",")) if field == "extra" else column
    columns, problems = parse_settings(Columns, values, "--column")
    if columns is None:
        raise ConfigError(problems, "the command line")
    return columns


def _parse_fractions(text: str) -> dict[str, float]:
    from lavis_emovit.errors import ConfigError

    fractions: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.partition("=")
        try:
            fractions[name.strip()] = float(share)
        except ValueError:
            raise ConfigError([f"'{part}' is not SPLIT=SHARE, as in train=0.8"], "--fractions") from None
    return fractions
