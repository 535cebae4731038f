"""What is known about faces beside the expression that people named: references of the other levels, and costs.

Nobody coded units or rated the valence of these faces themselves, so both references are indirect:

- Units that a smile raises, on the London Faces: whether the landmarks of mediapipe, which names no expression, moved
  against the other photograph of the same person. A proxy is no unit, but its change within a person is a movement.
- Valence and arousal, on photographs in OASIS with one face: the mean rating of the whole photograph by people.
"""

from __future__ import annotations

import csv
import resource
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from london_faces import FOLDER, rounded
from scipy.stats import rankdata

from lavis_emovit.evaluation.metrics.dimensional import agreement_features, agreements
from lavis_emovit.evaluation.metrics.resampling import Resamples
from lavis_emovit.generation.seke.completion import Outcome
from lavis_emovit.records import EmotionRecord
from lavis_emovit.teachers.annotation import Counts, ask_teachers
from lavis_emovit.teachers.answers import AnswerFile
from lavis_emovit.teachers.catalogue import find_teachers
from lavis_emovit.teachers.choosing import FaceSettings, choose_face
from lavis_emovit.teachers.proxies import proxies_of

OASIS = FOLDER.parent / "oasis"
OASIS_DATA = "OASIS, photographs with one face of at least 32 px by mediapipe, mean ratings of the whole photograph"
FINDER = "mediapipe"
# Unit -> the proxy of its movement, and whether the movement raises or lowers it.
MOVEMENTS = {12: ("mouth_corner_height", 1), 25: ("lip_gap", 1), 6: ("eye_opening", -1)}
MOVED = 0.01  # of the distance between the outer corners of the eyes: about a pixel here

Movements = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Person -> expression -> proxies."""


def movements(records: Sequence[EmotionRecord], answers: AnswerFile) -> Movements:
    """Proxies of the landmarks of mediapipe; people without landmarks in both photographs are left out."""
    settings, found = FaceSettings(), dict[str, dict[str, dict[str, float]]]()
    for record, (answer,) in ask_teachers(records, FOLDER, find_teachers([FINDER]), answers, settings, Counts()):
        _, face = choose_face(answer, None, settings)
        if face is not None and (proxies := proxies_of(face)):
            found.setdefault(str(record.group), {})[str(record.emotion)] = proxies
    return {person: both for person, both in found.items() if len(both) == 2}


def rise(unit: int, one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """How much more a unit moved in `one` than in `other`."""
    proxy, sign = MOVEMENTS[unit]
    return sign * (one[proxy] - other[proxy])


def moved_units(record: EmotionRecord, moved: Movements) -> dict[int, bool]:
    """Whether each unit moved against the other photograph of the person; which one is the smile is not used."""
    both = moved.get(str(record.group), {})
    if len(both) != 2:
        return {}
    own = both[str(record.emotion)]
    (other,) = (proxies for name, proxies in both.items() if name != record.emotion)
    return {unit: rise(unit, own, other) > MOVED for unit in MOVEMENTS}


def rated_faces(answers: AnswerFile) -> tuple[list[EmotionRecord], int]:
    """A record with ratings and box for each photograph of OASIS with one usable face; the number of photographs."""
    with (OASIS / "labels.csv").open(encoding="utf-8") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    bare = [EmotionRecord(id=name, image=name, split="test", source="oasis") for name in rows]
    settings, found = FaceSettings(), []
    for record, (answer,) in ask_teachers(bare, OASIS, find_teachers([FINDER]), answers, settings, Counts()):
        status, face = choose_face(answer, None, settings)
        if status != "no_expression" or face is None:  # as it answers for each usable face
            continue
        row = rows[record.id]
        more = {"group": row["theme"], "valence": float(row["valence_norm"]), "arousal": float(row["arousal_norm"])}
        found.append(record.model_copy(update={"box": face.box, **more}))
    return found, len(bare)


def seconds_per_face(names: Sequence[str], records: Sequence[EmotionRecord]) -> dict[str, float]:
    """Processor seconds of each teacher for a face, without its start: those of all records but the first one."""
    found = {}
    for name in names:
        used = []
        for some in (records[:1], records):
            before = _child_seconds()
            with tempfile.TemporaryDirectory() as folder, AnswerFile(Path(folder) / "answers.jsonl") as fresh:
                for _ in ask_teachers(some, FOLDER, find_teachers([name]), fresh, FaceSettings(), Counts()):
                    pass
            used.append(_child_seconds() - before)
        found[name] = round((used[1] - used[0]) / (len(records) - 1), 4)
    return found


def _child_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def unit_strength(outcomes: Sequence[Outcome], records: Sequence[EmotionRecord], moved: Movements) -> dict[str, Any]:
    """Of each unit, over the people whose two faces are found: rank correlation of its probability in the smile with
    how far the landmarks moved, so whether it tells strong from weak movements, which the expression alone cannot.
    """
    chances: dict[str, dict[int, float]] = {}
    for outcome, record in zip(outcomes, records):
        stated = [answer.beliefs for answer in outcome.answers if answer.beliefs is not None]
        if stated and record.emotion == "happiness":
            chances[str(record.group)] = {unit: fmean(one.units[unit] for one in stated) for unit in MOVEMENTS}
    people = [person for person in moved if person in chances]
    resamples = Resamples(len(people), num_resamples=1000)
    result: dict[str, Any] = {"num_people": len(people)}
    for unit in MOVEMENTS:
        smile_N = np.array([chances[one][unit] for one in people])
        rise_N = np.array([rise(unit, moved[one]["happiness"], moved[one]["neutral"]) for one in people])
        result[f"AU{unit}"] = figure("pcc", rankdata(smile_N), rankdata(rise_N), resamples)
    return result


def figure(name: str, one_N: np.ndarray, other_N: np.ndarray, resamples: Resamples) -> dict[str, float] | None:
    """Correlation (`pcc`) or concordance (`ccc`) with its interval; None if it is undefined."""
    return interval_of(lambda weights_RN: weighted(name, one_N, other_N, weights_RN), len(one_N), resamples)


def weighted(name: str, one_N: np.ndarray, other_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """[R], `pcc` or `ccc` of weighted values; NaN without variance."""
    return agreements(weights_RN @ agreement_features(one_N, other_N))[name]


def interval_of(
    function: Callable[[np.ndarray], np.ndarray], num_rows: int, resamples: Resamples
) -> dict[str, float] | None:
    """A function of the weights [R, N] of rows, with its interval; None if it is undefined."""
    point = float(function(np.ones((1, num_rows)))[0])
    values_R = resamples.per_resample(function)
    interval = resamples.interval(values_R, point)
    return None if interval is None or not np.isfinite(point) else rounded(point, interval)
