"""Pictures of the report: which ones are worth a look, small copies of them, and what every model said about them.

Worth a look are a model's most confident mistakes, by the softmax of its scores. Where answers were written and not
scored nobody knows how sure the model was, so the first wrong ones count; benchmark records are shuffled, so these are
a fair choice. Of numbers, the answers farthest from the truth are shown; of captions, which nothing tells right from
wrong, the first.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path

from PIL import Image

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.benchmark_rows import DIRECT, BenchmarkRows, ModelKey, result_name
from lavis_emovit.evaluation.metrics import score_matrix, softmax
from lavis_emovit.evaluation.metrics.action_units import unit_threshold
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.evaluation.report.grid import number, percent
from lavis_emovit.images import decode_image

PICTURE_PX = 320
THUMBNAIL_PX = 240
PICTURES_FOLDER = "pictures"


@dataclass(frozen=True)
class Saying:
    """What one model said about a picture.

    Attributes:
        name: of the model, with the method of asking.
        text: its answer as it was read.
        is_right: None where nothing tells right from wrong.
        confidence: of a scored answer, as text.
        answer: the words of a written one.
        rank: place among this model's mistakes, from 1, where it is among those that are shown.
    """

    name: str
    text: str
    is_right: bool | None
    confidence: str = ""
    answer: str | None = None
    rank: int | None = None


@dataclass(frozen=True)
class SuitePicture:
    """A picture with the truth and what all models said about it."""

    record_id: str
    truth: str
    data_url: str | None
    sayings: list[Saying]


def mistakes(asked: BenchmarkRows, key: ModelKey) -> list[PredictionRow]:
    """The rows of one model that are worth a look, see the module; the first most."""
    answered = [row for row in asked.plain(key) if row.error is None]
    kind = asked.settings.kind
    if kind in ("emotion", "explanation"):
        wrong = [row for row in answered if row.prediction != row.label]
        return sorted(wrong, key=lambda row: -(_confidence(row) or 0.0))
    if kind == "caption":
        return answered
    threshold = unit_threshold(asked.rows[key], asked.settings.active_from)
    measure = _distance if kind == "valence_arousal" else lambda row: _num_wrong_units(row, threshold)
    return [row for row in sorted(answered, key=lambda row: -measure(row)) if measure(row)]


def pictures_to_keep(asked: BenchmarkRows, num_pictures: int) -> dict[str, None]:
    """Ids of the records whose pictures the report shows, in its order.

    Args:
        asked: a benchmark with all rows about it.
        num_pictures: for each model, its methods of being asked in turn. Baselines have their say on the pictures of
            language models; where there are none of these, their own mistakes are shown.
    """
    by_model: dict[str, list[list[str]]] = {}
    for model, method in _choosing(asked):
        ids = [row.record_id for row in mistakes(asked, (model, method))]
        by_model.setdefault(model, []).append(ids)
    chosen = [list(islice(_in_turn(methods), num_pictures)) for methods in by_model.values()]
    return dict.fromkeys(_in_turn(chosen))


def keep_pictures(folder: Path, asked: BenchmarkRows, num_pictures: int, items: Iterable[tuple[str, bytes]]) -> None:
    """Write small copies of the pictures that the report shows, and delete those that it shows no more.

    Args:
        folder: output folder of the suite.
        asked: the benchmark with all rows about it.
        num_pictures: for each model.
        items: record id and encoded picture of the benchmark's records; read only as far as needed.
    """
    place = folder / PICTURES_FOLDER / asked.name
    wanted = {
        record_id: picture_path(asked.name, record_id).name for record_id in pictures_to_keep(asked, num_pictures)
    }
    for path in place.glob("*.jpg"):
        if path.name not in wanted.values():
            path.unlink()
    missing = {record_id for record_id, name in wanted.items() if not (place / name).exists()}
    if missing:
        place.mkdir(parents=True, exist_ok=True)
        _write_thumbnails(place, missing, wanted, items)


def suite_pictures(folder: Path, asked: BenchmarkRows, num_pictures: int) -> list[SuitePicture]:
    """The pictures of a benchmark with what every model said about them."""
    by_key = {key: {row.record_id: row for row in asked.plain(key)} for key in asked.rows}
    ranks = {
        key: {row.record_id: rank for rank, row in enumerate(mistakes(asked, key)[:num_pictures], start=1)}
        for key in asked.rows
        if key in _choosing(asked)
    }
    thresholds = {key: unit_threshold(rows, asked.settings.active_from) for key, rows in asked.rows.items()}
    found = []
    for record_id in pictures_to_keep(asked, num_pictures):
        rows = {key: of_model[record_id] for key, of_model in by_key.items() if record_id in of_model}
        sayings = [
            _saying(result_name(*key), row, asked, thresholds[key], ranks.get(key, {}).get(record_id))
            for key, row in rows.items()
        ]
        key = next(iter(rows))
        truth = _truth(rows[key], asked, thresholds[key])
        found.append(SuitePicture(record_id, truth, data_url(folder / picture_path(asked.name, record_id)), sayings))
    return found


def picture_path(benchmark: str, record_id: str) -> Path:
    """Where a small copy lies, relative to the suite's folder; ids that are no file names get one of their own."""
    readable = "".join(character if character.isalnum() or character in "-_." else "_" for character in record_id)
    digest = hashlib.sha256(record_id.encode()).hexdigest()[:8]
    return Path(PICTURES_FOLDER, benchmark, f"{readable[-80:]}-{digest}.jpg")


