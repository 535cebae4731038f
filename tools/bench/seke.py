"""Measure what each part of SEKE contributes with real teachers, on photographs: one switch off in each row.

    python tools/bench/seke.py        # minutes; needs all teachers, and ../shared/data or EMOVIT_SHARED

Each level is hidden in turn and completed from the answers of the teachers:

- the expression of the London Faces, which people named;
- units of the London Faces, of which nobody coded any: the reference is how landmarks moved (`seke_references.py`);
- valence and arousal of faces in OASIS: the reference is the mean rating of the whole photograph.

The tables and the reliability of the teachers are fitted to the other half of the people, and thresholds are fitted on
it; for OASIS, the packaged tables are used. Intervals (95 %) resample people, of OASIS themes such as "Wedding". The
answers of the teachers are kept in a folder and shared with `teachers.py`, so each face is shown to each teacher once.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lavis_emovit.emotion.facial import FACIAL_UNITS, FacialPriors, facial_priors
from lavis_emovit.emotion.labels_faces import EXPRESSIONS7
from lavis_emovit.evaluation.metrics.calibration import NUM_CALIBRATION_BINS
from lavis_emovit.evaluation.metrics.resampling import Resamples
from lavis_emovit.generation.seke.completion import Outcome, complete
from lavis_emovit.generation.seke.fitting import count_faces, fit_priors
from lavis_emovit.generation.seke.fitting_teachers import fit_teachers, judged_faces
from lavis_emovit.generation.seke.levels import AXES, EXPRESSION, Case, Levels
from lavis_emovit.generation.seke.measures import AFFECT_ERROR, is_error
from lavis_emovit.generation.seke.settings import LEVELS, SekeSettings
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
from london_faces import DATA, FOLDER, london_faces, person_numbers, read_arguments, share, share_of
from seke_references import (
    MOVED,
    MOVEMENTS,
    OASIS,
    OASIS_DATA,
    figure,
    interval_of,
    moved_units,
    movements,
    rated_faces,
    seconds_per_face,
    unit_strength,
)  # fmt: skip

ALL = ("face-api", "human", "fer")
DEFAULT = "all parts"
OTHERS = "tables of the London Faces"


class Method(NamedTuple):
    """What a row changes of the default."""

    teachers: tuple[str, ...] = ALL[:2]
    # `fitted` with reliability, `frequencies` without, `packaged`, or `fitted` to `other photographs`
    tables: str = "fitted"
    more: dict[str, Any] = {}  # noqa: RUF012 - a NamedTuple's defaults are shared, and this one is never changed
    knows: str = ""  # another level: `expression` or `units`


PARTS = {"n0": 1, "teacher_reviewer": "fer", "review": "blind"}
NO_REVIEW = {"n0": 1}
# Only the first row has all parts; the next five switch one of them off.
METHODS = {
    DEFAULT: Method(more=PARTS),
    "no knowledge": Method(more={**PARTS, "prior": False}),
    "fixed samples": Method(more={**PARTS, "n0": 2}),
    "no review": Method(more=NO_REVIEW),
    "one teacher": Method(ALL[:1], more=PARTS),
    "nothing is discarded": Method(more={**PARTS, "verification": "off"}),
    "packaged tables": Method(tables="packaged", more=PARTS),
    OTHERS: Method(tables="other photographs", more=PARTS),
    "fitted tables without reliability": Method(tables="frequencies", more=PARTS),
    "review where doubtful": Method(more={**PARTS, "verification": "doubtful"}),
    "all teachers, no review": Method(ALL, more={"n0": 3}),
    "face-api, nothing else": Method(ALL[:1], more={"prior": False}),
    "human, nothing else": Method(ALL[1:2], more={"prior": False}),
    "fer, nothing else": Method(ALL[2:], more={"prior": False}),
    "moved landmarks known": Method(more=PARTS, knows="units"),
    "expression known": Method(more=PARTS, knows="expression"),
}


@dataclass(frozen=True)
class Setup:
    """Photographs of which one level is measured, and what is known of them.

    Attributes:
        parts: the photographs, divided so that tables for each part are fitted to the others.
        tables: name of `Method.tables` -> tables of each part.
        truths: id of the record -> what is known of the level.
        wanted: the levels that are completed, and `units` of them.
        items: what is measured: `expression`, `unit:<number>` or an axis.
        omits: methods that do not apply.
        replaces: table -> the one that takes its place here.
    """

    folder: Path
    parts: Sequence[Sequence[EmotionRecord]]
    tables: dict[str, Sequence[FacialPriors]]
    truths: dict[str, Levels]
    wanted: tuple[Any, ...]
    items: tuple[str, ...]
    omits: tuple[str, ...]
    replaces: dict[str, str] = field(default_factory=dict)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the result."""
    arguments = read_arguments(__doc__, "seke", argv)
    records = london_faces()
    levels: dict[str, Any] = {}
    with AnswerFile(arguments.work / "answers.jsonl") as answers:
        moved = movements(records, answers)
        rated, num_rated = rated_faces(answers)
        costs = seconds_per_face(ALL, records)
        print(f"seconds of a processor for a face: {costs}", flush=True)
        setups = make_setups(records, rated, {one.id: moved_units(one, moved) for one in records}, answers)
        for name, setup in setups.items():
            print(f"\n{name}")
            levels[name] = measure_level(setup, answers, costs)
        bare = [Case(_bare(one), Levels(), LEVELS) for one in records]
        strength = {}
        for name, teachers in {**{one: (one,) for one in ALL}, "all three": ALL}.items():
            settings, priors = SekeSettings(teachers=teachers, verification="off"), facial_priors()
            looking = Looking(FOLDER, find_teachers(teachers), answers, FaceSettings())
            outcomes = complete(bare, TeacherAnnotator(looking, settings, priors), settings, priors)
            strength[name] = unit_strength(outcomes, records, moved)
    result = {
        "benchmark": "seke",
        "data": {"expression": DATA, "units": DATA, "valence": OASIS_DATA, "arousal": OASIS_DATA},
        "num_images": {"london_faces": len(records), "oasis": num_rated, "oasis_faces": len(rated)},
        "num_people": len({record.group for record in records}),
        "references": {
            "expression": "named by people",
            "units": f"landmarks moved by more than {MOVED} between the two photographs of a person",
            "valence": "mean rating of the whole photograph by people",
            "arousal": "mean rating of the whole photograph by people",
        },
        "num_moved": {
            f"AU{unit}": sum(moved_units(record, moved).get(unit, False) for record in records) for unit in MOVEMENTS
        },
        "seconds_per_face": costs,
        "levels": levels,
        "unit_strength": strength,
        "settings": SekeSettings(teachers=ALL).model_dump(mode="json"),
        "command": "python tools/bench/seke.py",
        **environment_info("lavis_emovit/teachers", "lavis_emovit/generation/seke", "tools/bench"),
    }
    write_result(arguments.out, result)
    return 0


