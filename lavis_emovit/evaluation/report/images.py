"""Images of a report: which ones are shown, small copies of them, and the answers of every model.

A suite shows the most confident mistakes of each model. Generated answers have no confidence, so the first wrong ones
are shown; records are shuffled, so they are a random sample. Of numbers, it shows the answers farthest from the truth;
of captions, the first ones. A clip whose frames have effects on an answer is a strip of these frames in one row. A run
shows the first images that were kept with its predictions, right or wrong.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path

import numpy as np
from PIL import Image

from lavis_emovit.clips.clip import Clip
from lavis_emovit.clips.reading import film_strip
from lavis_emovit.emotion.answers import read_emotion
from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.benchmark_rows import DIRECT, BenchmarkRows, ModelKey, result_name
from lavis_emovit.evaluation.metrics.action_units import unit_threshold
from lavis_emovit.evaluation.metrics.calibration import softmax
from lavis_emovit.evaluation.metrics.rows import score_matrix
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.evaluation.report.table import number, percent
from lavis_emovit.files import atomic_writer, cut_name, read_file
from lavis_emovit.images import data_url, decode_image, jpeg_of

IMAGE_PX = 320
THUMBNAIL_PX = 240
IMAGES_FOLDER = "pictures"
MAX_RUN_IMAGES = 24


@dataclass(frozen=True)
class ShownAnswer:
    """The answer of one model to an image."""

    name: str  # of the model, with its scoring method
    text: str  # the answer as it was read
    is_right: bool | None = None  # None if it is neither right nor wrong
    generated: str | None = None
    reads: str = ""  # the label in a generated answer, if that is not `text`
    confidence: str = ""  # of a scored answer
    rank: int | None = None  # place among this model's mistakes, from 1, if it is among the shown ones
    # The three most likely labels and the true one: label, probability, whether it is the true one.
    candidates: Sequence[tuple[str, float, bool]] = ()
    # Of a clip: time of each frame in seconds, its effect on the answer (nats), and that as a share of the largest.
    frame_effects: Sequence[tuple[float, float, float]] = ()


@dataclass(frozen=True)
class ShownImage:
    """An image with its truth and the answers of all models."""

    record_id: str
    truth: str
    data_url: str | None
    answers: list[ShownAnswer]

    @property
    def num_strip_frames(self) -> int:
        """Frames of a film strip in one row, with bars below; 0: no such strip."""
        return max((len(answer.frame_effects) for answer in self.answers), default=0)


def shown_images(folder: Path, benchmark: BenchmarkRows, num_images: int) -> list[tuple[str, list[ShownImage]]]:
    """The images of a benchmark, in groups with a heading, which is empty for a single group.

    `num_images` is the number of images for each model of a suite.
    """
    kept = [row for row in benchmark.plain(list(benchmark.rows)[-1]) if row.image is not None][:MAX_RUN_IMAGES]
    if not kept:
        by_question = {key: {row.question_id: row for row in benchmark.plain(key)} for key in benchmark.rows}
        wrong = {key: mistakes(benchmark, key) for key in _choosing(benchmark)}
        ranks = {key: _places(rows[:num_images]) for key, rows in wrong.items()}
        chosen = _chosen(wrong, num_images)
        strips = _strips(benchmark)
        paths = {
            one: _inside(folder, image_path(benchmark.name, record, strips.get(record)))
            for one, record in chosen.items()
        }
        images = [_shown(benchmark, one, path, by_question, ranks) for one, path in paths.items()]
        return [("", images)] if images else []
    by_instance = {key: {row.instance_id: row for row in benchmark.plain(key)} for key in benchmark.rows}
    images = []
    for row in kept:
        stages = [rows[row.instance_id] for rows in by_instance.values() if row.instance_id in rows]
        # Bars need the strip of the stage that has them.
        path = _inside(folder, next((one.image for one in stages if one.frame_effects), row.image))
        images.append(_shown(benchmark, row.instance_id, path, by_instance, {}))
    if all(answer.is_right is None for image in images for answer in image.answers):
        return [("", images)]
    groups: dict[str, list[ShownImage]] = {"Wrong": [], "Right": []}
    for image in images:
        groups["Right" if image.answers[-1].is_right else "Wrong"].append(image)
    return [(f"{title}: {len(group)}", group) for title, group in groups.items() if group]


def mistakes(benchmark: BenchmarkRows, key: ModelKey) -> list[PredictionRow]:
    """The rows of one model whose images a suite shows, in this order."""
    answered = [row for row in benchmark.plain(key) if row.error is None]
    kind = benchmark.settings.kind
    if kind in ("emotion", "explanation", "choice", "statement"):
        wrong = [row for row in answered if row.prediction != row.label]
        return [row for _, row in sorted(zip(_confidences(wrong), wrong), key=lambda pair: -pair[0])]
    if kind == "labels":
        return [row for row in answered if row.prediction not in _true_labels(row)]
    if kind in ("caption", "instruction", "vqa"):
        return answered
    if kind in ("ranking", "words"):
        return [row for row in answered if row.predictions != row.labels]
    threshold = _threshold(benchmark, key)
    measure = _distance if kind == "valence_arousal" else lambda row: _num_wrong_units(row, threshold)
    return [row for row in sorted(answered, key=lambda row: -measure(row)) if measure(row)]


def images_to_keep(benchmark: BenchmarkRows, num_images: int) -> dict[str, None]:
    """Ids of the records whose images a suite shows: `num_images` for each model, whose scoring methods take turns."""
    chosen = _chosen({key: mistakes(benchmark, key) for key in _choosing(benchmark)}, num_images)
    return dict.fromkeys(chosen.values())


def _chosen(wrong: Mapping[ModelKey, Sequence[PredictionRow]], num_images: int) -> dict[str, str]:
    """Id of the question -> that of its record."""
    by_model: dict[str, list[Iterable[str]]] = {}
    for key, rows in wrong.items():
        by_model.setdefault(key[0], []).append(_places(rows))
    record_of = {row.question_id: row.record_id for rows in wrong.values() for row in rows}
    chosen = _in_turn([list(islice(_in_turn(methods), num_images)) for methods in by_model.values()])
    return {one: record_of[one] for one in chosen}


def small_copy(data: bytes, clip: Clip | None, side_px: int, strip_s: Sequence[float] | None = None) -> Image.Image:
    """A small copy of an encoded image, or a film strip of a clip in two rows, as high. DataError as `open_clip`.

    With `strip_s`, times of frames, the strip has them in one row, half as high.
    """
    if clip is not None:
        return film_strip(data, clip, side_px // 2, num_rows=1 if strip_s else 2, times_s=strip_s)
    image = decode_image(data).convert("RGB")
    image.thumbnail((side_px, side_px))
    return image


def keep_images(
    folder: Path,
    benchmark: BenchmarkRows,
    num_images: int,
    items: Iterable[tuple[str, Callable[[], bytes], Clip | None]],
) -> None:
    """Write small copies of the images that a suite shows, and delete those that it no longer shows.

    `items` are id, function that returns the encoded image or clip, and `clip` of the benchmark's records; they are
    read only as far as needed.
    """
    strips, shown = _strips(benchmark), images_to_keep(benchmark, num_images)
    wanted = {one: folder / image_path(benchmark.name, one, strips.get(one)) for one in shown}
    for path in (folder / IMAGES_FOLDER / benchmark.name).glob("*.jpg"):
        if path not in wanted.values():
            path.unlink()
    missing = {record_id for record_id, path in wanted.items() if not path.exists()}
    for record_id, read_image, clip in items if missing else ():
        if record_id in missing:
            missing.discard(record_id)
            # A damaged image has its error in its row; the page shows "no image".
            with contextlib.suppress(DataError):
                image = small_copy(read_image(), clip, THUMBNAIL_PX, strips.get(record_id))
                with atomic_writer(wanted[record_id], "wb") as file:
                    file.write(jpeg_of(image))
        if not missing:
            return


def image_path(benchmark: str, record_id: str, strip_s: Sequence[float] | None = None) -> Path:
    """The path of a small copy, relative to the suite's folder, for any record id; `strip_s` as in `small_copy`."""
    readable = "".join(character if character.isalnum() or character in "-_." else "_" for character in record_id)
    content = record_id if strip_s is None else f"{record_id} {tuple(strip_s)}"
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    return Path(IMAGES_FOLDER, benchmark, f"{cut_name(readable[-80:])}-{digest}.jpg")


