"""Complete missing levels: request answers until they agree or reach the limit, combine them, verify the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from lavis_emovit.chat.json_text import find_json
from lavis_emovit.emotion.facial import FacialPriors
from lavis_emovit.generation.seke.annotators import Annotator, Question, Reply
from lavis_emovit.generation.seke.levels import Case, Levels, read_answer, read_levels
from lavis_emovit.generation.seke.questions import answer_text, review_text
from lavis_emovit.generation.seke.rules import Finding, contradictions
from lavis_emovit.generation.seke.settings import LevelName, SekeSettings
from lavis_emovit.generation.seke.votes import Estimate, combine

_VERDICTS = {"keep": "kept", "correct": "corrected", "discard": "discarded"}


@dataclass
class Outcome:
    """Result for one face, with all intermediate results."""

    case: Case
    answers: list[Levels] = field(default_factory=list)
    attempts: list[dict[str, Any]] = field(default_factory=list)  # every answer, readable or not
    estimate: Estimate | None = None  # combination of the answers; None without any
    findings: list[Finding] = field(default_factory=list)  # contradictions before the review
    review: dict[str, Any] = field(default_factory=dict)  # content of the review; empty without one
    levels: Levels = field(default_factory=Levels)  # the kept levels
    # Missing level -> `kept`, `corrected` or `discarded`; empty without an estimate.
    verdicts: dict[LevelName, str] = field(default_factory=dict)
    reasons: dict[LevelName, str] = field(default_factory=dict)  # why discarded: `uncertain`, `rules`, `review`
    num_calls: int = 0  # number of answers and reviews
    is_complete: bool = True  # False if the run stopped before the face was finished; the next run resumes it

    @property
    def missing_reason(self) -> str | None:
        """Why there is no estimate: the status of the last attempt."""
        return None if self.estimate else (self.attempts[-1]["status"] if self.attempts else "not_asked")


def complete(
    cases: Sequence[Case], annotator: Annotator, settings: SekeSettings, priors: FacialPriors, *, label: str = "faces"
) -> list[Outcome]:
    """Complete the missing levels of faces, each record once; returns one outcome per case, in order."""
    outcomes = [Outcome(case) for case in cases]

    def ask(some: list[Outcome], samples: range, title: str) -> None:
        texts = {id(outcome): answer_text(outcome.case, priors, hinted=settings.prior) for outcome in some}
        items = [(outcome, sample) for sample in samples for outcome in some]
        questions = [Question(outcome.case, texts[id(outcome)], sample) for outcome, sample in items]
        for (outcome, sample), reply in zip(items, annotator.ask(title, questions)):
            _add_answer(outcome, sample, reply)

    # The tables always give the same answer.
    first, most = (settings.num_first, settings.num_most) if annotator.kind == "model" else (1, 1)
    ask(outcomes, range(first), label)
    for sample in range(first, most):
        open_outcomes = [outcome for outcome in outcomes if outcome.is_complete and _needs_more(outcome, settings)]
        if annotator.stopped or not open_outcomes:
            break
        ask(open_outcomes, range(sample, sample + 1), f"{label}, answer {sample + 1}")
    for outcome in outcomes:
        if outcome.is_complete and outcome.answers:
            outcome.estimate = combine(outcome.answers, outcome.case)
            outcome.levels = outcome.estimate.levels
            outcome.verdicts = dict.fromkeys(outcome.case.wanted, "kept")
    if settings.verification != "off":
        _verify([outcome for outcome in outcomes if outcome.estimate], annotator, settings, priors, label)
    return outcomes


def _add_answer(outcome: Outcome, sample: int, reply: Reply | None) -> None:
    if reply is None:
        outcome.is_complete = False
        return
    outcome.num_calls += 1
    attempt: dict[str, Any] = {"sample": sample, "status": reply.status}
    attempt |= {"request": reply.request} if reply.request is not None else {}
    if reply.text is not None:
        answer = read_answer(reply.text, outcome.case)
        if isinstance(answer, str):
            attempt |= {"status": "unreadable", "detail": answer}
        else:
            attempt["levels"] = answer.plain()
            outcome.answers.append(answer)
    outcome.attempts.append(attempt)


def _needs_more(outcome: Outcome, settings: SekeSettings) -> bool:
    return len(outcome.answers) < 2 or bool(combine(outcome.answers, outcome.case).above(settings.enough))


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
        if annotator.kind == "model" and is_due:
            text = review_text(outcome.case, outcome.levels, outcome.findings, doubts, priors, settings.prior)
            to_review.append((outcome, Question(outcome.case, text, proposal=outcome.levels)))
    can_ask = to_review and not annotator.stopped
    replies = annotator.ask(f"{label}, review", [question for _, question in to_review]) if can_ask else []
    for (outcome, _), reply in zip_longest(to_review, replies):
        _apply_review(outcome, reply)
    for outcome in outcomes:
        _discard(outcome, settings)


def _apply_review(outcome: Outcome, reply: Reply | None) -> None:
    if reply is None:
        outcome.is_complete = False
        return
    outcome.num_calls += 1
    outcome.review = {"status": reply.status, **({"request": reply.request} if reply.request else {})}
    if reply.text is None:
        return
    value = find_json(reply.text)
    if not isinstance(value, dict):
        outcome.review |= {"status": "unreadable", "detail": "not one JSON object"}
        return
    decisions = {level: value.get(f"{level}_verdict") for level in outcome.case.wanted}
    unknown = [
        f"{level}_verdict {given!r}"
        for level, given in decisions.items()
        if not isinstance(given, str) or given not in _VERDICTS
    ]
    to_correct: list[LevelName] = [level for level, given in decisions.items() if given == "correct"]
    corrected: Levels | str = read_levels(value, outcome.case, to_correct)
    if unknown or isinstance(corrected, str):
        outcome.review |= {"status": "unreadable", "detail": ", ".join(unknown) or str(corrected)}
        return
    outcome.review |= {"verdicts": decisions, "reason": str(value.get("reason", ""))[:300]}
    outcome.levels = corrected.over(outcome.levels)
    for level, given in decisions.items():
        outcome.verdicts[level] = _VERDICTS[str(given)]
        if given == "discard":
            outcome.reasons[level] = "review"


def _discard(outcome: Outcome, settings: SekeSettings) -> None:
    """Discard levels that the review rejected, that are too uncertain, or that contradict others without a review."""
    assert outcome.estimate is not None
    for level in outcome.estimate.above(settings.too_much):
        if outcome.verdicts[level] == "kept":
            outcome.reasons[level] = "uncertain"
    if "verdicts" not in outcome.review:
        for finding in outcome.findings:
            # Units vary too much to discard a level without a review.
            if finding.rule == "region":
                outcome.reasons |= dict.fromkeys(finding.levels, "rules")
    for level in outcome.reasons:
        outcome.verdicts[level] = "discarded"
    kept: list[LevelName] = [level for level in outcome.case.wanted if outcome.verdicts[level] != "discarded"]
    outcome.levels = outcome.levels.only(kept)
