"""Combine several answers about a face: vote, means, uncertainty, and the influence of the tables."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lavis_emovit.emotion.facial import FacialPriors
from lavis_emovit.emotion.facial_knowledge import Beliefs, infer
from lavis_emovit.emotion.teacher_reliability import TeacherVotes, seen_by
from lavis_emovit.generation.seke.levels import AXES, EXPRESSION, Case, Levels, evidence_of, level_of
from lavis_emovit.generation.seke.settings import Limits
from lavis_emovit.generation.seke.uncertainty import (
    Spread,
    spread_of_choices,
    spread_of_distributions,
    spread_of_numbers,
    spread_of_stated_numbers,
)


@dataclass(frozen=True)
class Answer:
    """The levels of one answer, which may lack items that had enough answers before."""

    levels: Levels
    view: int = 0  # number of the view, that is of the prompt
    is_hinted: bool = False  # the prompt contained likely values from the tables
    beliefs: Beliefs | None = None  # the probabilities that `levels` are the likeliest of, if the annotator states any
    votes: TeacherVotes | None = None  # that `beliefs` follow from, if the reliability of the teacher is fitted


@dataclass(frozen=True)
class Estimate:
    """Combined levels with their uncertainties, by item: `expression`, `valence`, `arousal`, `unit:<number>`."""

    # Majority expression (the first named one of a tie), mean valence and arousal, units that are active in more than
    # half of the answers. With stated probabilities: the likeliest by their mean, or with votes by the posterior.
    levels: Levels
    spreads: Mapping[str, Spread] = field(default_factory=dict)
    # Item -> how far answers with the tables in the prompt differ from those without. Expression: total variation
    # distance of the votes, in [0, 1]. Valence and arousal: difference of the means. Unit: difference of the shares of
    # answers with the active unit. Empty unless there are answers of both kinds.
    prior_influence: Mapping[str, float] = field(default_factory=dict)
    num_answers: int = 0

    def total(self, item: str) -> float | None:
        return self.spreads[item].total if item in self.spreads else None

    def above(self, limits: Limits, *, or_unknown: bool = False) -> list[str]:
        """Items with an uncertainty above their threshold, and with `or_unknown` those without an uncertainty."""
        totals = {item: self.total(item) for item in self.spreads}
        return [item for item, total in totals.items() if (or_unknown if total is None else total > limits.of(item))]

    def summary(self, part: str = "total") -> dict[str, float]:
        """`total`, `within` or `between` of expression, valence, arousal, and `units` (mean over units)."""
        return _by_level({item: getattr(spread, part) for item, spread in self.spreads.items()})

    def influence_summary(self) -> dict[str, float]:
        """The same of `prior_influence`; `units` is the mean of the absolute differences."""
        values = {
            item: value if level_of(item) != "units" else abs(value) for item, value in self.prior_influence.items()
        }
        return _by_level(values)


def _by_level(values: Mapping[str, float | None]) -> dict[str, float]:
    units = [value for item, value in values.items() if level_of(item) == "units" and value is not None]
    others = {item: value for item, value in values.items() if level_of(item) != "units" and value is not None}
    return {**others, **({"units": statistics.fmean(units)} if units else {})}


def posterior(votes: TeacherVotes, case: Case, priors: FacialPriors, units: Collection[int]) -> Beliefs:
    """What the votes of one or more teachers of fitted reliability say together, with the known levels of the face."""
    seen = seen_by(votes, priors)
    return infer(priors, evidence_of(case, priors), classes=case.classes, units=units, seen=seen)


def votes_of(answers: Sequence[Answer]) -> TeacherVotes:
    """All votes in the answers of teachers of fitted reliability."""
    return {title: found for answer in answers for title, found in (answer.votes or {}).items()}


def combine(answers: Sequence[Answer], case: Case, priors: FacialPriors) -> Estimate:
    """Combine one or more answers about a face. Items of the case that are in none of them are left out.

    Args:
        priors: the tables that the answers follow from, if they have `votes`.
    """
    values: dict[str, Any] = {}
    spreads: dict[str, Spread] = {}
    influence: dict[str, float] = {}
    for item in case.items:
        if not (found := [answer for answer in answers if answer.levels.get(item) is not None]):
            continue
        values[item], spreads[item] = combine_item(item, found, case, priors)
        hinted, plain = ([x.levels.get(item) for x in found if x.is_hinted is kind] for kind in (True, False))
        if hinted and plain:
            influence[item] = _difference(item, hinted, plain)
    return Estimate(Levels.of(values), spreads, influence, len(answers))


def combine_item(item: str, answers: Sequence[Answer], case: Case, priors: FacialPriors) -> tuple[Any, Spread]:
    """Combined value and uncertainty of one item that all of the answers contain.

    Either all answers have `beliefs`, or none; the same with `votes`.
    """
    num_classes = len(case.classes)
    if stated := [answer.beliefs for answer in answers if answer.beliefs is not None]:
        value, spread = _combine_stated(item, stated, num_classes)
        votes = votes_of(answers)
        if len(votes) > 1:
            units = [int(item.removeprefix("unit:"))] if level_of(item) == "units" else []
            value, whole = _combine_stated(item, [posterior(votes, case, priors, units)], num_classes)
            spread = replace(spread, total=whole.total)
        return value, spread
    groups: dict[int, list[Any]] = {}
    for answer in answers:
        groups.setdefault(answer.view, []).append(answer.levels.get(item))
    values = [answer.levels.get(item) for answer in answers]
    if item in AXES:
        return min(1.0, max(-1.0, statistics.fmean(values))), spread_of_numbers(groups)
    if item == EXPRESSION:
        return Counter(values).most_common(1)[0][0], spread_of_choices(groups, num_classes)
    return statistics.fmean(values) > 0.5, spread_of_choices(groups, 2)


def _combine_stated(item: str, stated: Sequence[Beliefs], num_classes: int) -> tuple[Any, Spread]:
    if item in AXES:
        points = [(mixture.mean, mixture.sd) for mixture in (getattr(one, item) for one in stated)]
        return statistics.fmean(mean for mean, _ in points), spread_of_stated_numbers(points)
    if item == EXPRESSION:
        names = sorted({name for one in stated for name in one.expressions})
        shares = [[one.expressions.get(name, 0.0) for name in names] for one in stated]
        means = {name: statistics.fmean(column) for name, column in zip(names, zip(*shares))}
        return max(names, key=means.__getitem__), spread_of_distributions(shares, num_classes)
    active = [one.units[int(item.removeprefix("unit:"))] for one in stated]
    return statistics.fmean(active) > 0.5, spread_of_distributions([(share, 1 - share) for share in active], 2)


def _difference(item: str, hinted: Sequence[Any], plain: Sequence[Any]) -> float:
    if item != EXPRESSION:
        return statistics.fmean(hinted) - statistics.fmean(plain)
    one, other = Counter(hinted), Counter(plain)
    return sum(abs(one[name] / len(hinted) - other[name] / len(plain)) for name in {*one, *other}) / 2
