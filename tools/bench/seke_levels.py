"""Valence, arousal and action units that SEKE concludes from teachers' expressions, against what is known about them.

    python tools/bench/seke_levels.py        # minutes; needs all teachers, and ../shared/data or EMOVIT_SHARED

Nobody coded units or rated the valence of the face in these photographs, so both comparisons are indirect:

- Units that a smile raises, on the London Faces: the probability of the unit against the movement of landmarks between
  the two photographs of a person. The landmarks are those of mediapipe, which names no expression. A proxy is no unit,
  but its change within a person is a movement.
- Valence and arousal, on the photographs of people in OASIS: what the face says against the mean rating of the whole
  photograph, of which the face is a part. Faces and poses are also measured alone: there the face is the content.

The packaged tables are used, so nothing is fitted to these photographs. Intervals (95 %) resample people, of OASIS
themes such as "Wedding".
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from scipy.stats import rankdata

from lavis_emovit.emotion.facial import facial_priors
from lavis_emovit.evaluation.metrics.dimensional import agreement_features, agreements
from lavis_emovit.evaluation.metrics.resampling import Resamples
from lavis_emovit.generation.seke.completion import Outcome, complete
from lavis_emovit.generation.seke.levels import AXES, Case, Levels
from lavis_emovit.generation.seke.settings import LEVELS, SekeSettings
from lavis_emovit.generation.seke.teachers import TeacherAnnotator
from lavis_emovit.records import EmotionRecord
from lavis_emovit.teachers.annotation import Counts, ask_teachers
from lavis_emovit.teachers.answers import AnswerFile
from lavis_emovit.teachers.catalogue import find_teachers
from lavis_emovit.teachers.choosing import FaceSettings, choose_face
from lavis_emovit.teachers.looking import Looking
from lavis_emovit.teachers.proxies import proxies_of

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import environment_info, write_result
from london_faces import DATA, FOLDER, london_faces, person_numbers, read_arguments, rounded

OASIS = FOLDER.parent / "oasis"
OASIS_DATA = "OASIS, photographs of the category Person, 320 x 256 px, mean ratings of the whole photograph"
TEACHERS = {"face-api": ("face-api",), "human": ("human",), "fer": ("fer",), "all three": ("face-api", "human", "fer")}
# Unit -> the proxy of its movement, and whether the movement raises or lowers it.
MOVEMENTS = {12: ("mouth_corner_height", 1), 6: ("eye_opening", -1), 25: ("lip_gap", 1)}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the result."""
    arguments = read_arguments(__doc__, "seke_levels", argv)
    faces, people = london_faces(), oasis_people()
    with AnswerFile(arguments.work / "answers.jsonl") as answers:
        moved = movements(faces, answers)
        units = {}
        affect = {}
        for name, teachers in TEACHERS.items():
            units[name] = measure_units(see(faces, FOLDER, teachers, answers), faces, moved)
            seen = list(zip(people, see(people, OASIS, teachers, answers)))
            posed = [(record, outcome) for record, outcome in seen if record.extra["theme"]]
            affect[name] = {"all": measure_affect(seen), "faces and poses": measure_affect(posed)}
            print(name, units[name], affect[name], flush=True)
    result = {
        "benchmark": "seke_levels",
        "data": {"units": DATA, "affect": OASIS_DATA},
        "num_images": {"units": len(faces), "affect": len(people)},
        "movements": {f"AU{unit}": proxy for unit, (proxy, _) in MOVEMENTS.items()},
        "units": units,
        "affect": affect,
        "command": "python tools/bench/seke_levels.py",
        **environment_info("lavis_emovit/teachers", "lavis_emovit/generation/seke", "tools/bench/seke_levels.py"),
    }
    write_result(arguments.out, result)
    return 0


def oasis_people() -> list[EmotionRecord]:
    """A record for each photograph of people with its ratings; `theme` is the emotion of a face or a pose."""
    with (OASIS / "labels.csv").open(encoding="utf-8") as file:
        return [
            EmotionRecord(
                id=row["image"],
                image=row["image"],
                split="test",
                source="oasis",
                group=row["theme"],
                valence=float(row["valence_norm"]),
                arousal=float(row["arousal_norm"]),
                extra={"theme": row["expression_theme"]},
            )
            for row in csv.DictReader(file)
            if row["category"] == "Person"
        ]


def see(
    records: Sequence[EmotionRecord], folder: Path, teachers: tuple[str, ...], answers: AnswerFile
) -> list[Outcome]:
    """What SEKE concludes about the largest face of each image, of which it knows nothing."""
    settings, priors = SekeSettings(teachers=teachers, verification="off"), facial_priors()
    looking = Looking(folder, find_teachers(teachers), answers, FaceSettings(faces="largest"))
    cases = [Case(bare(record), Levels(), LEVELS) for record in records]
    return complete(cases, TeacherAnnotator(looking, settings, priors), settings, priors)


