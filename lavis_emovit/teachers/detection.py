"""Faces in images: a record for each face, with its box."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from lavis_emovit.chat.request import load_rgb
from lavis_emovit.distributed.engine import Engine
from lavis_emovit.errors import DataError
from lavis_emovit.files import atomic_writer, images_below, read_file
from lavis_emovit.images import jpeg_of
from lavis_emovit.records import Attributes, EmotionRecord
from lavis_emovit.teachers.annotation import Counts
from lavis_emovit.teachers.catalogue import AnyTeacher
from lavis_emovit.teachers.choosing import OK, FaceSettings, choose_face, large_faces
from lavis_emovit.teachers.crops import Square, cut_out
from lavis_emovit.teachers.faces import Answer, Face
from lavis_emovit.teachers.proxies import proxies_of

_OF_THE_IMAGE = {"id", "image", "split", "source", "label_set", "box", "group", "clip", "extra"}
_ID_OF_FACE = re.compile(r"(.*)/face\d+", re.DOTALL)
_LABELS = [name for name in EmotionRecord.model_fields if name not in _OF_THE_IMAGE]


def image_records(folder: Path) -> Iterator[EmotionRecord]:
    """A record without labels for each image below a folder; DataError for a name that no record can have."""
    source = folder.name or folder.resolve().name or "images"
    for path in images_below(folder):
        name = path.relative_to(folder).as_posix()
        try:
            yield EmotionRecord(id=f"{source}/{name}", image=name, split="train", source=source)
        except ValidationError as error:
            raise DataError(f"{path}: {error.errors()[0]['msg']}; rename the file") from None


def check_ids(records: Sequence[EmotionRecord]) -> None:
    """DataError if the id that a face in an image would get is already that of another record."""
    several = {record.id for record in records if record.box is None and not _is_labelled(record)}
    for record in records:
        match = _ID_OF_FACE.fullmatch(record.id)
        if match is not None and match[1] in several:
            raise DataError(
                f"record '{record.id}': a face in the image of record '{match[1]}' would get the same id. Rename one "
                "of the two, or detect their faces separately."
            )


def face_records(
    record: EmotionRecord,
    teacher: AnyTeacher,
    answer: Answer,
    settings: FaceSettings,
    counts: Counts,
    *,
    proxies: bool = False,
) -> list[tuple[EmotionRecord, Face]]:
    """A record for each face of an image, from left to right.

    A record with a box keeps it and gets the face in it. Without one, the box becomes that of the face. Of several
    faces, each gets its own record, unless the record has labels: nobody knows to which of the people they belong.
    `extra` gets `face_by`, and `face_score` and `face_turn` (see `Face`) where they are known; with `proxies` also
    `proxy_<name>` for each of `proxies_of`.

    `counts` gets `ok`, or why there is no face as in `choose_face`; its outcomes the number of faces and of profiles.
    """
    status, face = choose_face(answer, record.box, settings)
    if status == "several_faces" and not _is_labelled(record):
        status, found = OK, sorted(large_faces(answer.faces, settings), key=lambda one: one.box[0])
    else:
        found = [face] if face is not None and status in (OK, "profile", "no_expression") else []
        status = OK if found else status
    counts.add(teacher, record, status, answer.reason)
    counts.outcomes["faces"] += len(found)
    counts.outcomes["of these, profiles"] += sum((one.turn or 0.0) > settings.max_turn for one in found)
    numbers = range(len(found)) if len(found) > 1 else [None]
    return [(_with_face(record, teacher, one, number, proxies), one) for number, one in zip(numbers, found)]


def _is_labelled(record: EmotionRecord) -> bool:
    return any(getattr(record, name) not in (None, [], Attributes()) for name in _LABELS)


def write_crops(
    faces: Iterable[tuple[EmotionRecord, Square]], image_root: Path, folder: Path, engine: Engine
) -> Iterator[EmotionRecord]:
    """Write each face as `crops/<number>.jpg` below `folder`, and yield the records of these images.

    They have no box, and `extra` names the whole image as `context_image`. DataError for an image that cannot be read.
    """
    paths = ((record, image_root / record.image, square) for record, square in faces)
    questions = ((record, (read_file(path), path, square)) for record, path, square in paths)
    for number, (record, content) in enumerate(engine.map(_cutting, questions)):
        if not isinstance(content, bytes):
            reason = content.reason if content is not None else ""
            raise DataError(f"{image_root / record.image}: the face could not be cut out: {reason}")
        name = f"crops/{number:06d}.jpg"
        with atomic_writer(folder / name, "wb") as file:
            file.write(content)
        extra = {**record.extra, "context_image": record.image}
        yield record.model_copy(update={"image": name, "box": None, "clip": None, "extra": extra})


@contextmanager
def _cutting() -> Iterator[Callable[[tuple[bytes, Path, Square]], bytes]]:
    """A worker that cuts faces out of images, as JPEGs."""
    yield lambda item: jpeg_of(cut_out(load_rgb(item[0], item[1]), item[2]))


def _with_face(
    record: EmotionRecord, teacher: AnyTeacher, face: Face, number: int | None, proxies: bool
) -> EmotionRecord:
    marks: dict[str, str | float] = {"face_by": teacher.title}
    if face.score is not None:
        marks["face_score"] = round(face.score, 4)
    if face.turn is not None:
        marks["face_turn"] = round(face.turn, 3)
    if proxies:
        marks |= {f"proxy_{name}": round(value, 4) for name, value in proxies_of(face).items()}
    return record.model_copy(
        update={
            "id": record.id if number is None else f"{record.id}/face{number}",
            "box": face.box if record.box is None else record.box,
            "extra": {**record.extra, **marks},
        }
    )
