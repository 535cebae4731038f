"""Measure what each part of SEKE contributes with real teachers, on photographs of which people know the expression.

    python tools/bench/seke_teachers.py

The expression of the London Faces is hidden and completed from the answers of the teachers, with one switch changed in
each row. It is their only level, so valence and arousal and action units cannot be hidden (see `seke_levels.py`), and
the tables know no other level of a face: what they contribute here is how frequent each expression is, estimated from
the other half of the people, and in some rows how far to trust each teacher. Thresholds are also fitted on the other
half. Intervals (95 %) resample people. The answers of the teachers are kept in a folder and shared with `teachers.py`,
so each photograph is shown to each teacher once.
"""

from __future__ import annotations

import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lavis_emovit.emotion.facial import FacialPriors, facial_priors
from lavis_emovit.emotion.labels_faces import EXPRESSIONS7
from lavis_emovit.evaluation.metrics.calibration import calibration
from lavis_emovit.evaluation.metrics.resampling import Resamples
from lavis_emovit.generation.seke.completion import Outcome, complete
from lavis_emovit.generation.seke.fitting import count_faces, fit_priors
from lavis_emovit.generation.seke.fitting_teachers import fit_teachers, judged_faces
from lavis_emovit.generation.seke.levels import EXPRESSION, Levels, case_of
from lavis_emovit.generation.seke.settings import SekeSettings
from lavis_emovit.generation.seke.teachers import TeacherAnnotator
from lavis_emovit.generation.seke.thresholds import fit_thresholds
from lavis_emovit.generation.seke.votes import posterior, votes_of
from lavis_emovit.records import EmotionRecord
from lavis_emovit.teachers.answers import AnswerFile
from lavis_emovit.teachers.catalogue import find_teachers
from lavis_emovit.teachers.choosing import FaceSettings
from lavis_emovit.teachers.looking import Looking

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import environment_info, write_result
from london_faces import DATA, FOLDER, auroc, london_faces, person_numbers, read_arguments, rounded, share, share_of

ALL = ("face-api", "human", "fer")
DEFAULT = "all teachers (default)"


class Method(NamedTuple):
    """What a row changes of the default."""

    teachers: tuple[str, ...] = ALL
    # `packaged`, or from the other half of the people: `fitted`, and `reliability`, with that of the teachers
    tables: str = "fitted"
    more: dict[str, Any] = {}  # noqa: RUF012 - a NamedTuple's defaults are shared, and this one is never changed