def _strips(benchmark: BenchmarkRows) -> dict[str, tuple[float, ...]]:
    """Record id -> times of the frames below which its card has bars: those of the first model that has effects."""
    found: dict[str, tuple[float, ...]] = {}
    for key in benchmark.rows:
        for row in benchmark.plain(key):
            if row.frame_effects and row.frames_s:
                found.setdefault(row.record_id, row.frames_s)
    return found


def _shown(
    benchmark: BenchmarkRows,
    name: str,
    path: Path | None,
    rows: Mapping[ModelKey, Mapping[str, PredictionRow]],
    ranks: Mapping[ModelKey, Mapping[str, int]],
) -> ShownImage:
    """An image with the rows of all models about the record or instance `name`."""
    found = {key: of_model[name] for key, of_model in rows.items() if name in of_model}
    # One strip cannot have the frames of models that saw others.
    strip_s = next((row.frames_s for row in found.values() if row.frame_effects), None)
    answers = [
        _answer(benchmark, key, row, ranks.get(key, {}).get(name), has_strip=row.frames_s == strip_s)
        for key, row in found.items()
    ]
    key, row = next(reversed(found.items()))
    if benchmark.settings.kind == "valence_arousal":
        truth = _axes(row.true_values)
    elif benchmark.settings.kind == "action_units":
        truth = _active(row, row.true_values, _threshold(benchmark, key))
    else:
        truth = ", ".join(_true_labels(row))
    if benchmark.settings.kind == "instruction":
        answers = [ShownAnswer("reference answer", "", generated=row.reference or ""), *answers]
    if row.question is not None:
        answers = [ShownAnswer("question", row.question), *answers]
    return ShownImage(row.record_id, truth, _data_url(path), answers)


