"""What teachers see in the London Faces: faces found, accuracy, and what their uncertainty is worth.

    python tools/bench/teachers.py        # minutes; needs all teachers, and ../shared/data or EMOVIT_SHARED

Each of 102 people smiles once and looks neutral once. A face that a teacher does not find counts as a wrong answer.
Nothing is fitted to these photographs, so all of them are a test. Intervals (95 %) resample people.
"""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lavis_emovit.evaluation.metrics.resampling import Resamples
from lavis_emovit.teachers.annotation import Counts, ask_teachers
from lavis_emovit.teachers.answers import AnswerFile
from lavis_emovit.teachers.catalogue import TEACHERS
from lavis_emovit.teachers.choosing import OK, FaceSettings, choose_face
from lavis_emovit.teachers.combining import Combined, combine
from lavis_emovit.teachers.proxies import PROXIES, proxies_of

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import environment_info, write_result
from london_faces import DATA, FOLDER, LABELS, auroc, london_faces, person_numbers, read_arguments, share


def main(argv: Sequence[str] | None = None) -> int:
    arguments = read_arguments(__doc__, "teachers", argv)
    records = london_faces()
    teachers, settings, counts = list(TEACHERS.values()), FaceSettings(), Counts()
    seen: dict[str, list[Mapping[str, float] | None]] = {teacher.name: [] for teacher in teachers}
    shapes: dict[str, list[dict[str, float]]] = {teacher.name: [] for teacher in teachers}
    with AnswerFile(arguments.work / "answers.jsonl") as answers:
        for record, given in ask_teachers(records, FOLDER, teachers, answers, settings, counts):
            for teacher, answer in zip(teachers, given):
                status, face = choose_face(answer, None, settings)
                # A teacher that only finds faces has done what it can.
                status = OK if status == "no_expression" and not teacher.names_expressions else status
                counts.add(teacher, record, status, answer.reason)
                shapes[teacher.name].append(proxies_of(face) if face is not None and status == OK else {})
                seen[teacher.name].append(face.expressions if face is not None and status == OK else None)
    truths, groups = [str(record.emotion) for record in records], person_numbers(records)
    named = [teacher.name for teacher in teachers if teacher.names_expressions]
    sets = [chosen for size in range(1, len(named) + 1) for chosen in itertools.combinations(named, size)]
    result = {
        "benchmark": "teachers",
        "data": DATA,
        "num_images": len(records),
        "statuses": {name: dict(found) for name, found in counts.by_teacher.items()},
        "results": {" + ".join(chosen): measure([seen[name] for name in chosen], truths, groups) for chosen in sets},
        "answers": {
            name: {
                truth: dict(Counter(_label(one) for one, of in zip(seen[name], truths) if of == truth))
                for truth in LABELS.values()
            }
            for name in named
        },
        "num_wrong_in_all": sum(
            all(_label(seen[name][number]) != truth for name in named) for number, truth in enumerate(truths)
        ),
        "proxies": {name: measure_proxies(found, truths, groups) for name, found in shapes.items() if any(found)},
        "command": "python tools/bench/teachers.py",
        **environment_info("lavis_emovit/teachers", "tools/bench/teachers.py"),
    }
    write_result(arguments.out, result)
    for name, numbers in result["results"].items():
        print(name, numbers)
    return 0


def measure(
    seen: Sequence[Sequence[Mapping[str, float] | None]], truths: Sequence[str], groups_N: np.ndarray
) -> dict[str, Any]:
    """Results of one or several teachers: for each, the probabilities of N images, or None without a face.

    `accuracy`: the most likely of all labels is right. `accuracy_of_two`: of happiness and neutral, the right one is
    more likely. `entropy_auroc` and `mutual_information_auroc`: how well they rank errors above right answers, of found
    faces. `accuracy_of_certain_half`: of the images with the lower entropy.
    """
    combined: list[Combined | None] = []
    for of_image in zip(*seen):
        known = [one for one in of_image if one is not None]
        combined.append(combine(known) if known else None)
    right_N = np.array([one is not None and one.label == truth for one, truth in zip(combined, truths)])
    two_N = np.array([one is not None and _of_two(one) == truth for one, truth in zip(combined, truths)])
    resamples = Resamples(len(truths), groups_N, num_resamples=1000)
    numbers: dict[str, Any] = {
        "num_found": sum(one is not None for one in combined),
        "accuracy": share(right_N, resamples),
        "accuracy_of_two": share(two_N, resamples),
    }
    found_N = np.array([one is not None for one in combined])
    measures: dict[str, Callable[[Combined], float]] = {"entropy": lambda one: one.entropy}
    if len(seen) > 1:
        measures["mutual_information"] = lambda one: one.mutual_information
    for name, value in measures.items():
        values_N = np.array([value(one) if one is not None else 0.0 for one in combined])
        numbers[f"{name}_auroc"] = auroc(values_N, ~right_N, found_N, resamples)
        if name == "entropy":
            certain_N = found_N & (values_N <= np.median(values_N[found_N]))
            numbers["accuracy_of_certain_half"] = round(float(right_N[certain_N].mean()), 4)
    return numbers


def measure_proxies(found: Sequence[dict[str, float]], truths: Sequence[str], groups_N: np.ndarray) -> dict[str, Any]:
    """How well each geometric proxy ranks smiles above neutral faces (AUROC), of faces with landmarks."""
    has_N = np.array([bool(one) for one in found])
    smile_N = np.array([truth == "happiness" for truth in truths])
    resamples = Resamples(len(truths), groups_N, num_resamples=1000)
    return {name: auroc(np.array([one.get(name, 0.0) for one in found]), smile_N, has_N, resamples) for name in PROXIES}


def _label(expressions: Mapping[str, float] | None) -> str:
    return "no face" if expressions is None else combine([expressions]).label


def _of_two(one: Combined) -> str:
    return max(LABELS.values(), key=lambda label: one.votes[label])


if __name__ == "__main__":
    raise SystemExit(main())