METHODS = {
    DEFAULT: Method(),
    "no tables": Method(more={"prior": False}),
    "packaged tables": Method(tables="packaged"),
    "fitted reliability": Method(tables="reliability"),
    "face-api alone": Method(("face-api",)),
    "human alone": Method(("human",)),
    "fer alone": Method(("fer",)),
    "another teacher while uncertain": Method(more={"n0": 1}),
    "the same, fer first": Method(ALL[::-1], more={"n0": 1}),
    "face-api with fitted reliability": Method(("face-api",), tables="reliability"),
    "face-api and human": Method(ALL[:2]),
    "face-api and human, fer reviews": Method(ALL[:2], more={"teacher_reviewer": "fer", "review": "blind"}),
    "face-api, human reviews": Method(ALL[:1], more={"teacher_reviewer": "human", "review": "blind"}),
    "face-api, human reviews doubtful ones": Method(
        ALL[:1], more={"teacher_reviewer": "human", "review": "blind", "verification": "doubtful"}
    ),
    "nothing is discarded": Method(more={"verification": "off"}),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the result."""
    arguments = read_arguments(__doc__, "seke_teachers", argv)
    records = london_faces()
    halves = _halves(records)
    tables = {"packaged": [facial_priors()] * 2, "fitted": [_fit(half) for half in reversed(halves)]}
    rows: dict[str, Any] = {}
    with AnswerFile(arguments.work / "answers.jsonl") as answers:
        tables["reliability"] = [_fit_teachers(half, answers) for half in reversed(halves)]
        for name, method in METHODS.items():
            settings = SekeSettings(teachers=method.teachers, **method.more)
            outcomes = [
                complete_half(half, settings, priors, answers) for half, priors in zip(halves, tables[method.tables])
            ]
            rows[name] = measure([one for half in outcomes for one in half], outcomes, settings)
            print(f"{name:40s} {line(rows[name])}", flush=True)
    result = {
        "benchmark": "seke_teachers",
        "data": DATA,
        "num_images": len(records),
        "num_people": len({record.group for record in records}),
        "hidden": ["expression"],
        "without_labels": ["affect", "units"],
        "methods": rows,
        "settings": SekeSettings(teachers=ALL).model_dump(mode="json"),
        "command": "python tools/bench/seke_teachers.py",
        **environment_info("lavis_emovit/teachers", "lavis_emovit/generation/seke", "tools/bench/seke_teachers.py"),
    }
    write_result(arguments.out, result)
    return 0


def _halves(records: Sequence[EmotionRecord]) -> list[list[EmotionRecord]]:
    """Every second person."""
    people = sorted({str(record.group) for record in records})
    first = set(people[::2])
    return [[record for record in records if (record.group in first) is is_first] for is_first in (True, False)]


def _fit(records: Sequence[EmotionRecord]) -> FacialPriors:
    base = facial_priors()
    return fit_priors(count_faces(records, base), base)


def _fit_teachers(records: Sequence[EmotionRecord], answers: AnswerFile) -> FacialPriors:
    teachers, priors = Looking(FOLDER, find_teachers(ALL), answers, FaceSettings()), _fit(records)
    return fit_teachers(list(judged_faces(records, teachers, priors, Counter())), priors)


def complete_half(
    records: Sequence[EmotionRecord], settings: SekeSettings, priors: FacialPriors, answers: AnswerFile
) -> list[Outcome]:
    """Hide the expression of each record, and complete it."""
    reviewers = [] if settings.teacher_reviewer is None else [settings.teacher_reviewer]
    teachers = Looking(FOLDER, find_teachers([*settings.teachers, *reviewers]), answers, FaceSettings())
    cases = [case_of(record, active_from=settings.active_from, hide="expression") for record in records]
    annotator = TeacherAnnotator(teachers, settings, priors)
    return complete([case for case in cases if case is not None], annotator, settings, priors)


def measure(outcomes: Sequence[Outcome], halves: Sequence[Sequence[Outcome]], settings: SekeSettings) -> dict[str, Any]:
    """Figures of one method.

    `accuracy`: of the kept expressions. `coverage`: share of the photographs with a kept one. `right`: share with a
    kept one that is right. `accuracy_before`, `auroc`, `ece`: of the combined answers before anything is discarded: how
    well the uncertainty ranks errors above right answers, and how far the mean probability of the stated expression is
    from the share of right ones. With the people divided in ten other ways, `fitted_ece_median` is that of the
    uncertainty turned into a probability of an error on half of them, measured on the others, and
    `num_fitted_thresholds` how often a threshold keeps errors below `max_error`.
    """
    records = [outcome.case.record for outcome in outcomes]
    truths = [record.emotion for record in records]
    resamples = Resamples(len(records), person_numbers(records), num_resamples=1000)
    kept_N = np.array([outcome.levels.expression is not None for outcome in outcomes])
    right_N = np.array([outcome.levels.expression == truth for outcome, truth in zip(outcomes, truths)])
    found_N = np.array([outcome.estimate is not None for outcome in outcomes])
    before = [one.estimate.levels.expression if one.estimate is not None else None for one in outcomes]
    wrong_N = np.array([one != truth for one, truth in zip(before, truths)])
    doubt_N = np.array([(one.estimate.total(EXPRESSION) or 0.0) if one.estimate else 0.0 for one in outcomes])
    fitted = [
        fit_thresholds(
            outcomes, [Levels(str(truth)) for truth in truths], settings, max_error=settings.max_error, seed=s
        )
        for s in range(10)
    ]
    return {
        "accuracy": share_of(right_N, kept_N, resamples),
        "coverage": share(kept_N, resamples),
        "right": share(right_N, resamples),
        "accuracy_before": share_of(~wrong_N, found_N, resamples),
        "auroc": auroc(doubt_N, wrong_N, found_N, resamples),
        "ece": _ece([one for one in outcomes if one.estimate is not None]),
        "fitted_ece_median": round(statistics.median(one.held_back[EXPRESSION]["ece"] for one in fitted), 4),
        "num_fitted_thresholds": sum(EXPRESSION in one.too_much for one in fitted),
        "calls_per_record": round(statistics.fmean(outcome.num_calls for outcome in outcomes), 4),
        "reasons": dict(Counter(outcome.reasons.get(EXPRESSION, "kept") for outcome in outcomes)),
        "without_face": int((~found_N).sum()),
    }


def _ece(outcomes: Sequence[Outcome]) -> dict[str, float]:
    names = list(EXPRESSIONS7.labels)
    shares_NC = np.array([[share.get(name, 0.0) for name in names] for share in map(_together, outcomes)])
    records = [outcome.case.record for outcome in outcomes]
    resamples = Resamples(len(records), person_numbers(records), num_resamples=1000)
    found = calibration(
        shares_NC, np.array([names.index(str(record.emotion)) for record in records]), resamples=resamples
    )
    assert found.ece_interval is not None
    return rounded(found.ece, found.ece_interval)


def _together(outcome: Outcome) -> dict[str, float]:
    """The probabilities of the expressions by all answers: the posterior of fitted teachers, or the mean."""
    if votes := votes_of(outcome.answers):
        return posterior(votes, outcome.case, outcome.priors, []).expressions
    stated = [answer.beliefs.expressions for answer in outcome.answers if answer.beliefs is not None]
    return {name: statistics.fmean(one.get(name, 0.0) for one in stated) for name in EXPRESSIONS7.labels}


def line(row: dict[str, Any]) -> str:
    parts = [
        f"{name} {row[name]['value']:.3f} [{row[name]['low']:.3f}, {row[name]['high']:.3f}]"
        for name in ("accuracy", "coverage", "right", "auroc", "ece")
    ]
    return f"{row['calls_per_record']:.2f} calls  {'  '.join(parts)}"


if __name__ == "__main__":
    raise SystemExit(main())