def make_setups(
    records: Sequence[EmotionRecord],
    rated: Sequence[EmotionRecord],
    units: dict[str, dict[int, bool]],
    answers: AnswerFile,
) -> dict[str, Setup]:
    """Expression, units, valence and arousal."""
    people = sorted({str(record.group) for record in records})
    first = set(people[::2])
    halves = [[record for record in records if (record.group in first) is is_first] for is_first in (True, False)]
    packaged = facial_priors()
    fitted = [_fit(half) for half in reversed(halves)]
    tables: dict[str, Sequence[FacialPriors]] = {
        "packaged": [packaged] * 2,
        "frequencies": fitted,
        "fitted": [_fit_teachers(half, priors, answers) for half, priors in zip(reversed(halves), fitted)],
    }
    named = {one.id: Levels(str(one.emotion), units=units[one.id]) for one in records}
    affect = {one.id: Levels(valence=one.valence, arousal=one.arousal) for one in rated}
    whole = _fit(records)
    of_oasis = {"packaged": [packaged], "frequencies": [whole], "fitted": [_fit_teachers(records, whole, answers)]}
    # The packaged tables are the default there, and those of other photographs have a row of their own.
    replaces = {"fitted": "packaged", "other photographs": "fitted"}
    items = tuple(f"unit:{unit}" for unit in MOVEMENTS)
    # Without tables, the expression is the only level.
    omits = ("moved landmarks known", *(name for name in METHODS if name.endswith(", nothing else")))
    of_axes = ("packaged tables", "expression known", *omits)
    return {
        "expression": Setup(
            FOLDER, halves, tables, named, ("expression",), (EXPRESSION,), (OTHERS, "expression known")
        ),
        "units": Setup(FOLDER, halves, tables, named, LEVELS, items, (OTHERS, *omits)),
        **{axis: Setup(OASIS, [rated], of_oasis, affect, LEVELS, (axis,), of_axes, replaces) for axis in AXES},
    }


