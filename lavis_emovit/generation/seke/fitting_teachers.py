"""Estimate how far to trust each teacher, from faces whose expression people know."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from lavis_emovit.emotion.facial import FacialPriors, TeacherPrior
from lavis_emovit.emotion.facial_knowledge import frequency
from lavis_emovit.emotion.teacher_reliability import Confusion, TeacherVotes, log_likelihoods
from lavis_emovit.errors import DataError
from lavis_emovit.generation.seke.fitting import FITTED
from lavis_emovit.generation.seke.levels import PERSON, known_levels, sources_of, without_generated
from lavis_emovit.generation.seke.teachers import Teachers
from lavis_emovit.records import EmotionRecord

_NUM_FOLDS = 5
_MOST_EXPONENT = 8.0  # and at least its inverse

Counts = dict[str, dict[str, dict[str, float]]]  # source of the records -> expression -> label -> faces


@dataclass(frozen=True)
class JudgedFace:
    """A face whose expression people know, with what the teachers state about it."""

    expression: str
    source: str
    group: str  # the person, or the face itself
    votes: TeacherVotes  # of the teachers that judged it, at least one


def judged_faces(
    records: Iterable[EmotionRecord], teachers: Teachers, priors: FacialPriors, skipped: Counter[str]
) -> Iterator[JudgedFace]:
    """The faces with an expression by people that a teacher judges; the others are counted by the reason."""
    chosen: list[tuple[EmotionRecord, str]] = []
    for record in map(without_generated, records):
        known = known_levels(record, active_from=1.0)
        if known.expression is None or sources_of(record, known)["expression"] != PERSON:
            skipped["faces without an expression by people"] += 1
        elif known.expression not in priors.expressions:
            skipped[f"expression '{known.expression}' is not in the tables"] += 1
        else:
            chosen.append((record, known.expression))
    looked = teachers.look([record for record, _ in chosen], range(len(teachers.titles)))
    for (record, expression), sights in zip(chosen, looked):
        votes = {title: found for title, (_, found, _) in zip(teachers.titles, sights) if found is not None}
        if votes:
            yield JudgedFace(expression, record.source, record.group or record.id, votes)
        else:
            skipped["faces that no teacher judges"] += 1


def fit_teachers(faces: Sequence[JudgedFace], priors: FacialPriors, *, smoothing: float = 5.0) -> FacialPriors:
    """The fitted tables with the confusion matrix of each teacher, and the exponents of several together.

    A row is (n_jl + s b_jl) / (n_j + s), with the sum n_jl of the votes for label l about the n_j faces of expression j
    and the smoothing s. The s faces that count in advance, b_jl, are right as often as the teacher is over all
    expressions, a = (right votes + s / K) / (faces + s) with its K labels, and evenly wrong; if j is none of its
    labels, all labels are equally frequent.

    The exponent of m teachers minimises the log-loss of the faces, each the mean over all m of its teachers, with
    confusion matrices from the other four fifths of the persons, plus (s / 2) log(exponent)^2.

    Raises:
        DataError: no face.
    """
    if not faces:
        raise DataError("no face with an expression by people was judged by a teacher, so no reliability can be fitted")
    titles = list(dict.fromkeys(title for face in faces for title in face.votes))
    names = list(priors.expressions)
    teachers = {}
    for title in titles:
        counts = _counts(faces, title)
        confusion = confusion_of(counts, names, _labels(faces, title), smoothing)
        teachers[title] = TeacherPrior(confusion=confusion, source=FITTED, counts=counts)
    return priors.model_copy(
        update={"teachers": teachers, "exponents": tuple(_exponents(faces, titles, priors, smoothing))}
    )


def _labels(faces: Sequence[JudgedFace], title: str) -> list[str]:
    return sorted({label for face in faces for label in face.votes.get(title, {})})


def _counts(faces: Sequence[JudgedFace], title: str) -> Counts:
    counts: Counts = {}
    for face in faces:
        for label, share in face.votes.get(title, {}).items():
            row = counts.setdefault(face.source, {}).setdefault(face.expression, {})
            row[label] = row.get(label, 0.0) + share
    return counts


def confusion_of(counts: Counts, names: Sequence[str], labels: Collection[str], smoothing: float) -> Confusion:
    """The smoothed confusion matrix; see `fit_teachers`."""
    summed = {name: dict.fromkeys(labels, 0.0) for name in names}
    for table in counts.values():
        for name, row in table.items():
            for label, number in row.items():
                summed[name][label] += number
    num_faces = math.fsum(number for row in summed.values() for number in row.values())
    right = math.fsum(row.get(name, 0.0) for name, row in summed.items())
    trust = (right + smoothing / len(labels)) / (num_faces + smoothing)
    confusion = {}
    for name, row in summed.items():
        base = {label: 1 / len(labels) for label in labels}
        if name in labels and len(labels) > 1:
            base = {label: trust if label == name else (1 - trust) / (len(labels) - 1) for label in labels}
        total = math.fsum(row.values()) + smoothing
        confusion[name] = {label: (row[label] + smoothing * base[label]) / total for label in labels}
    return confusion


def _exponents(
    faces: Sequence[JudgedFace], titles: Sequence[str], priors: FacialPriors, smoothing: float
) -> Iterator[float]:
    names = list(priors.expressions)
    folds = [hashlib.sha256(face.group.encode()).digest()[0] % _NUM_FOLDS for face in faces]
    logs_J: dict[tuple[str, int], np.ndarray] = {}  # (teacher, number of the face) -> log-likelihoods of J expressions
    rest = [[face for face, of in zip(faces, folds) if of != fold] for fold in range(_NUM_FOLDS)]
    for title in titles:
        labels = _labels(faces, title)
        tables = [confusion_of(_counts(some, title), names, labels, smoothing) for some in rest]
        for number, (face, fold) in enumerate(zip(faces, folds)):
            if title in face.votes:
                found = log_likelihoods(face.votes[title], tables[fold], names)
                logs_J[title, number] = np.array(list(found.values()))
    frequencies_J = np.log([frequency(priors, name) for name in names])
    for size in range(1, len(titles) + 1):
        chosen = [(number, some) for number, face in enumerate(faces) for some in combinations(face.votes, size)]
        if not chosen:
            yield 1.0
            continue
        logs_NJ = np.array([sum(logs_J[title, number] for title in some) for number, some in chosen])
        truths_N = np.array([names.index(faces[number].expression) for number, _ in chosen])
        weights_N = np.array([1 / math.comb(len(faces[number].votes), size) for number, _ in chosen])
        yield _exponent(frequencies_J, logs_NJ, truths_N, weights_N, smoothing)


def _exponent(
    frequencies_J: np.ndarray, logs_NJ: np.ndarray, truths_N: np.ndarray, weights_N: np.ndarray, smoothing: float
) -> float:
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    def loss(log_exponent: float) -> float:
        found_NJ = log_softmax(frequencies_J + math.exp(log_exponent) * logs_NJ, axis=1)
        chosen_N = found_NJ[np.arange(len(truths_N)), truths_N]
        return float(smoothing / 2 * log_exponent**2 - weights_N @ chosen_N)

    limit = math.log(_MOST_EXPONENT)
    return math.exp(float(minimize_scalar(loss, bounds=(-limit, limit), method="bounded").x))
