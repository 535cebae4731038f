"""Images of a report: which ones are shown, small copies of them, and the answers of every model.

A suite shows the most confident mistakes of each model. Generated answers have no confidence, so the first wrong ones
are shown; records are shuffled, so they are a random sample. Of numbers, it shows the answers farthest from the truth;
of captions, the first ones. A run shows the first images that were kept with its predictions, right or wrong.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path

from PIL import Image

from lavis_emovit.emotion.answers import read_emotion
from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.benchmark_rows import DIRECT, BenchmarkRows, ModelKey, result_name
from lavis_emovit.evaluation.metrics.action_units import unit_threshold
from lavis_emovit.evaluation.metrics.calibration import softmax
from lavis_emovit.evaluation.metrics.rows import score_matrix
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.evaluation.report.table import number, percent
from lavis_emovit.images import decode_image

IMAGE_PX = 320
THUMBNAIL_PX = 240
IMAGES_FOLDER = "pictures"
MAX_RUN_IMAGES = 24


@dataclass(frozen=True)
class ShownAnswer:
    """The answer of one model to an image.

    Attributes:
        name: of the model, with its scoring method.
        text: the answer as it was read.
        is_right: None if it is neither right nor wrong.
        confidence: of a scored answer.
        generated: text of a generated answer, with how it reads if that is not `text`.
        rank: place among this model's mistakes, from 1, if it is among the shown ones.
        candidates: the three most likely labels and the true one: label, probability, whether it is the true one.
    """

    name: str
    text: str
    is_right: bool | None
    confidence: str = ""
    generated: str | None = None
    reads: str = ""
    rank: int | None = None
    candidates: Sequence[tuple[str, float, bool]] = ()


@dataclass(frozen=True)
class ShownImage:
    """An image with its truth and the answers of all models."""

    record_id: str
    truth: str
    data_url: str | None
    answers: list[ShownAnswer]


def shown_images(folder: Path, benchmark: BenchmarkRows, num_images: int) -> list[tuple[str, list[ShownImage]]]:
    """The images of a benchmark, in groups with a heading, which is empty for a single group.

    Args:
        folder: of the run or suite.
        benchmark: with all rows.
        num_images: of a suite, for each model.
    """
    kept = [row for row in benchmark.plain(list(benchmark.rows)[-1]) if row.image is not None][:MAX_RUN_IMAGES]
    if not kept:
        rows = {key: {row.record_id: row for row in benchmark.plain(key)} for key in benchmark.rows}
        ranks = {key: _ids(mistakes(benchmark, key)[:num_images]) for key in _choosing(benchmark)}
        chosen = [(one, folder / image_path(benchmark.name, one)) for one in images_to_keep(benchmark, num_images)]
        images = [_shown(benchmark, one, path, rows, ranks) for one, path in chosen]
        return [("", images)] if images else []
    rows = {key: {row.instance_id: row for row in benchmark.plain(key)} for key in benchmark.rows}
    images = [_shown(benchmark, row.instance_id, folder / str(row.image), rows, {}) for row in kept]
    wrong = [image for image in images if not image.answers[-1].is_right]
    right = [image for image in images if image.answers[-1].is_right]
    return [(f"{title}: {len(group)}", group) for title, group in (("Wrong", wrong), ("Right", right)) if group]


def mistakes(benchmark: BenchmarkRows, key: ModelKey) -> list[PredictionRow]:
    """The rows of one model whose images a suite shows, in this order."""
    answered = [row for row in benchmark.plain(key) if row.error is None]
    kind = benchmark.settings.kind
    if kind in ("emotion", "explanation"):
        wrong = [row for row in answered if row.prediction != row.label]
        return sorted(wrong, key=lambda row: -(_confidence(row) or 0.0))
    if kind == "caption":
        return answered
    threshold = unit_threshold(benchmark.rows[key], benchmark.settings.active_from)
    measure = _distance if kind == "valence_arousal" else lambda row: _num_wrong_units(row, threshold)
    return [row for row in sorted(answered, key=lambda row: -measure(row)) if measure(row)]


def images_to_keep(benchmark: BenchmarkRows, num_images: int) -> dict[str, None]:
    """Ids of the records whose images a suite shows, in its order.

    Args:
        benchmark: with all rows.
        num_images: for each model; its scoring methods take turns. Without language models these are the mistakes of
            baselines.
    """
    by_model: dict[str, list[Iterable[str]]] = {}
    for key in _choosing(benchmark):
        by_model.setdefault(key[0], []).append(_ids(mistakes(benchmark, key)))
    return _in_turn([list(islice(_in_turn(methods), num_images)) for methods in by_model.values()])


def keep_images(folder: Path, benchmark: BenchmarkRows, num_images: int, items: Iterable[tuple[str, bytes]]) -> None:
    """Write small copies of the images that a suite shows, and delete those that it no longer shows.

    Args:
        folder: output folder of the suite.
        benchmark: with all rows.
        num_images: for each model.
        items: record id and encoded image of the benchmark's records; read only as far as needed.
    """
    place = folder / IMAGES_FOLDER / benchmark.name
    wanted = {one: place / image_path(benchmark.name, one).name for one in images_to_keep(benchmark, num_images)}
    for path in place.glob("*.jpg"):
        if path not in wanted.values():
            path.unlink()
    missing = {record_id for record_id, path in wanted.items() if not path.exists()}
    if missing:
        place.mkdir(parents=True, exist_ok=True)
        for record_id, image_bytes in items:
            if record_id in missing:
                missing.discard(record_id)
                # A damaged image has its error in its row; the page shows "no image".
                with contextlib.suppress(DataError):
                    wanted[record_id].write_bytes(_jpeg(decode_image(image_bytes).convert("RGB"), THUMBNAIL_PX))
            if not missing:
                return


def image_path(benchmark: str, record_id: str) -> Path:
    """The path of a small copy, relative to the suite's folder, for any record id."""
    readable = "".join(character if character.isalnum() or character in "-_." else "_" for character in record_id)
    digest = hashlib.sha256(record_id.encode()).hexdigest()[:8]
    return Path(IMAGES_FOLDER, benchmark, f"{readable[-80:]}-{digest}.jpg")