def measure_level(setup: Setup, answers: AnswerFile, costs: dict[str, float]) -> dict[str, Any]:
    """The figures of each method that applies to a level."""
    rows: dict[str, Any] = {}
    for name, method in METHODS.items():
        if name in setup.omits:
            continue
        settings = SekeSettings(teachers=method.teachers, **method.more)
        tables = setup.tables[setup.replaces.get(method.tables, method.tables)]
        outcomes = [
            outcome
            for part, priors in zip(setup.parts, tables)
            for outcome in complete_part(setup, part, method, settings, priors, answers)
        ]
        rows[name] = measure(outcomes, setup, settings, costs)
        print(f"{name:40s} {line(rows[name])}", flush=True)
    return rows


def _fit(records: Sequence[EmotionRecord]) -> FacialPriors:
    base = facial_priors()
    return fit_priors(count_faces(records, base), base)


def _fit_teachers(records: Sequence[EmotionRecord], priors: FacialPriors, answers: AnswerFile) -> FacialPriors:
    teachers = Looking(FOLDER, find_teachers(ALL), answers, FaceSettings())
    return fit_teachers(list(judged_faces(records, teachers, priors, Counter())), priors)


def _bare(record: EmotionRecord) -> EmotionRecord:
    return EmotionRecord(
        id=record.id, image=record.image, split=record.split, source=record.source, group=record.group, box=record.box
    )


def complete_part(
    setup: Setup,
    records: Sequence[EmotionRecord],
    method: Method,
    settings: SekeSettings,
    priors: FacialPriors,
    answers: AnswerFile,
) -> list[Outcome]:
    """Complete the hidden levels of each record."""
    reviewers = [] if settings.teacher_reviewer is None else [settings.teacher_reviewer]
    teachers = Looking(setup.folder, find_teachers([*settings.teachers, *reviewers]), answers, FaceSettings())
    cases = []
    for record in records:
        truth = setup.truths[record.id]
        known = Levels(truth.expression) if method.knows == "expression" else Levels()
        if method.knows == "units":
            known = Levels(units=truth.units)
        wanted = tuple(level for level in setup.wanted if level != method.knows)
        # Teachers name no contempt.
        cases.append(Case(_bare(record), known, wanted, EXPRESSIONS7.labels, FACIAL_UNITS))
    return complete(cases, TeacherAnnotator(teachers, settings, priors), settings, priors)


class Row(NamedTuple):
    """One item of one face: combined answers before anything is discarded (`found`), and what is kept."""

    group: int
    is_found: bool = False
    is_right: bool = False
    is_kept: bool = False
    is_kept_right: bool = False
    doubt: float = 0.0  # the stated uncertainty
    confidence: float = 0.0  # the stated probability that the value is right
    stated: float = math.nan  # a kept valence or arousal
    truth: float = math.nan


