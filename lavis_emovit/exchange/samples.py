"""Records of shards, or of a records file, each with a function that reads its image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lavis_emovit.errors import DataError
from lavis_emovit.files import read_file
from lavis_emovit.paths import RECORDS_NAME
from lavis_emovit.records import EmotionRecord, RecordStore, find_image_root, read_records
from lavis_emovit.shards.columns import INDEX_NAME
from lavis_emovit.shards.images import BadImageError, check_image
from lavis_emovit.shards.index import ShardIndex, find_indexes
from lavis_emovit.shards.reader import ShardReader

ReadImage = Callable[[], bytes]


@dataclass(frozen=True)
class Samples:
    """`origin` identifies the input: the hash of each index, or the number of records; `sources` are its files.

    Iterating gives (record, function) of every sample. The function returns the bytes of the image (DataError if there
    is none). In the place of a record of damaged shards is the DataError.
    """

    count: int
    origin: dict[str, str | int]
    parts: tuple[Callable[[], Iterator[tuple[EmotionRecord | DataError, ReadImage]]], ...]

    def __iter__(self) -> Iterator[tuple[EmotionRecord | DataError, ReadImage]]:
        for part in self.parts:
            yield from part()


def open_samples(place: str, images: Path | None = None) -> Samples:
    """The samples of a records file, of shards (an `index.json`, a folder with one or above some, or their URL), or of
    a folder with `records.jsonl` and no shards. `images` is the folder of the image paths of records, if not theirs.

    DataError if there is none of these, or a broken one.
    """
    path = Path(place)
    if "://" not in place:
        if path.name == INDEX_NAME and path.is_file():
            place = str(path.parent)
        elif path.is_file():
            return _of_records(path, images)
        elif (path / RECORDS_NAME).is_file() and not any(path.glob(f"*/{INDEX_NAME}")):
            return _of_records(path / RECORDS_NAME, images)
    if images is not None:
        raise DataError(f"--images {images}: {place} has shards, which contain their images; omit --images")
    indexes = {found: ShardIndex.load(found) for found in find_indexes(place)}
    return Samples(
        sum(index.num_samples for index in indexes.values()),
        {found: index.hash for found, index in indexes.items()},
        tuple(partial(_in_shards, index) for index in indexes.values()),
    )


def _of_records(path: Path, images: Path | None) -> Samples:
    root = find_image_root(path, images)
    records = RecordStore(read_records(path))
    return Samples(len(records), {str(path): len(records)}, (partial(_beside_records, records, root),))


def _in_shards(index: ShardIndex) -> Iterator[tuple[EmotionRecord | DataError, ReadImage]]:
    reader = ShardReader(index)
    for number in range(len(reader)):
        record: EmotionRecord | DataError
        try:
            record = reader.read_record(number)
        except DataError as error:
            record = error
        yield record, lambda: reader.read(number).image_bytes  # noqa: B023, called before the next one
    reader.close()


def _beside_records(records: RecordStore, root: Path) -> Iterator[tuple[EmotionRecord, ReadImage]]:
    for record in records:
        yield record, partial(_image, root / record.image, record.id)


def _image(path: Path, record_id: str) -> bytes:
    """The bytes of an image that can be decoded; a broken one would stop another trainer after hours."""
    try:
        data = read_file(path)
        check_image(data)
    except OSError as error:
        raise DataError(f"{path}: the image of '{record_id}' cannot be read ({error.strerror})") from None
    except BadImageError as error:
        raise DataError(f"{path}: the image of '{record_id}' cannot be used ({error})") from None
    return data
