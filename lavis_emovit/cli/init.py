"""`emovit init`: from a folder of images, a table or records to a dataset and a recipe that run as they are."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from lavis_emovit.errors import ConfigError, DataError, bullet_list

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lavis_emovit.records import EmotionRecord
    from lavis_emovit.shards.index import ShardIndex
    from lavis_emovit.sources.catalogue import DeclaredPreparation
    from lavis_emovit.sources.checks import CheckReport, ImageFacts
    from lavis_emovit.sources.proposals.proposal import Proposal

app = typer.Typer(add_completion=False)

FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}
_NEAR_BITS = 2
_SHOWN = 5
# Below these numbers of images, the command warns.
_FEW_OF_A_LABEL = 10
_FEW_TO_TEST = 100


@app.command()
def init(
    data: Annotated[
        Path,
        Argument(
            help="Folder of images or shards, table (CSV, JSON lines, Parquet), records file, or `save_to_disk` folder."
        ),
    ],
    name: Annotated[str | None, Option(help="Name of the dataset; by default that of its folder.")] = None,
    out: Annotated[Path, Option(help="Folder for the recipe and the dataset's YAML file.")] = Path(),
    model: Annotated[str, Option(help="Model that the recipe tunes.")] = "emovit_tiny",
    labels: Annotated[
        str | None, Option(help="Label set, like mikels8, or your own: 'calm, tense'; by default the one that fits.")
    ] = None,
    column: Annotated[
        list[str] | None, Option(help="FIELD=COLUMN of a table, repeatable, for example emotion=mood, group=person.")
    ] = None,
    change: Annotated[
        list[str] | None,
        Option("--set", help="KEY=VALUE in the layout, repeatable, for example pattern={label}/{group}_{name}."),
    ] = None,
    splits: Annotated[
        str | None, Option(help="Shares of new splits, train=0.7,val=0.1,test=0.2; by default only if there are none.")
    ] = None,
    seed: Annotated[int, Option(help="Seed of the splits and of the run.")] = 0,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace files that `emovit init` wrote.")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Report what was found, and write nothing.")] = False,
) -> None:
    """Look at your own data, and write a dataset and a recipe that train on them."""
    from lavis_emovit.cli.data_import import parse_columns, set_values
    from lavis_emovit.cli.init_files import (
        NewFiles,
        check_model,
        check_new_files,
        dataset_text,
        recipe_text,
        write_new_files,
    )
    from lavis_emovit.cli.init_shards import empty_folder, is_shards, ready_splits, unpack
    from lavis_emovit.paths import data_root
    from lavis_emovit.sources.proposals.inspect import propose

    name = _name(name, data)
    files = NewFiles.at(out, name)
    if not dry_run:
        check_new_files(files, data, overwrite=overwrite)
    check_model(model)
    given = set_values({}, change or [])
    if column:
        given["columns"] = {**given.get("columns", {}), **parse_columns(column)}
    shares = _shares(splits)
    with ExitStack() as stack:
        ready = ready_splits(data) if is_shards(data) and shares is None else {}
        if ready:
            found = _take_ready(data, ready)
        else:
            source, warnings = data, list[str]()
            if is_shards(data):
                place = Path(stack.enter_context(TemporaryDirectory())) if dry_run else data_root() / name
                empty_folder(place / "unpacked", overwrite=overwrite)
                source, warnings = unpack(data, place / "unpacked", name, labels, given)
                given, labels = {}, None
            proposal = propose(source, given, labels)
            proposal.warnings += warnings
            found = _inspect(proposal, name, shares, seed)
    typer.echo("\n".join(found.describe(data)))
    if dry_run:
        typer.echo("nothing written (--dry-run)")
        return
    texts = {
        files.dataset: dataset_text(name, data, found.proposal, found.preparation, found.storage),
        files.recipe: recipe_text(name, files.recipe, found.proposal, model, found.num_of, seed),
    }
    write_new_files(texts)
    typer.echo(f"wrote {files.recipe} and {files.dataset}\nnext: python -m lavis.train --cfg-path {files.recipe}")


class _Found:
    """The data as they will be prepared: records with their splits, and the results of the checks."""

    def __init__(
        self,
        proposal: Proposal,
        preparation: dict[str, Any],
        storage: str,
        records: Sequence[EmotionRecord],
        report: CheckReport,
        notes: list[str],
    ):
        from lavis_emovit.sources.statistics import count_records

        self.proposal, self.preparation, self.storage = proposal, preparation, storage
        self.report, self.notes = report, notes
        self.counted = count_records(records)
        self.num_of: Counter[str] = self.counted.splits

    def describe(self, data: Path) -> list[str]:
        from lavis_emovit.cli.data_checks import describe_counts

        lines = [*describe_counts(data, self.counted), *(f"  {line}" for line in self.proposal.reasons)]
        lines.append(f"  splits: {self._splits()}")
        return [*lines, *(f"  warning: {line}" for line in self._warnings())]

    def _splits(self) -> str:
        if "split_seed" in self.preparation:
            shares = ", ".join(f"{name} {share:g}" for name, share in self.preparation["fractions"].items())
            return (
                f"drawn with seed {self.preparation['split_seed']} ({shares}), each with its share of every label; "
                "near duplicates, and the images of a group, are in one split"
            )
        if "fractions" in self.preparation:
            return "those of the data, with images held out of train for val"
        return "those of the data"

    def _warnings(self) -> list[str]:
        report, lines = self.report, [*self.proposal.warnings, *self.notes]
        if report.faults:
            lines.append(
                f"{len(report.faults)} images cannot be opened and are skipped:\n{bullet_list(report.faults, _SHOWN)}"
            )
        if report.leaks:
            lines.append(
                f"{len(report.leaks)} pairs of equal or nearly equal images, or groups, are in two splits, so results "
                f"on test are too good; --splits draws new ones:\n{bullet_list(report.leaks, _SHOWN)}"
            )
        if report.conflicts:
            lines.append(
                f"{len(report.conflicts)} equal images have different labels:\n{bullet_list(report.conflicts, _SHOWN)}"
            )
        lines += report.outside
        if duplicates := len(report.exact) + len(report.near):
            lines.append(f"{duplicates} pairs of duplicates within a split; `emovit data clean` removes them")
        labels = {label: count for label, count in self.counted.totals().items() if label != "no label"}
        if self.proposal.labels is not None:
            for label, count in sorted(labels.items()):
                lacking = [split for split in self.num_of if not self.counted.labels[split][label]]
                if lacking:
                    lines.append(f"label '{label}' has {count} images, and none of them in {', '.join(lacking)}")
                elif count < _FEW_OF_A_LABEL:
                    lines.append(f"label '{label}' has only {count} images")
        num_test = self.num_of["test"]
        if num_test < _FEW_TO_TEST:
            lines.append(
                f"test has {num_test} images, so an accuracy on it is uncertain by up to "
                f"{98 / max(num_test, 1) ** 0.5:.0f} points (95 % interval)"
                if num_test
                else "there is no split test, so the report has no result on unseen images"
            )
        return lines


def _take_ready(folder: Path, indexes: Mapping[str, ShardIndex]) -> _Found:
    """Shards as they are; their images were checked when they were built."""
    from lavis_emovit.cli.init_shards import propose_ready, read_all
    from lavis_emovit.records import RecordStore
    from lavis_emovit.shards.columns import INDEX_NAME
    from lavis_emovit.sources.checks import CheckReport
    from lavis_emovit.sources.statistics import labels_outside

    proposal = propose_ready(folder, indexes)
    places = {split: str(Path(str(index.folder)).resolve() / INDEX_NAME) for split, index in indexes.items()}
    records = RecordStore(read_all(indexes))
    report = CheckReport(outside=labels_outside(records))
    return _Found(proposal, places, str(folder.resolve()), records, report, [])


def _inspect(proposal: Proposal, name: str, shares: dict[str, float] | None, seed: int) -> _Found:
    """Read the records of a proposal, check their images, and draw the splits as training will."""
    from lavis_emovit.progress import progress
    from lavis_emovit.records import RecordStore
    from lavis_emovit.sources.catalogue import DeclaredPreparation
    from lavis_emovit.sources.checks import CheckedFile, check_files, check_records, image_path, num_decoders
    from lavis_emovit.sources.layouts import open_dataset
    from lavis_emovit.sources.proposals.inspect import check_proposal
    from lavis_emovit.sources.proposals.proposal import typed

    layout = check_proposal(proposal)
    with TemporaryDirectory(prefix="emovit_init_") as folder:
        reader = open_dataset(proposal.root, layout, source=name, extract_to=Path(folder))
        records = RecordStore(reader.read())
        if not records:
            raise DataError(f"{proposal.root}: has no usable records\n" + "\n".join(reader.notes.report()))
        file = CheckedFile(name, records, reader.image_root)
        paths = sorted({image_path(file, record) for record in records})
        with progress("checking images", len(paths)) as line:
            facts = check_files(paths, num_decoders(len(paths)), line.update)
        usable = Counter(record.split for record in records if facts[image_path(file, record)].fault is None)
        if not usable:
            remedy = "pass the folder of the images"
            if proposal.source == "records":
                remedy = "store the folder that their image paths start in with `emovit data images RECORDS FOLDER`"
            raise DataError(
                f"{reader.image_root}: has no usable image of the {len(records)} records; {remedy}\n"
                + bullet_list([f"{path}: {facts[path].fault}" for path in paths], _SHOWN)
            )
        values = {**proposal.layout(), **_split_settings(usable, shares, seed)}
        values["skip_bad"] = True
        preparation = typed(DeclaredPreparation, values)
        # The shards are drawn from all records, also those whose images are then skipped.
        done = _resplit(preparation, records, reader.image_root, facts, usable.total())
        report = check_records([CheckedFile(name, done, reader.image_root)], near_bits=_NEAR_BITS, facts=facts)
        chosen = [record for record in done if facts[image_path(file, record)].fault is None]
        listing = [(path, facts[path].sha256.hex()) for path in paths]
    digest = hashlib.sha256(json.dumps([values, listing], default=str, sort_keys=True).encode()).hexdigest()
    return _Found(proposal, values, f"{name}/{digest[:8]}", chosen, report, reader.notes.report())


def _resplit(
    preparation: DeclaredPreparation,
    records: Sequence[EmotionRecord],
    image_root: Path,
    facts: Mapping[str, ImageFacts],
    num_usable: int,
) -> Sequence[EmotionRecord]:
    try:
        return preparation.resplit(records, image_root, facts)
    except DataError as error:
        raise DataError(
            f"{num_usable} usable images: {error} (near duplicates and the images of a group count as one). Add "
            "images, or use all of them for training with --splits train=1"
        ) from None


def _split_settings(found: Counter[str], shares: dict[str, float] | None, seed: int) -> dict[str, Any]:
    """The keys of `prepare` about splits: those of the data, a `val` held out of train, or new ones."""
    if shares is None and {"train", "val", "test"} <= set(found):
        return {}
    if shares is None and {"train", "test"} <= set(found):
        held_out = FRACTIONS["val"] / (FRACTIONS["train"] + FRACTIONS["val"])
        return {"fractions": {"train": 1 - held_out, "val": held_out}, "near_bits": _NEAR_BITS}
    return {"split_seed": seed, "stratify": True, "near_bits": _NEAR_BITS, "fractions": shares or FRACTIONS}


def _shares(text: str | None) -> dict[str, float] | None:
    from lavis_emovit.cli.data_import import parse_fractions

    if text is None:
        return None
    shares = parse_fractions(text)
    unknown = sorted(set(shares) - set(FRACTIONS))
    if unknown or not shares.get("train"):
        raise ConfigError([f"'{text}' must have a share of train, and may have those of val and test"], "--splits")
    return shares


def _name(name: str | None, data: Path) -> str:
    """The name of the dataset, as given or after its folder or file; ConfigError if it cannot be one, or is taken."""
    from lavis_emovit.registered import dataset_files
    from lavis_emovit.sources.catalogue import DATASET_NAME

    chosen = name
    if chosen is None:
        path = data.resolve()
        chosen = re.sub(r"[^A-Za-z0-9_-]+", "_", path.stem if path.is_file() else path.name).strip("_")
    if not DATASET_NAME.fullmatch(chosen):
        raise ConfigError([f"'{chosen}' is not a valid name; a name consists of letters, digits, _ and -"], "--name")
    if chosen in dataset_files(custom=False):
        raise ConfigError([f"'{chosen}' is the name of a published dataset; choose another one"], "--name")
    return chosen