def rows_of(outcome: Outcome, group: int, truth: Levels, items: Sequence[str]) -> list[Row]:
    """A row for each item that has a truth."""
    rows = []
    for item in items:
        if (right := truth.get(item)) is None:
            continue
        value = outcome.estimate.levels.get(item) if outcome.estimate is not None else None
        if value is None or outcome.estimate is None:
            rows.append(Row(group, truth=float(right) if item in AXES else math.nan))
            continue
        kept = outcome.levels.get(item)
        doubt = outcome.estimate.total(item) or 0.0
        rows.append(
            Row(
                group,
                True,
                not is_error(item, value, right),
                kept is not None,
                kept is not None and not is_error(item, kept, right),
                doubt,
                _confidence(outcome, item, value, doubt),
                *((math.nan if kept is None else kept, right) if item in AXES else ()),
            )
        )
    return rows


def _confidence(outcome: Outcome, item: str, value: Any, doubt: float) -> float:
    """The stated probability that a value is right; of an axis that it is within `AFFECT_ERROR`, as for a normal
    distribution with the stated deviation.
    """
    if item in AXES:
        return math.erf(AFFECT_ERROR / (doubt * math.sqrt(2))) if doubt else 1.0
    answers = [answer for answer in outcome.answers if answer.levels.get(item) is not None]
    stated = [answer.beliefs for answer in answers if answer.beliefs is not None]
    if votes := votes_of(answers):
        stated = [posterior(votes, outcome.case, outcome.priors, outcome.case.units)]
    if item == EXPRESSION:
        return statistics.fmean(one.expressions.get(value, 0.0) for one in stated)
    active = statistics.fmean(one.units[int(item.removeprefix("unit:"))] for one in stated)
    return active if value else 1.0 - active


def measure(
    outcomes: Sequence[Outcome], setup: Setup, settings: SekeSettings, costs: dict[str, float]
) -> dict[str, Any]:
    """Figures of one method.

    `accuracy`: of the kept values; a valence or arousal is right within 0.2. `ccc`: of kept valences or arousals.
    `coverage`: share of the values that are kept. `right`: share that is kept and right. `accuracy_before`, `auroc`,
    `ece`: of the combined answers before anything is discarded: how well the uncertainty ranks errors above right
    values, and how far the stated probability of being right is from the share of right ones. With the people divided
    in five other ways, `fitted_ece_median` is that of the uncertainty of expressions turned into a probability of an
    error on half of them, measured on the others, and `num_fitted_thresholds` how often a threshold keeps errors below
    `max_error`. `seconds_per_record`: of a processor.
    """
    records = [outcome.case.record for outcome in outcomes]
    rows = [
        row
        for outcome, record, person in zip(outcomes, records, person_numbers(records))
        for row in rows_of(outcome, int(person), setup.truths[record.id], setup.items)
    ]
    columns = {name: np.array([getattr(row, name) for row in rows]) for name in Row._fields}
    resamples = Resamples(len(rows), columns["group"], num_resamples=1000)
    found_N, kept_N, right_N = columns["is_found"], columns["is_kept"], columns["is_right"]
    calls = [_asked(outcome, settings) for outcome in outcomes]
    result = {
        "num_values": len(rows),
        "without_value": int((~found_N).sum()),
        "accuracy": share_of(columns["is_kept_right"], kept_N, resamples),
        "coverage": share(kept_N, resamples),
        "right": share(columns["is_kept_right"], resamples),
        "accuracy_before": share_of(right_N, found_N, resamples),
        "auroc": _of_found(auroc, columns["doubt"], ~right_N, found_N, resamples),
        "ece": _of_found(expected_calibration_error, columns["confidence"], right_N, found_N, resamples),
        "calls_per_record": round(statistics.fmean(map(len, calls)), 4),
        "seconds_per_record": round(statistics.fmean(sum(costs[name] for name in names) for names in calls), 4),
    }
    if setup.items[0] in AXES and kept_N.sum() > 2:
        kept = [row for row in rows if row.is_kept]
        of_kept = Resamples(len(kept), np.unique([row.group for row in kept], return_inverse=True)[1])
        stated_N, truth_N = (np.array([getattr(row, name) for row in kept]) for name in ("stated", "truth"))
        result["ccc"] = figure("ccc", stated_N, truth_N, of_kept)
    if setup.items[0] == EXPRESSION:
        truths = [setup.truths[record.id] for record in records]
        fitted = [fit_thresholds(outcomes, truths, settings, max_error=settings.max_error, seed=s) for s in range(5)]
        result["fitted_ece_median"] = round(statistics.median(one.held_back[EXPRESSION]["ece"] for one in fitted), 4)
        result["num_fitted_thresholds"] = sum(EXPRESSION in one.too_much for one in fitted)
    verdicts = [(one.verdicts, one.reasons, item) for one in outcomes for item in setup.items if item in one.verdicts]
    result["reasons"] = dict(Counter(reasons.get(item, found[item]) for found, reasons, item in verdicts))
    return result


