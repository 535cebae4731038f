"""Thresholds of uncertainty from labels by people: when to stop asking, and what to discard.

Half of the persons (or of the faces, if no person is named) are for fitting, the other half for the reported results.
Discarding follows selective classification with guaranteed risk (Geifman and El-Yaniv 2017, arXiv 1705.08500): the
highest threshold whose bound of the error rate is at most `max_error`. The bound is that of Clopper and Pearson
(Biometrika 26, 1934) at 95 %, divided among the thresholds that are tried (Bonferroni). Units of one face, and faces of
one person, are not independent, so the bound counts persons, not values.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from lavis_emovit.emotion.facial import FacialPriors
from lavis_emovit.files import atomic_writer, write_json
from lavis_emovit.generation.seke.completion import Outcome
from lavis_emovit.generation.seke.levels import AXES, EXPRESSION, Case, Levels
from lavis_emovit.generation.seke.measures import is_error
from lavis_emovit.generation.seke.settings import Limits, SekeSettings
from lavis_emovit.generation.seke.votes import Answer, combine_item

THRESHOLDS = "thresholds.yaml"
CURVES_JSON = "curves.json"
CURVES_CSV = "curves.csv"
SLACK = 0.01  # how much the error rate may rise if fewer answers are requested
LEAST_GROUPS = 50  # fewer persons with a label of a unit give it no threshold of its own
_MOST_THRESHOLDS = 20
_ALPHA = 0.05


@dataclass(frozen=True)
class Observation:
    """Answers about one labelled item of a face."""

    item: str
    group: str  # person, or the face itself
    truth: Any
    answers: Sequence[Answer]  # that contain the item, in order
    case: Case
    priors: FacialPriors  # the tables that complete it

    @cached_property
    def at_end(self) -> tuple[float, bool]:
        """Uncertainty and error of all answers together."""
        return self.after(len(self.answers))

    def after(self, count: int) -> tuple[float, bool]:
        """Uncertainty and error of the first answers together."""
        value, spread = combine_item(self.item, self.answers[:count], self.case, self.priors)
        return spread.total or 0.0, is_error(self.item, value, self.truth)


@dataclass(frozen=True)
class Point:
    """One threshold of a curve."""

    curve: str  # `discard` or `stop`
    item: str  # `expression`, `valence`, `arousal`, `units`, or `unit:<number>`
    threshold: float
    error: float  # share of wrong values among the kept ones; of `stop`, among all
    coverage: float  # share of kept values
    upper: float | None = None  # 95 % bound of the error, together over all thresholds; of `discard`
    mean_answers: float | None = None  # of `stop`


@dataclass
class Fitted:
    max_error: float
    points: list[Point] = field(default_factory=list)
    too_much: dict[str, float] = field(default_factory=dict)  # item -> fitted threshold, if one reaches `max_error`
    enough: dict[str, float] = field(default_factory=dict)  # the same; empty after adaptive sampling
    # Item -> on the other half: coverage and error with the fitted threshold, calibration error of the uncertainty.
    held_back: dict[str, dict[str, float | int]] = field(default_factory=dict)


def fit_thresholds(
    outcomes: Sequence[Outcome], truths: Sequence[Levels], settings: SekeSettings, *, max_error: float, seed: int = 0
) -> Fitted:
    """Curves and thresholds from faces with known levels.

    Thresholds for stopping need all answers of every face, so only a run without adaptive sampling gives them: the
    highest one that raises the error rate by at most `SLACK` over that of all answers.
    """
    fitted = Fitted(max_error)
    by_name = _observations(outcomes, truths)
    for name, found in by_name.items():
        fit, rest = _halves(found, seed)
        if not fit or not rest or (name.startswith("unit:") and _num_groups(fit) < LEAST_GROUPS):
            continue
        curve = discard_curve(name, [(*item.at_end, item.group) for item in fit])
        fitted.points += curve
        reached = [point.threshold for point in curve if point.upper is not None and point.upper <= max_error]
        if reached:
            fitted.too_much[name] = max(reached)
        if not settings.adaptive and settings.num_first > settings.num_views:
            stops = _stop_curve(name, fit, settings.num_views)
            fitted.points += stops
            error = fmean(item.at_end[1] for item in fit)
            if allowed := [point.threshold for point in stops if point.error <= error + SLACK]:
                fitted.enough[name] = max(allowed)
        fitted.held_back[name] = _on_other_half(fit, rest, fitted.too_much.get(name))
    return fitted


def discard_curve(name: str, rows: Sequence[tuple[float, bool, str]]) -> list[Point]:
    """Error rate and coverage by threshold, from (uncertainty, error, group) of each value."""
    thresholds = _thinned(sorted({uncertainty for uncertainty, _, _ in rows}))
    points = []
    for threshold in thresholds:
        kept = [(error, group) for uncertainty, error, group in rows if uncertainty <= threshold]
        rate = fmean(error for error, _ in kept)
        upper = upper_bound(rate, len({group for _, group in kept}), _ALPHA / len(thresholds))
        points.append(Point("discard", name, threshold, rate, len(kept) / len(rows), upper))
    return points


def upper_bound(rate: float, count: int, alpha: float) -> float:
    """One-sided Clopper-Pearson bound of a rate of errors in `count` independent cases."""
    from scipy.stats import beta

    return 1.0 if rate >= 1.0 else float(beta.ppf(1 - alpha, rate * count + 1, count - rate * count))


def _stop_curve(name: str, found: Sequence[Observation], first: int) -> list[Point]:
    """Error rate and mean number of answers by threshold, for runs whose answers are all there."""
    tables = [
        [(count, *item.after(count)) for count in range(min(first, len(item.answers)), len(item.answers) + 1)]
        for item in found
    ]
    thresholds = _thinned(sorted({uncertainty for rows in tables for _, uncertainty, _ in rows}))
    points = []
    for threshold in thresholds:
        stops = [next((row for row in rows if row[1] <= threshold), rows[-1]) for rows in tables]
        rate, answers = fmean(row[2] for row in stops), fmean(row[0] for row in stops)
        points.append(Point("stop", name, threshold, rate, 1.0, mean_answers=answers))
    return points


def _on_other_half(
    fit: Sequence[Observation], rest: Sequence[Observation], threshold: float | None
) -> dict[str, float | int]:
    """Coverage and error on held-back labels, and the expected calibration error of the uncertainty.

    Isotonic regression on the first half turns the uncertainty into a probability of an error; the calibration error is
    the mean absolute difference between that and the share of errors, over values with the same probability.
    """
    from sklearn.isotonic import IsotonicRegression

    learned = [item.at_end for item in fit]
    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    model.fit([row[0] for row in learned], [float(row[1]) for row in learned])
    rows = [item.at_end for item in rest]
    by_probability: dict[float, list[bool]] = {}
    for probability, (_, error) in zip(model.predict([row[0] for row in rows]), rows):
        by_probability.setdefault(round(float(probability), 6), []).append(error)
    ece = sum(len(errors) * abs(fmean(errors) - share) for share, errors in by_probability.items()) / len(rows)
    kept = [error for uncertainty, error in rows if threshold is None or uncertainty <= threshold]
    return {
        "num_values": len(rows),
        "num_groups": _num_groups(rest),
        "error_of_all": round(fmean(row[1] for row in rows), 4),
        "coverage": round(len(kept) / len(rows), 4),
        "error": round(fmean(kept), 4) if kept else 0.0,
        "ece": round(ece, 4),
    }


def _observations(outcomes: Sequence[Outcome], truths: Sequence[Levels]) -> dict[str, list[Observation]]:
    """By `expression`, `valence`, `arousal`, `units` (all of them), and each unit."""
    found: dict[str, list[Observation]] = {name: [] for name in (EXPRESSION, *AXES, "units")}
    for outcome, truth in zip(outcomes, truths):
        record = outcome.case.record
        for item in outcome.case.items:
            answers = [answer for answer in outcome.answers if answer.levels.get(item) is not None]
            # Without a second answer or stated probabilities, nothing is known about the uncertainty.
            if truth.get(item) is None or not answers or (len(answers) < 2 and answers[0].beliefs is None):
                continue
            group = record.group or record.id
            seen = Observation(item, group, truth.get(item), answers, outcome.case, outcome.priors)
            found.setdefault(item, []).append(seen)
            if item.startswith("unit:"):
                found["units"].append(seen)
    return found


def _halves(found: Sequence[Observation], seed: int) -> tuple[list[Observation], list[Observation]]:
    halves: tuple[list[Observation], list[Observation]] = ([], [])
    for item in found:
        halves[hashlib.sha256(f"{seed}/{item.group}".encode()).digest()[0] % 2].append(item)
    return halves


def _num_groups(found: Sequence[Observation]) -> int:
    return len({item.group for item in found})


def _thinned(values: list[float]) -> list[float]:
    """At most `_MOST_THRESHOLDS` values, with the lowest and the highest one."""
    if len(values) <= _MOST_THRESHOLDS:
        return values
    last = len(values) - 1
    return [values[round(place * last / (_MOST_THRESHOLDS - 1))] for place in range(_MOST_THRESHOLDS)]


def write_fitted(folder: Path, fitted: Fitted, settings: SekeSettings) -> list[str]:
    """Write the settings with fitted thresholds and the curves; returns the names of the files.

    The settings file keeps the thresholds of `settings` for items without a fitted one.
    """
    content: dict[str, Any] = {}
    for name, found in (("enough", fitted.enough), ("too_much", fitted.too_much)):
        if found:
            content[name] = _limits(getattr(settings, name), found)
    if fitted.enough:
        content |= {"n0": settings.num_views, "n_max": settings.num_first}
    with atomic_writer(folder / THRESHOLDS) as file:
        file.write(f"# Fitted by `emovit generate seke --check` for an error of at most {fitted.max_error:g}.\n")
        file.write(yaml.safe_dump({"seke": content}, sort_keys=False))
    rows = [{name: value for name, value in vars(point).items() if value is not None} for point in fitted.points]
    report = {"max_error": fitted.max_error, "too_much": fitted.too_much, "enough": fitted.enough}
    write_json(folder / CURVES_JSON, {**report, "held_back": fitted.held_back, "curves": rows})
    with atomic_writer(folder / CURVES_CSV) as file:
        writer = csv.DictWriter(file, [column.name for column in fields(Point)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return [THRESHOLDS, CURVES_JSON, CURVES_CSV]


def _limits(limits: Limits, found: Mapping[str, float]) -> dict[str, Any]:
    rounded = {name: math.ceil(value * 1e4) / 1e4 for name, value in found.items()}
    units = {int(name.removeprefix("unit:")): value for name, value in rounded.items() if name.startswith("unit:")}
    values = {**limits.model_dump(), **{name: value for name, value in rounded.items() if not name.startswith("unit:")}}
    return {**values, "unit": {**limits.unit, **units}}
