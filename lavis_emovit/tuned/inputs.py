"""Images to predict: files, folders, patterns, records, shards, or names from standard input."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from glob import glob, has_magic
from pathlib import Path

from lavis_emovit.clips.clip import Clip
from lavis_emovit.clips.video import VIDEO_FILE_SUFFIXES
from lavis_emovit.errors import DataError, UserError
from lavis_emovit.files import IMAGE_SUFFIXES, RARE_IMAGE_SUFFIXES, files_below, read_file
from lavis_emovit.outside import scrub
from lavis_emovit.paths import RECORDS_NAME, expand_home
from lavis_emovit.records import EmotionRecord, find_image_root, read_records
from lavis_emovit.shards.clips import pack_clip
from lavis_emovit.shards.columns import INDEX_NAME
from lavis_emovit.shards.images import BadImageError
from lavis_emovit.shards.index import ShardIndex, find_indexes
from lavis_emovit.shards.reader import SampleFaultError, ShardReader

logger = logging.getLogger(__name__)
_SUFFIXES = frozenset({*IMAGE_SUFFIXES, *RARE_IMAGE_SUFFIXES})


@dataclass(frozen=True)
class InputImage:
    """An image to predict.

    Attributes:
        name: unique in a prediction: the path as given, or the id of a record. Bytes of a path that are not UTF-8 are
            escaped, as in `caf\\xe9.jpg`.
        read: returns its bytes; OSError or DataError if it cannot be read, any other UserError if no image can be.
        record: of images of a dataset.
        clip: of a video file that is no record's.
        files: those it is read from.
        sample: of an image in shards, the hash of their index and its number.
    """

    name: str
    read: Callable[[], bytes]
    record: EmotionRecord | None = None
    clip: Clip | None = None
    files: tuple[Path, ...] = ()
    sample: str = ""

    def fingerprint(self) -> str:
        """Hex sha256 of what it is read from, without reading it: paths, sizes and times of files, and the record."""
        facts = [self.sample, *(_file_facts(path) for path in self.files)]
        if self.record is not None:
            facts.append(self.record.model_dump_json())
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def input_images(places: Iterable[str], images: Path | None = None) -> list[InputImage]:
    """All images of several places, each once, in order. A place without an image counts as one that cannot be read.

    Args:
        places: image and video files, folders (with all images below), patterns with `*`, records files, shards or
            their URL.
        images: folder of the image paths of records, if not theirs.

    Raises:
        UserError: no place has an image, two images have the same name, or records or shards cannot be read.
    """
    found: dict[str, InputImage] = {}
    problems: list[str] = []
    has_images = False
    for place in places:
        of_place = list(_images_of(place, images))
        has_images |= bool(of_place)
        if not of_place:
            path = expand_home(place)
            is_named = os.path.exists(path) or has_magic(place)  # noqa: PTH110, as below
            problem = f"has no image ({', '.join(sorted(_SUFFIXES))})" if is_named else "no such file or folder"
            problems.append(f"{place}: {problem}")
            of_place = [InputImage(_name(path), partial(_refuse, problem), files=(path,))]
        for image in of_place:
            earlier = found.setdefault(image.name, image)
            if earlier.record is not None or image.record is not None:
                if earlier is not image:
                    raise UserError(f"{place}: two records are called '{image.name}'; give each its own id")
            elif earlier.files != image.files:
                raise UserError(f"{place}: two files are called '{image.name}'; rename one of them")
    if not has_images:
        raise UserError(
            problems[0]
            if len(problems) == 1
            else f"none of {len(problems)} places has an image; the first: {problems[0]}"
        )
    return list(found.values())


def _images_of(place: str, images: Path | None) -> Iterator[InputImage]:
    path = expand_home(place)
    # Path.exists has an error for a name that is too long.
    if not (os.path.exists(path) or "://" in place or path.suffix == ".jsonl" or has_magic(place)):  # noqa: PTH110
        return
    if "://" in place or any(path.glob(INDEX_NAME)) or any(path.glob(f"*/{INDEX_NAME}")):
        if images is not None:
            raise UserError(f"--image-root {images}: {place} has shards, which contain their images; omit --image-root")
        for index in find_indexes(place):
            yield from _in_shards(ShardIndex.load(index))
        return
    if path.suffix == ".jsonl" or (path / RECORDS_NAME).is_file():
        records = path / RECORDS_NAME if path.is_dir() else path
        root = find_image_root(records, images, option="--image-root")
        for record in read_records(records):
            frames = record.clip.frames if record.clip is not None else None
            files = tuple(root / name for name in frames or (record.image,))
            yield InputImage(record.id, partial(_bytes_below, root, record), record, files=files)
        return
    if path.is_dir():
        below = list(files_below(path, _SUFFIXES | VIDEO_FILE_SUFFIXES))
        paths = [one for one in below if one.suffix.lower() in _SUFFIXES]
        if num_videos := len(below) - len(paths):
            logger.warning("%s: %d videos are not read; name them, or use a pattern such as '*.mp4'", place, num_videos)
    elif path.exists():
        paths = [path]
    else:
        found = glob(str(path), recursive=True)  # noqa: PTH207, Path.glob takes no absolute pattern
        paths = sorted(one for one in map(Path, found) if one.is_file())
    for one in paths:
        is_video = one.suffix.lower() in VIDEO_FILE_SUFFIXES
        yield InputImage(_name(one), partial(read_file, one), clip=Clip() if is_video else None, files=(one,))


def _name(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _file_facts(path: Path) -> list[str | int]:
    try:
        status = path.stat()
    except OSError:
        return [os.path.realpath(path)]
    return [os.path.realpath(path), status.st_size, status.st_mtime_ns]


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
        sample = f"{index.hash}, {number}"
        try:
            record = reader.read_record(number)
        except SampleFaultError as error:
            name = f"{scrub(index.place)}, sample {number}"
            yield InputImage(name, partial(_refuse, str(error)), sample=sample)
            continue
        yield InputImage(record.id, partial(_bytes_of, reader, number), record, sample=sample)


def _bytes_of(reader: ShardReader, number: int) -> bytes:
    try:
        return reader.read(number).image_bytes
    except SampleFaultError:
        raise
    except DataError as error:
        # The source is lost, not an image: it would be lost for all others too, after as many attempts for each.
        raise UserError(str(error)) from None


def _refuse(problem: str) -> bytes:
    raise DataError(problem)