def _asked(outcome: Outcome, settings: SekeSettings) -> list[str]:
    """The teachers that looked at a face."""
    if outcome.case.known.expression is not None:
        return []
    asked = [settings.teachers[attempt["sample"]] for attempt in outcome.attempts]
    return [*asked, *([settings.teacher_reviewer] if outcome.review and settings.teacher_reviewer else [])]


def _of_found(
    function: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    values_N: np.ndarray,
    is_N: np.ndarray,
    found_N: np.ndarray,
    resamples: Resamples,
) -> dict[str, float] | None:
    if not found_N.any():
        return None
    values, events = values_N[found_N], is_N[found_N]
    return interval_of(lambda weights_RN: function(values, events, weights_RN[:, found_N]), len(found_N), resamples)


def auroc(values_N: np.ndarray, is_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """[R], area under the curve of events ranked by values, of weighted rows; NaN with only events, or none."""
    order = np.argsort(values_N, kind="stable")
    firsts = np.flatnonzero(np.diff(values_N[order], prepend=np.nan))  # of equal values
    events_RV = np.add.reduceat(np.where(is_N, weights_RN, 0.0)[:, order], firsts, axis=1)
    others_RV = np.add.reduceat(np.where(is_N, 0.0, weights_RN)[:, order], firsts, axis=1)
    below_RV = np.cumsum(others_RV, axis=1) - others_RV / 2  # ties count half
    pairs_R = events_RV.sum(axis=1) * others_RV.sum(axis=1)
    return np.divide((events_RV * below_RV).sum(axis=1), pairs_R, out=np.full(len(pairs_R), np.nan), where=pairs_R > 0)


def expected_calibration_error(confidence_N: np.ndarray, is_right_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """[R], mean difference of confidence and accuracy over equal bins, weighted by their counts (Guo et al. 2017)."""
    bins_N = np.clip(np.ceil(confidence_N * NUM_CALIBRATION_BINS).astype(int) - 1, 0, NUM_CALIBRATION_BINS - 1)
    gaps_NB = np.eye(NUM_CALIBRATION_BINS)[bins_N] * (confidence_N - is_right_N)[:, None]
    return np.asarray(np.abs(weights_RN @ gaps_NB).sum(axis=1) / weights_RN.sum(axis=1))


def line(row: dict[str, Any]) -> str:
    parts = [
        f"{name} -" if row[name] is None else "{} {value:.3f} [{low:.3f}, {high:.3f}]".format(name, **row[name])
        for name in ("accuracy", "coverage", "right", "auroc", "ece", "ccc")
        if name in row
    ]
    return f"{row['calls_per_record']:.2f} calls  {'  '.join(parts)}"


if __name__ == "__main__":
    raise SystemExit(main())