def _answer(
    benchmark: BenchmarkRows, key: ModelKey, row: PredictionRow, rank: int | None, *, has_strip: bool
) -> ShownAnswer:
    name, kind = result_name(*key), benchmark.settings.kind
    if row.error is not None:
        return ShownAnswer(name, f"failed: {row.error}")
    if kind in ("caption", "instruction", "vqa"):
        return ShownAnswer(name, "", generated=row.answer or "")
    if kind in ("ranking", "words"):
        named = ", ".join(row.predictions or ()) or f"no answer ({row.status or 'invalid'})"
        return ShownAnswer(name, named, generated=row.answer, rank=rank)
    if kind == "valence_arousal":
        return ShownAnswer(name, _axes(row.values), generated=row.answer, rank=rank)
    if kind == "action_units":
        threshold = _threshold(benchmark, key)
        is_right = _num_wrong_units(row, threshold) == 0
        return ShownAnswer(name, _active(row, row.values, threshold), is_right, row.answer, rank=rank)
    text = row.prediction or f"no answer ({row.status or 'invalid'})"
    probabilities = _probabilities(row)
    candidates: list[tuple[str, float, bool]] = []
    if len(benchmark.rows) <= 2:
        ranked = sorted(probabilities.items(), key=lambda pair: -pair[1])
        right = _true_labels(row)
        best = {one for one, _ in ranked[:3]} | {*right}
        candidates = [(str(one), share, one in right) for one, share in ranked if one in best]
    reads = ""
    if row.answer is not None and row.status is None and benchmark.label_set is not None:
        # A sample of a generated answer beside a scored one.
        answer = read_emotion(row.answer, benchmark.label_set)
        label = answer.label if answer.label is not None else answer.status
        reads = label if label != row.prediction else ""
    confidence = probabilities.get(row.prediction)
    shown = percent(confidence, 0) if confidence is not None and not candidates else ""
    is_right = row.prediction in _true_labels(row)
    effects = effect_bars(row.frames_s or (), row.frame_effects or ()) if has_strip else []
    return ShownAnswer(name, text, is_right, row.answer, reads, shown, rank, candidates, effects)