def data_url(path: Path) -> str | None:
    """A picture as a small JPEG inside the page; None where it is missing or no picture."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (PICTURE_PX, PICTURE_PX))
            small = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    small.thumbnail((PICTURE_PX, PICTURE_PX))
    return "data:image/jpeg;base64," + base64.b64encode(_jpeg(small)).decode()


def _write_thumbnails(
    place: Path, missing: Collection[str], names: dict[str, str], items: Iterable[tuple[str, bytes]]
) -> None:
    left = set(missing)
    for record_id, image_bytes in items:
        if record_id not in left:
            continue
        left.discard(record_id)
        try:
            image = decode_image(image_bytes).convert("RGB")
        except DataError:
            pass  # its row says so; the page shows "no picture"
        else:
            image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
            (place / names[record_id]).write_bytes(_jpeg(image))
        if not left:
            return


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _choosing(asked: BenchmarkRows) -> list[tuple[str, str]]:
    """Those whose mistakes are shown: language models, or baselines where there are no others."""
    return [key for key in asked.rows if key[1] != DIRECT] or list(asked.rows)


def _in_turn(lists: Iterable[Iterable[str]]) -> Iterable[str]:
    """The first of each, then the second of each, and so on, each only once."""
    return dict.fromkeys(one for one in chain.from_iterable(zip_longest(*lists)) if one is not None)


def _saying(name: str, row: PredictionRow, asked: BenchmarkRows, threshold: float, rank: int | None) -> Saying:
    if row.error is not None:
        return Saying(name, f"failed: {row.error}", None)
    kind = asked.settings.kind
    if kind == "caption":
        return Saying(name, "", None, answer=row.answer or "")
    if kind in ("emotion", "explanation"):
        confidence = _confidence(row)
        text = row.prediction or f"no answer ({row.status or 'invalid'})"
        sure = percent(confidence, 0) if confidence is not None else ""
        return Saying(name, text, row.prediction == row.label, sure, row.answer, rank)
    if kind == "valence_arousal":
        return Saying(name, _axes(row.values), None, answer=row.answer, rank=rank)
    active = _active(row.values, threshold)
    return Saying(name, active, _num_wrong_units(row, threshold) == 0, answer=row.answer, rank=rank)


def _truth(row: PredictionRow, asked: BenchmarkRows, threshold: float) -> str:
    if asked.settings.kind == "valence_arousal":
        return _axes(row.true_values)
    if asked.settings.kind == "action_units":
        return _active(row.true_values, threshold)
    return row.label or ""


def _axes(values: dict[str, float | None] | dict[str, float] | None) -> str:
    found = [
        f"{name}\u00a0{number(value, 2)}"
        for name in ("valence", "arousal")
        if (value := (values or {}).get(name)) is not None
    ]
    return ", ".join(found) or "no numbers"


def _active(values: dict[str, float | None] | dict[str, float] | None, threshold: float) -> str:
    names = [name for name, value in (values or {}).items() if value is not None and value >= threshold]
    return ", ".join(sorted(names, key=lambda name: int(name.removeprefix("AU")))) or "no unit active"


def _num_wrong_units(row: PredictionRow, threshold: float) -> int:
    said = row.values or {}
    pairs = [(true, said.get(name)) for name, true in (row.true_values or {}).items()]
    return sum(value is None or (value >= threshold) != (true >= threshold) for true, value in pairs)


def _distance(row: PredictionRow) -> float:
    """Euclidean, on [-1, 1] each; an answer without a number counts as the far end."""
    said = row.values or {}
    return math.hypot(
        *(
            abs(true) + 1 if said.get(name) is None else float(said[name] or 0) - true
            for name, true in (row.true_values or {}).items()
        )
    )


def _confidence(row: PredictionRow) -> float | None:
    if row.scores is None or row.prediction not in row.scores:
        return None
    labels = list(row.scores)
    return float(softmax(score_matrix([row], labels))[0][labels.index(row.prediction)])
