"""Images to predict: files, folders, patterns, records, shards, or names from standard input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from glob import glob, has_magic
from pathlib import Path

from lavis_emovit.clips.clip import Clip
from lavis_emovit.clips.video import VIDEO_SUFFIXES
from lavis_emovit.errors import DataError, UserError
from lavis_emovit.exchange.samples import RECORDS_NAME
from lavis_emovit.files import IMAGE_SUFFIXES, RARE_IMAGE_SUFFIXES, images_below, read_file
from lavis_emovit.records import EmotionRecord, find_image_root, read_records
from lavis_emovit.shards.clips import pack_clip
from lavis_emovit.shards.columns import INDEX_NAME
from lavis_emovit.shards.images import BadImageError
from lavis_emovit.shards.index import ShardIndex, find_indexes
from lavis_emovit.shards.reader import ShardReader

_SUFFIXES = frozenset({*IMAGE_SUFFIXES, *RARE_IMAGE_SUFFIXES})


@dataclass(frozen=True)
class InputImage:
    """An image to predict.

    Attributes:
        name: unique in a prediction: the path as given, or the id of a record.
        read: returns its bytes; OSError or DataError if it cannot be read.
        record: of images of a dataset.
        clip: of a video file that is no record's.
    """

    name: str
    read: Callable[[], bytes]
    record: EmotionRecord | None = None
    clip: Clip | None = None


def input_images(places: Iterable[str], images: Path | None = None) -> list[InputImage]:
    """All images of several places, each once, in order.

    Args:
        places: image and video files, folders (with all images below), patterns with `*`, records files, shards or
            their URL.
        images: folder of the image paths of records, if not theirs.

    Raises:
        UserError: a place does not exist, has no image, or two images have the same name.
    """
    found: dict[str, InputImage] = {}
    for place in places:
        has_images = False
        for image in _images_of(place, images):
            has_images = True
            earlier = found.setdefault(image.name, image)
            if earlier is not image and (earlier.record is not None or image.record is not None):
                raise UserError(f"{place}: two records are called '{image.name}'; give each its own id")
        if not has_images:
            raise UserError(f"{place}: has no image ({', '.join(sorted(_SUFFIXES))})")
    return list(found.values())


def _images_of(place: str, images: Path | None) -> Iterator[InputImage]:
    path = Path(place).expanduser()
    if "://" in place or any(path.glob(INDEX_NAME)) or any(path.glob(f"*/{INDEX_NAME}")):
        if images is not None:
            raise UserError(f"--images {images}: {place} has shards, which contain their images; omit --images")
        for index in find_indexes(place):
            yield from _in_shards(ShardIndex.load(index))
        return
    if path.suffix == ".jsonl" or (path / RECORDS_NAME).is_file():
        records = path / RECORDS_NAME if path.is_dir() else path
        root = find_image_root(records, images)
        for record in read_records(records):
            yield InputImage(record.id, partial(_bytes_below, root, record), record)
        return
    if path.is_dir():
        paths: Iterable[Path] = images_below(path)
    elif path.exists():
        paths = [path]
    elif has_magic(place):
        found = glob(str(path), recursive=True)  # noqa: PTH207, Path.glob takes no absolute pattern
        paths = sorted(one for one in map(Path, found) if one.is_file())
    else:
        raise UserError(f"{place}: no such file or folder")
    for one in paths:
        is_video = one.suffix.lower().removeprefix(".") in VIDEO_SUFFIXES
        yield InputImage(str(one), partial(read_file, one), clip=Clip() if is_video else None)


def _bytes_below(root: Path, record: EmotionRecord) -> bytes:
    if record.clip is not None and record.clip.frames is not None:
        try:
            return pack_clip(root, record, record.clip, None, None)[1]
        except BadImageError as error:
            raise DataError(str(error)) from None
    return read_file(root / record.image)


def _in_shards(index: ShardIndex) -> Iterator[InputImage]:
    reader = ShardReader(index)
    for number in range(len(reader)):
        try:
            record = reader.read_record(number)
        except DataError as error:
            yield InputImage(f"{index.folder}, sample {number}", partial(_refuse, str(error)))
            continue
        yield InputImage(record.id, partial(_bytes_of, reader, number), record)


def _bytes_of(reader: ShardReader, number: int) -> bytes:
    return reader.read(number).image_bytes


def _refuse(problem: str) -> bytes:
    raise DataError(problem)