def _shown(
    benchmark: BenchmarkRows,
    name: str,
    path: Path,
    rows: Mapping[ModelKey, Mapping[str, PredictionRow]],
    ranks: Mapping[ModelKey, dict[str, int]],
) -> ShownImage:
    """An image with the rows of all models about the record or instance `name`."""
    found = {key: of_model[name] for key, of_model in rows.items() if name in of_model}
    thresholds = {key: unit_threshold(benchmark.rows[key], benchmark.settings.active_from) for key in found}
    with_candidates = len(benchmark.rows) <= 2
    answers = [
        _answer(benchmark, key, row, thresholds[key], ranks.get(key, {}).get(name), with_candidates)
        for key, row in found.items()
    ]
    key, row = next(reversed(found.items()))
    return ShownImage(row.record_id, _truth(benchmark, row, thresholds[key]), _data_url(path), answers)


def _answer(
    benchmark: BenchmarkRows,
    key: ModelKey,
    row: PredictionRow,
    threshold: float,
    rank: int | None,
    with_candidates: bool,
) -> ShownAnswer:
    name = result_name(*key)
    if row.error is not None:
        return ShownAnswer(name, f"failed: {row.error}", None)
    kind = benchmark.settings.kind
    if kind == "caption":
        return ShownAnswer(name, "", None, generated=row.answer or "")
    if kind == "valence_arousal":
        return ShownAnswer(name, _axes(row.values), None, generated=row.answer, rank=rank)
    if kind == "action_units":
        is_right = _num_wrong_units(row, threshold) == 0
        return ShownAnswer(name, _active(row.values, threshold), is_right, generated=row.answer, rank=rank)
    candidates = _candidates(row) if with_candidates else []
    confidence = _confidence(row)
    reads = ""
    if row.answer is not None and row.status is None and benchmark.label_set is not None:
        # A sample of a generated answer beside a scored one.
        answer = read_emotion(row.answer, benchmark.label_set)
        label = answer.label if answer.label is not None else answer.status
        reads = label if label != row.prediction else ""
    return ShownAnswer(
        name,
        row.prediction or f"no answer ({row.status or 'invalid'})",
        row.prediction == row.label,
        percent(confidence, 0) if confidence is not None and not candidates else "",
        row.answer,
        reads,
        rank,
        candidates,
    )


