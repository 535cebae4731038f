"""Shards as the input of `emovit init`: ours are used where they are; others are unpacked into images and records."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from lavis_emovit.errors import DataError
from lavis_emovit.files import find_files
from lavis_emovit.paths import RECORDS_NAME
from lavis_emovit.shards.columns import INDEX_NAME

if TYPE_CHECKING:
    from lavis_emovit.records import EmotionRecord
    from lavis_emovit.shards.index import ShardIndex
    from lavis_emovit.sources.proposals.proposal import Proposal


def is_shards(folder: Path) -> bool:
    """Whether a folder, or one directly below it, has an index or tars, and they are the data.

    Beside labelled images, a tar is the download that they were unpacked from.
    """
    from lavis_emovit.sources.proposals.inspect import propose

    if not (_found(folder, "*.tar") or _found(folder, INDEX_NAME)):
        return False
    try:
        propose(folder, {}, None)
    except DataError:
        return True
    return False


def _found(folder: Path, pattern: str) -> list[Path]:
    """The files of a pattern in a folder, and in the folders in it."""
    return sorted([*find_files(folder, pattern), *find_files(folder, f"*/{pattern}")])


def ready_splits(folder: Path) -> dict[str, ShardIndex]:
    """Split -> index, for shards of this package that can be trained on and tested as they are; empty for others."""
    from lavis_emovit.shards.index import ShardIndex

    places = {place.parent.name: place.parent for place in find_files(folder, f"*/{INDEX_NAME}")}
    if not {"train", "test"} <= set(places):
        return {}
    return {split: ShardIndex.load(places[split]) for split in ("train", "val", "test") if split in places}


def propose_ready(folder: Path, indexes: Mapping[str, ShardIndex]) -> Proposal:
    """Use shards where they are. DataError without labels or ratings, or with several label sets."""
    from lavis_emovit.emotion.labels import get_label_set
    from lavis_emovit.sources.proposals.proposal import Proposal
    from lavis_emovit.sources.proposals.records import emotions_of

    name, _ = emotions_of(read_all(indexes), folder)
    proposal = Proposal("shards", folder.resolve(), {}, kind="emotion" if name is not None else "valence_arousal")
    proposal.labels = get_label_set(name) if name is not None else None
    proposal.reasons = ["layout: shards, used where they are", f"labels: {name or 'none'}, as in the shards"]
    return proposal


def read_all(indexes: Mapping[str, ShardIndex]) -> Iterator[EmotionRecord]:
    """The records of all splits, each with the split of its folder."""
    from lavis_emovit.shards.reader import ShardReader

    for split, index in indexes.items():
        reader = ShardReader(index)
        for number in range(len(reader)):
            yield reader.read_record(number).model_copy(update={"split": split})


def unpack(folder: Path, to: Path, name: str, labels: str | None, given: Mapping[str, Any]) -> tuple[Path, list[str]]:
    """Write the images and records of shards into an empty folder; returns the records file, and warnings.

    `given` may have `classes`, the names of class numbers, and `label_names`, as for a folder of images. Splits come
    from the names of the tars and of their folders.
    """
    from lavis_emovit.progress import progress
    from lavis_emovit.records import RecordStore, write_records, write_summary
    from lavis_emovit.shards.index import ShardIndex, find_indexes

    records_file = to / RECORDS_NAME
    with tempfile.TemporaryDirectory(prefix="emovit_init_") as links:
        if _found(folder, INDEX_NAME):
            indexes = [ShardIndex.load(place) for place in find_indexes(str(folder))]
        else:
            indexes = _indexed(folder, Path(links), name, given.get("classes"))
        with progress("unpacking", sum(index.num_samples for index in indexes), every=1000) as line:
            records = RecordStore(_written(indexes, to, line.advance))
        skipped = [str(item) for index in indexes for item in index.build.get("skipped", ())]
    count = write_records(records_file, _labelled(records, labels, given))
    write_summary(records_file, to, source=name, records=count, unpacked_from=str(folder.resolve()))
    return records_file, [f"{len(skipped)} samples cannot be used, the first: {skipped[0]}"] if skipped else []


def _indexed(folder: Path, links: Path, name: str, classes: Any) -> list[ShardIndex]:
    """Indexes of tars of other tools, one for each split, over links in another folder: theirs stays as it is."""
    from lavis_emovit.shards.foreign import Reading, index_tars
    from lavis_emovit.sources.proposals.proposal import SPLIT_NAMES, split_in_path

    for tar in _found(folder, "*.tar"):
        word = split_in_path(PurePosixPath(tar.relative_to(folder).as_posix())) or "train"
        place = links / SPLIT_NAMES[word.casefold()]
        place.mkdir(exist_ok=True)
        inside = tar.relative_to(folder).as_posix().replace("/", "_")
        while (place / inside).is_symlink():  # train/0_1.tar and train_0/1.tar
            inside = f"{inside.removesuffix('.tar')}_.tar"
        (place / inside).symlink_to(tar.resolve())
    names = tuple(map(str, classes)) if classes else None
    indexes = []
    for place in sorted(links.iterdir()):
        try:
            indexes.append(index_tars(place, Reading(source=name, split=place.name, classes=names), skip_bad=True))
        except DataError as error:
            text = str(error).replace(str(place), str(folder))
            raise DataError(f"{text} (here: --set 'classes=[name, name, ...]' names class numbers)") from None
    return indexes


def _written(indexes: Iterable[ShardIndex], to: Path, advance: Any) -> Iterator[EmotionRecord]:
    """The records, after their images were written to files of their own.

    Image paths of shards may start in different folders; an image whose path has another one goes to its own folder.
    """
    from lavis_emovit.shards.reader import ShardReader

    written: dict[str, str] = {}  # path -> sha256
    for index in indexes:
        reader = ShardReader(index)
        for number in range(len(reader)):
            sample = reader.read(number)
            record, digest = sample.record, hashlib.sha256(sample.image_bytes).hexdigest()
            if written.setdefault(str(PurePosixPath(record.image)), digest) != digest:
                record = record.model_copy(update={"image": f"{digest[:16]}/{record.image}"})
            path = to / record.image
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(sample.image_bytes)
            advance()
            yield record


def _labelled(
    records: Sequence[EmotionRecord], labels: str | None, given: Mapping[str, Any]
) -> Iterator[EmotionRecord]:
    """The records with a label set, those without one with the set that their labels fit."""
    from lavis_emovit.generation.categorical import add_categorical
    from lavis_emovit.sources.proposals.labels import choose_labels, renamed_counts

    renamed = given.get("label_names", {})
    bare = (record.emotion for record in records if record.emotion is not None and record.label_set is None)
    counts = renamed_counts(Counter(bare), renamed)
    choice = choose_labels(counts, labels) if counts else None
    for record in records:
        if choice is not None and record.emotion is not None and record.label_set is None:
            label = renamed.get(record.emotion, record.emotion)
            if label is None:
                continue
            update = {"emotion": choice.label_set.canonical(label), "label_set": choice.label_set.name}
            record = next(add_categorical([record.model_copy(update=update)]))
        yield record


def empty_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuse (DataError) to unpack into a folder with files; `overwrite` empties one that `unpack` filled."""
    if not folder.exists():
        return
    if not overwrite or not (folder / RECORDS_NAME).with_suffix(".summary.json").is_file():
        raise DataError(f"{folder}: already exists; choose another --name, or replace it with --overwrite")
    shutil.rmtree(folder)