def effect_bars(times_s: Iterable[float], effects: Sequence[float]) -> list[tuple[float, float, float]]:
    """See `ShownAnswer.frame_effects`."""
    largest = max(map(abs, effects), default=0.0) or 1.0
    return [(time_s, effect, abs(effect) / largest) for time_s, effect in zip(times_s, effects)]


def _true_labels(row: PredictionRow) -> tuple[str, ...]:
    """The true label of a row, or all of them; none if it is not known."""
    return row.labels or ((row.label,) if row.label is not None else ())


def _axes(values: Mapping[str, float | None] | None) -> str:
    found = [(name, (values or {}).get(name)) for name in ("valence", "arousal")]
    return ", ".join(f"{name}\u00a0{number(value, 2)}" for name, value in found if value is not None) or "no numbers"


def _active(row: PredictionRow, values: Mapping[str, float | None] | None, threshold: float) -> str:
    found = (values or {}).items()
    names = [name for name, value in found if value is not None and value >= row.active_from(name, threshold)]
    return ", ".join(sorted(names, key=lambda name: int(name.removeprefix("AU")))) or "no active unit"


def _threshold(benchmark: BenchmarkRows, key: ModelKey) -> float:
    return unit_threshold(benchmark.rows[key], benchmark.settings.active_from)


def _num_wrong_units(row: PredictionRow, threshold: float) -> int:
    pairs = [(row.active_from(name, threshold), true, value) for name, true, value in _pairs(row)]
    return sum(value is None or (value >= at) != (true >= at) for at, true, value in pairs)


def _distance(row: PredictionRow) -> float:
    """Euclidean, on [-1, 1] each; an answer without a number counts as the far end."""
    return math.hypot(*(abs(true) + 1 if value is None else value - true for _, true, value in _pairs(row)))


def _pairs(row: PredictionRow) -> list[tuple[str, float, float | None]]:
    """Name, true number and predicted number."""
    return [(name, true, (row.values or {}).get(name)) for name, true in (row.true_values or {}).items()]


def _probabilities(row: PredictionRow) -> dict[str | None, float]:
    """The probability of each scored label."""
    scores = row.scores or {}
    return dict(zip(scores, softmax(np.array([list(scores.values())]))[0].tolist())) if scores else {}


def _confidences(rows: Sequence[PredictionRow]) -> list[float]:
    """The probability of the prediction of each row, 0 if it has none; at once if all rows have the same labels."""
    labels = list(rows[0].scores or {}) if rows else []
    if not labels or any((row.scores or {}).keys() != set(labels) for row in rows):
        return [_probabilities(row).get(row.prediction, 0.0) for row in rows]
    place = {label: number for number, label in enumerate(labels)}
    probabilities_NC = softmax(score_matrix(rows, labels))
    return [
        float(of[place[row.prediction]]) if row.prediction in place else 0.0 for of, row in zip(probabilities_NC, rows)
    ]


def _choosing(benchmark: BenchmarkRows) -> list[ModelKey]:
    """The models whose mistakes are shown: language models, or baselines if there are no others."""
    return [key for key in benchmark.rows if key[1] != DIRECT] or list(benchmark.rows)


def _places(rows: Iterable[PredictionRow]) -> dict[str, int]:
    """Ids of the questions -> their place, from 1."""
    return {row.question_id: place for place, row in enumerate(rows, start=1)}


def _in_turn(lists: Iterable[Iterable[str]]) -> dict[str, None]:
    """The first of each list, then the second of each, and so on, each name once."""
    return dict.fromkeys(one for one in chain.from_iterable(zip_longest(*lists)) if one is not None)


def _inside(folder: Path, image: object) -> Path | None:
    """The file of an image below the folder of the run or suite; rows that name any other file show no image."""
    path = (folder / str(image)).resolve()
    return path if path.is_relative_to(folder.resolve()) and path.is_file() else None


def _data_url(path: Path | None) -> str | None:
    """A small copy of an image for the page; None if it is missing or damaged."""
    if path is None:
        return None
    try:
        small = decode_image(read_file(path), min_side_px=IMAGE_PX)
    except (OSError, DataError):
        return None
    small.thumbnail((4 * IMAGE_PX, IMAGE_PX))  # film strips are wide
    return data_url(small)