def bare(record: EmotionRecord) -> EmotionRecord:
    return EmotionRecord(id=record.id, image=record.image, split=record.split, source=record.source)


def movements(records: Sequence[EmotionRecord], answers: AnswerFile) -> dict[str, dict[str, dict[str, float]]]:
    """Person -> expression -> proxies of the landmarks of mediapipe; people without landmarks are left out."""
    settings, found = FaceSettings(), dict[str, dict[str, dict[str, float]]]()
    for record, (answer,) in ask_teachers(records, FOLDER, find_teachers(["mediapipe"]), answers, settings, Counts()):
        _, face = choose_face(answer, None, settings)
        if face is not None and (proxies := proxies_of(face)):
            found.setdefault(str(record.group), {})[str(record.emotion)] = proxies
    return {person: both for person, both in found.items() if len(both) == 2}


def measure_units(
    outcomes: Sequence[Outcome], records: Sequence[EmotionRecord], moved: dict[str, dict[str, dict[str, float]]]
) -> dict[str, Any]:
    """Of each unit, over the people whose two faces are found.

    `paired`: share of the people whose photograph with the higher probability is also the one to which the landmarks
    moved; a tie counts half. `among_smiles`: rank correlation of the probability in the smile with how far the
    landmarks moved: whether it tells strong from weak movements, which the expression alone cannot.
    """
    chances: dict[str, dict[str, dict[int, float]]] = {}
    for outcome, record in zip(outcomes, records):
        stated = [answer.beliefs for answer in outcome.answers if answer.beliefs is not None]
        if stated:
            means = {unit: fmean(one.units[unit] for one in stated) for unit in MOVEMENTS}
            chances.setdefault(str(record.group), {})[str(record.emotion)] = means
    people = [person for person in moved if len(chances.get(person, {})) == 2]
    resamples = Resamples(len(people), num_resamples=1000)
    result: dict[str, Any] = {"num_people": len(people)}
    for unit, (proxy, sign) in MOVEMENTS.items():
        smile_N, calm_N = (np.array([chances[one][name][unit] for one in people]) for name in ("happiness", "neutral"))
        rise_N = sign * np.array([moved[one]["happiness"][proxy] - moved[one]["neutral"][proxy] for one in people])
        same_N = (np.sign(smile_N - calm_N) * np.sign(rise_N) + 1) / 2
        result[f"AU{unit}"] = {
            "paired": rounded(float(same_N.mean()), resamples.mean_interval(same_N)),
            "among_smiles": _figure(correlation, rankdata(smile_N), rankdata(rise_N), resamples),
        }
    return result


def measure_affect(seen: Sequence[tuple[EmotionRecord, Outcome]]) -> dict[str, Any]:
    """Of each axis, over the photographs with a face: correlation and concordance (CCC) with the mean rating."""
    found = [(record, one.estimate.levels) for record, one in seen if one.estimate is not None]
    result: dict[str, Any] = {"num_images": len(seen), "num_faces": len(found)}
    resamples = Resamples(len(found), person_numbers([record for record, _ in found]), num_resamples=1000)
    for axis in AXES:
        stated_N = np.array([getattr(levels, axis) for _, levels in found])
        rated_N = np.array([getattr(record, axis) for record, _ in found])
        result[axis] = {
            "correlation": _figure(correlation, stated_N, rated_N, resamples),
            "ccc": _figure(concordance, stated_N, rated_N, resamples),
        }
    return result


def correlation(one_N: np.ndarray, other_N: np.ndarray, weights_N: np.ndarray) -> float:
    """Pearson's, of weighted values; NaN without variance."""
    return _weighted("pcc", one_N, other_N, weights_N)


def concordance(one_N: np.ndarray, other_N: np.ndarray, weights_N: np.ndarray) -> float:
    """Lin's, of weighted values; NaN without variance."""
    return _weighted("ccc", one_N, other_N, weights_N)


def _weighted(name: str, one_N: np.ndarray, other_N: np.ndarray, weights_N: np.ndarray) -> float:
    return float(agreements(weights_N[None] @ agreement_features(one_N, other_N))[name][0])


def _figure(
    function: Callable[[np.ndarray, np.ndarray, np.ndarray], float],
    one_N: np.ndarray,
    other_N: np.ndarray,
    resamples: Resamples,
) -> dict[str, float] | None:
    """A figure with its interval; None if it is undefined."""
    point = function(one_N, other_N, np.ones(len(one_N)))
    values_R = resamples.per_resample(lambda w_RN: np.array([function(one_N, other_N, w_N) for w_N in w_RN]))
    interval = resamples.interval(values_R, point)
    if interval is None or not np.isfinite(point):
        return None
    return rounded(point, interval)


if __name__ == "__main__":
    raise SystemExit(main())
