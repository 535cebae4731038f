"""Complete missing levels: request answers until they agree or reach the limit, combine them, verify the result."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from lavis_emovit.chat.json_text import find_json
from lavis_emovit.emotion.facial import FacialPriors
from lavis_emovit.generation.seke.annotators import Annotator, Question, Reply, reviewed
from lavis_emovit.generation.seke.levels import Case, Levels, level_of, likeliest_levels, read_answer, read_levels
from lavis_emovit.generation.seke.measures import is_error
from lavis_emovit.generation.seke.questions import answer_text, review_text
from lavis_emovit.generation.seke.rules import Finding, contradictions
from lavis_emovit.generation.seke.settings import SekeSettings
from lavis_emovit.generation.seke.views import View, in_order, plan_views
from lavis_emovit.generation.seke.votes import Answer, Estimate, combine

_VERDICTS = {"keep": "kept", "correct": "corrected", "discard": "discarded"}


@dataclass
class Outcome:
    """Result for one face, with all intermediate results; items are those of `Case.items`."""

    case: Case
    views: list[View]
    priors: FacialPriors  # the tables that complete it
    answers: list[Answer] = field(default_factory=list)
    attempts: list[dict[str, Any]] = field(default_factory=list)  # every answer, readable or not
    estimate: Estimate | None = None  # combination of the answers; None without any
    findings: list[Finding] = field(default_factory=list)  # contradictions before the review
    review: dict[str, Any] = field(default_factory=dict)  # content of the review; empty without one
    levels: Levels = field(default_factory=Levels)  # the kept levels
    # Missing item -> `kept`, `corrected` or `discarded`; empty without an estimate.
    verdicts: dict[str, str] = field(default_factory=dict)
    # Item -> why discarded: `uncertain`, `rules`, `review`, or `blind` (a blind reviewer differs).
    reasons: dict[str, str] = field(default_factory=dict)
    second: Levels | None = None  # the answer of a blind reviewer
    num_resamples: int = 0  # how often rejected items were asked about again
    num_calls: int = 0  # number of answers and reviews
    is_complete: bool = True  # False if the run stopped before the face was finished; the next run resumes it

    @property
    def missing_reason(self) -> str | None:
        """Why there is no estimate: the status of the last attempt."""
        return None if self.estimate else (self.attempts[-1]["status"] if self.attempts else "not_asked")

    def open_items(self, settings: SekeSettings) -> Collection[str]:
        """Items that need another answer: too uncertain, or without an uncertainty, which needs two answers."""
        if not self.answers:
            return self.case.items
        return combine(self.answers, self.case, self.priors).above(settings.enough, or_unknown=True)


def complete(
    cases: Sequence[Case], annotator: Annotator, settings: SekeSettings, priors: FacialPriors, *, label: str = "faces"
) -> list[Outcome]:
    """Complete the missing levels of faces, each record once; returns one outcome per case, in order."""
    limits = [annotator.num_answers(case) for case in cases]
    outcomes = [Outcome(case, _views(case, annotator, settings, priors), priors) for case in cases]

    def ask(asked: Sequence[tuple[Outcome, Case, int]], title: str) -> None:
        questions = [question(outcome.views, case, sample, priors) for outcome, case, sample in asked]
        for (outcome, case, sample), reply in zip(asked, annotator.ask(title, questions)):
            _add_answer(outcome, case, sample, reply)

    def are_due(sample: int) -> list[Outcome]:
        """Faces about which this answer can differ from the earlier ones."""
        return [outcome for outcome, limit in zip(outcomes, limits) if limit is None or sample < limit]

    first = range(settings.num_first)
    ask([(outcome, outcome.case, sample) for sample in first for outcome in are_due(sample)], label)
    for sample in range(settings.num_first, settings.num_most):
        asked = [
            (outcome, outcome.case.narrowed(items), sample)
            for outcome in are_due(sample)
            if outcome.is_complete and (items := outcome.open_items(settings))
        ]
        if annotator.stopped or not asked:
            break
        ask(asked, f"{label}, answer {sample + 1}")
    _settle(outcomes, annotator, settings, priors, f"{label}, review")
    for number in range(1, 1 + settings.resamples):
        rejected = [outcome for outcome in outcomes if outcome.is_complete and outcome.reasons]
        if annotator.stopped or annotator.kind != "model" or not rejected:
            break
        title = f"{label}, resample {number}"
        asked = [
            (outcome, outcome.case.narrowed(outcome.reasons), len(outcome.attempts) + more)
            for more in range(settings.num_first)
            for outcome in rejected
        ]
        ask(asked, title)
        for outcome in rejected:
            outcome.num_resamples += 1
        _settle(rejected, annotator, settings, priors, f"{title}, review")
    return outcomes


def _views(case: Case, annotator: Annotator, settings: SekeSettings, priors: FacialPriors) -> list[View]:
    if annotator.kind == "teachers":
        return [View(number) for number in range(annotator.num_answers(case) or 1)]
    return plan_views(case, settings, priors, annotator.num_wordings)


def _settle(
    outcomes: Sequence[Outcome], annotator: Annotator, settings: SekeSettings, priors: FacialPriors, label: str
) -> None:
    """Combine all answers of each face, and verify the result."""
    settled = [outcome for outcome in outcomes if outcome.is_complete and outcome.answers]
    for outcome in settled:
        outcome.estimate = combine(outcome.answers, outcome.case, outcome.priors)
        outcome.levels = outcome.estimate.levels
        outcome.verdicts, outcome.reasons = dict.fromkeys(outcome.estimate.spreads, "kept"), {}
        if outcome.second is None:
            outcome.review = {}  # of an earlier proposal
    if settings.verification != "off":
        _verify(settled, annotator, settings, priors, label)


def question(views: Sequence[View], case: Case, sample: int, priors: FacialPriors) -> Question:
    """The question for answer number `sample`, in the form of its view."""
    view = views[sample % len(views)]
    ordered = in_order(case, view)
    return Question(ordered, answer_text(ordered, priors, hinted=view.is_hinted), sample, view)


def _add_answer(outcome: Outcome, case: Case, sample: int, reply: Reply | None) -> None:
    if reply is None:
        outcome.is_complete = False
        return
    outcome.num_calls += reply.num_calls
    view = outcome.views[sample % len(outcome.views)]
    attempt: dict[str, Any] = {"sample": sample, "view": view.number, "status": reply.status}
    attempt |= {"request": reply.request} if reply.request is not None else {}
    attempt |= {"by": list(reply.by)} if reply.by else {}
    if reply.beliefs is not None:
        levels = likeliest_levels(reply.beliefs, case)
        attempt |= {"levels": levels.plain(), "expressions": reply.beliefs.expressions}
        outcome.answers.append(Answer(levels, view.number, beliefs=reply.beliefs, votes=reply.votes))
    elif reply.text is not None:
        read = read_answer(reply.text, case)
        if isinstance(read, str):
            attempt |= {"status": "unreadable", "detail": read}
        else:
            attempt["levels"] = read.plain()
            outcome.answers.append(Answer(read, view.number, view.is_hinted))
    outcome.attempts.append(attempt)


def _verify(
    outcomes: list[Outcome], annotator: Annotator, settings: SekeSettings, priors: FacialPriors, label: str
) -> None:
    to_review: list[tuple[Outcome, Question]] = []
    for outcome in outcomes:
        assert outcome.estimate is not None
        if settings.prior:
            outcome.findings = contradictions(outcome.case.known, outcome.levels, priors, settings)
        doubts = outcome.estimate.above(settings.enough)
        is_due = {"always": True, "doubtful": bool(outcome.findings or doubts)}.get(settings.verification, False)
        if not annotator.reviewer or not is_due:
            continue
        if settings.review == "blind":
            if outcome.second is None:
                to_review.append((outcome, blind_question(outcome.case, priors)))
        else:
            text = review_text(outcome.case, outcome.levels, outcome.findings, doubts, priors, settings.prior)
            to_review.append((outcome, Question(outcome.case, text, proposal=outcome.levels)))
    can_ask = to_review and not annotator.stopped
    replies = annotator.ask(label, [question for _, question in to_review]) if can_ask else []
    for (outcome, _), reply in zip_longest(to_review, replies):
        if reply is not None and reply.beliefs is not None:
            outcome.num_calls += reply.num_calls
            outcome.review = {"by": annotator.reviewer, "status": reply.status}
            outcome.second = likeliest_levels(reply.beliefs, outcome.case)
        elif (value := _open_review(outcome, annotator.reviewer, reply)) is None:
            continue
        elif settings.review == "blind":
            _read_second(outcome, value)
        else:
            _apply_review(outcome, value)
    for outcome in outcomes:
        _compare_with_second(outcome, settings)
        _discard(outcome, settings)


def blind_question(case: Case, priors: FacialPriors) -> Question:
    """The question for a reviewer that sees neither the proposal nor the tables."""
    return Question(case, answer_text(case, priors, hinted=False), is_blind=True)


def _open_review(outcome: Outcome, reviewer: str, reply: Reply | None) -> dict[str, Any] | None:
    """The JSON object of a reviewer; None without a readable one."""
    if reply is None:
        outcome.is_complete = False
        return None
    outcome.num_calls += reply.num_calls
    outcome.review = {"by": reviewer, "status": reply.status, **({"request": reply.request} if reply.request else {})}
    value = None if reply.text is None else find_json(reply.text)
    if reply.text is not None and not isinstance(value, dict):
        outcome.review |= {"status": "unreadable", "detail": "not one JSON object"}
    return value if isinstance(value, dict) else None


def _read_second(outcome: Outcome, value: dict[str, Any]) -> None:
    second = read_levels(value, outcome.case)
    if isinstance(second, str):
        outcome.review |= {"status": "unreadable", "detail": second}
    else:
        outcome.second = second


def _compare_with_second(outcome: Outcome, settings: SekeSettings) -> None:
    """Reject items on which a blind reviewer differs."""
    if outcome.second is None:
        return
    differing = [
        item
        for item in outcome.verdicts
        if (other := outcome.second.get(item)) is not None
        and is_error(item, outcome.levels.get(item), other, settings.blind_tolerance)
    ]
    outcome.review |= {"verdicts": {"differs": differing}, "levels": outcome.second.plain()}
    outcome.reasons |= dict.fromkeys(differing, "blind")


def _apply_review(outcome: Outcome, value: dict[str, Any]) -> None:
    case = outcome.case
    decisions = {name: value.get(f"{name}_verdict") for name in reviewed(case)}
    problems = [
        f"{name}_verdict {given!r}"
        for name, given in decisions.items()
        if not isinstance(given, str) or given not in _VERDICTS
    ]
    by_item = {item: decisions["units" if level_of(item) == "units" else item] for item in case.items}
    unclear = value.get("unclear_units", [])
    if not isinstance(unclear, list) or any(type(unit) is not int or unit not in case.units for unit in unclear):
        problems.append(f"unclear_units {unclear!r}")
    else:
        by_item |= {f"unit:{unit}": "discard" for unit in unclear if "units" in case.wanted}
    corrected = read_levels(value, case.narrowed([item for item, given in by_item.items() if given == "correct"]))
    if problems or isinstance(corrected, str):
        outcome.review |= {"status": "unreadable", "detail": ", ".join(problems) or str(corrected)}
        return
    outcome.review |= {"verdicts": decisions, "reason": str(value.get("reason", ""))[:300]}
    outcome.levels = corrected.over(outcome.levels)
    for item, given in by_item.items():
        outcome.verdicts[item] = _VERDICTS[str(given)]
        if given == "discard":
            outcome.reasons[item] = "review"


def _discard(outcome: Outcome, settings: SekeSettings) -> None:
    """Discard items that the review rejected, that are too uncertain, or that contradict others without a review."""
    assert outcome.estimate is not None
    for item in outcome.estimate.above(settings.too_much):
        if outcome.verdicts[item] == "kept":
            outcome.reasons[item] = "uncertain"
    if "verdicts" not in outcome.review:
        for finding in outcome.findings:
            # Units vary too much to discard an item without a review.
            if finding.rule == "region":
                outcome.reasons |= dict.fromkeys(finding.items, "rules")
    for item in outcome.reasons:
        outcome.verdicts[item] = "discarded"
    outcome.levels = outcome.levels.without(outcome.reasons)