def _candidates(row: PredictionRow) -> list[tuple[str, float, bool]]:
    if row.scores is None:
        return []
    labels = list(row.scores)
    probabilities = softmax(score_matrix([row], labels))[0]
    ranked = sorted(range(len(labels)), key=lambda c: -probabilities[c])
    shown = [c for place, c in enumerate(ranked) if place < 3 or labels[c] == row.label]
    return [(labels[c], float(probabilities[c]), labels[c] == row.label) for c in shown]


def _truth(benchmark: BenchmarkRows, row: PredictionRow, threshold: float) -> str:
    if benchmark.settings.kind == "valence_arousal":
        return _axes(row.true_values)
    if benchmark.settings.kind == "action_units":
        return _active(row.true_values, threshold)
    return row.label or ""


def _axes(values: Mapping[str, float | None] | None) -> str:
    found = [
        f"{name}\u00a0{number(value, 2)}"
        for name in ("valence", "arousal")
        if (value := (values or {}).get(name)) is not None
    ]
    return ", ".join(found) or "no numbers"


def _active(values: Mapping[str, float | None] | None, threshold: float) -> str:
    names = [name for name, value in (values or {}).items() if value is not None and value >= threshold]
    return ", ".join(sorted(names, key=lambda name: int(name.removeprefix("AU")))) or "no active unit"


def _num_wrong_units(row: PredictionRow, threshold: float) -> int:
    predicted = row.values or {}
    pairs = [(true, predicted.get(name)) for name, true in (row.true_values or {}).items()]
    return sum(value is None or (value >= threshold) != (true >= threshold) for true, value in pairs)


def _distance(row: PredictionRow) -> float:
    """Euclidean, on [-1, 1] each; an answer without a number counts as the far end."""
    predicted = row.values or {}
    return math.hypot(
        *(
            abs(true) + 1 if predicted.get(name) is None else float(predicted[name] or 0) - true
            for name, true in (row.true_values or {}).items()
        )
    )


def _confidence(row: PredictionRow) -> float | None:
    if row.scores is None or row.prediction not in row.scores:
        return None
    labels = list(row.scores)
    return float(softmax(score_matrix([row], labels))[0][labels.index(row.prediction)])


def _choosing(benchmark: BenchmarkRows) -> list[ModelKey]:
    """The models whose mistakes are shown: language models, or baselines if there are no others."""
    return [key for key in benchmark.rows if key[1] != DIRECT] or list(benchmark.rows)


def _ids(rows: Iterable[PredictionRow]) -> dict[str, int]:
    """Ids of the records with their place, from 1."""
    return {row.record_id: place for place, row in enumerate(rows, start=1)}


def _in_turn(lists: Iterable[Iterable[str]]) -> dict[str, None]:
    """The first of each list, then the second of each, and so on, each name once."""
    return dict.fromkeys(one for one in chain.from_iterable(zip_longest(*lists)) if one is not None)


def _data_url(path: Path) -> str | None:
    """A small copy of an image for the page; None if it is missing or damaged."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (IMAGE_PX, IMAGE_PX))
            return "data:image/jpeg;base64," + base64.b64encode(_jpeg(image.convert("RGB"), IMAGE_PX)).decode()
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def _jpeg(image: Image.Image, max_side_px: int) -> bytes:
    image.thumbnail((max_side_px, max_side_px))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
