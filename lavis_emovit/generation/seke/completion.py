"""Completing missing levels: answers until they agree or no more are allowed, the aggregate, and its verification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lavis_emovit.chat.json_text import find_json
from lavis_emovit.emotion.facial import FacialPriors
from lavis_emovit.generation.seke.annotators import Annotator, Question, Reply
from lavis_emovit.generation.seke.asking import answer_text, review_text
from lavis_emovit.generation.seke.levels import Case, Levels, read_answer, read_levels
from lavis_emovit.generation.seke.rules import Finding, contradictions
from lavis_emovit.generation.seke.settings import LevelName, SekeSettings
from lavis_emovit.generation.seke.votes import Estimate, combine

_VERDICTS = {"keep": "kept", "correct": "corrected", "discard": "discarded"}


@dataclass
class Outcome:
    """What came of a face, with everything on the way.

    Attributes:
        case: the face.
        answers: that could be read.
        attempts: every answer, read or not: sample, status, request, levels.
        estimate: of the answers; None without any.
        findings: contradictions, before the review.
        review: what the review said; empty without one.
        levels: what is left in the end.
        verdicts: wanted level -> `kept`, `corrected` or `discarded`; empty without an estimate.
        reasons: level -> why it was discarded (`uncertain`, `rules`, `review`).
        num_calls: answers and reviews that were asked for.
        is_complete: False where a stopped run left something out; the next run goes on.
    """

    case: Case
    answers: list[Levels] = field(default_factory=list)
    attempts: list[dict[str, Any]] = field(default_factory=list)
    estimate: Estimate | None = None
    findings: list[Finding] = field(default_factory=list)
    review: dict[str, Any] = field(default_factory=dict)
    levels: Levels = field(default_factory=Levels)
    verdicts: dict[LevelName, str] = field(default_factory=dict)
    reasons: dict[LevelName, str] = field(default_factory=dict)
    num_calls: int = 0
    is_complete: bool = True

    @property
    def missing_reason(self) -> str | None:
        """Why there is no estimate: the status of the last attempt."""
        return None if self.estimate else (self.attempts[-1]["status"] if self.attempts else "not_asked")


def complete(
    cases: Sequence[Case], annotator: Annotator, settings: SekeSettings, priors: FacialPriors, *, label: str = "faces"
) -> list[Outcome]:
    """Give faces their missing levels.

    Args:
        cases: each record once.
        annotator: who answers.
        settings: how often to ask, and what to keep.
        priors: tables.
        label: of the progress display.

    Returns:
        an outcome for each case, in order.
    """
    outcomes = [Outcome(case) for case in cases]
    # The tables answer the same every time.
    first, most = (settings.num_first, settings.num_most) if annotator.kind == "model" else (1, 1)
    _ask_round(outcomes, range(first), annotator, settings, priors, label)
    for sample in range(first, most):
        open_ones = [outcome for outcome in outcomes if outcome.is_complete and _needs_more(outcome, settings)]
        if annotator.stopped or not open_ones:
            break
        _ask_round(open_ones, range(sample, sample + 1), annotator, settings, priors, f"{label}, answer {sample + 1}")
    for outcome in outcomes:
        if outcome.is_complete and outcome.answers:
            outcome.estimate = combine(outcome.answers, outcome.case)
            outcome.levels = outcome.estimate.levels
            outcome.verdicts = dict.fromkeys(outcome.case.wanted, "kept")
    if settings.verification != "off":
        _verify([outcome for outcome in outcomes if outcome.estimate], annotator, settings, priors, label)
    return outcomes


def _ask_round(
    outcomes: list[Outcome],
    samples: range,
    annotator: Annotator,
    settings: SekeSettings,
    priors: FacialPriors,
    label: str,
) -> None:
    asked = [(outcome, sample) for sample in samples for outcome in outcomes]
    texts = {id(outcome): answer_text(outcome.case, priors, hinted=settings.prior) for outcome in outcomes}
    questions = [Question(item.case, texts[id(item)], sample, hinted=settings.prior) for item, sample in asked]
    for (outcome, sample), reply in zip(asked, annotator.ask(label, questions)):
        if reply is None:
            outcome.is_complete = False
            continue
        outcome.num_calls += 1
        attempt: dict[str, Any] = {"sample": sample, "status": reply.status}
        if reply.request is not None:
            attempt["request"] = reply.request
        if reply.text is not None:
            answer = read_answer(reply.text, outcome.case)
            if isinstance(answer, str):
                attempt |= {"status": "unreadable", "detail": answer}
            else:
                attempt["levels"] = answer.plain()
                outcome.answers.append(answer)
        outcome.attempts.append(attempt)


def _needs_more(outcome: Outcome, settings: SekeSettings) -> bool:
    """Whether the answers so far disagree, or are fewer than two."""
    if not outcome.answers:
        return True
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
        wants = settings.verification == "always" or (
            settings.verification == "doubtful" and bool(outcome.findings or doubts)
        )
        if annotator.kind == "model" and wants:
            text = review_text(outcome.case, outcome.levels, outcome.findings, doubts, priors, settings.prior)
            question = Question(outcome.case, text, proposal=outcome.levels, hinted=settings.prior)
            to_review.append((outcome, question))
    replies: list[Reply | None] = [None] * len(to_review)
    if to_review and not annotator.stopped:
        replies = annotator.ask(f"{label}, review", [question for _, question in to_review])
    for (outcome, _), reply in zip(to_review, replies):
        _apply_review(outcome, reply)
    for outcome in outcomes:
        _discard(outcome, settings)


def _apply_review(outcome: Outcome, reply: Reply | None) -> None:
    if reply is None:
        outcome.is_complete = False
        return
    outcome.num_calls += 1
    outcome.review = {"status": reply.status, **({"request": reply.request} if reply.request else {})}
    value = find_json(reply.text) if reply.text is not None else None
    if not isinstance(value, dict):
        if reply.text is not None:
            outcome.review |= {"status": "unreadable", "detail": "not a JSON object"}
        return
    decisions = {level: value.get(f"{level}_verdict") for level in outcome.case.wanted}
    strange = [f"{level}_verdict {given!r}" for level, given in decisions.items() if given not in _VERDICTS]
    to_correct: list[LevelName] = [level for level, given in decisions.items() if given == "correct"]
    corrected: Levels | str = read_levels(value, outcome.case, to_correct)
    if strange or isinstance(corrected, str):
        detail = ", ".join(strange) or str(corrected)
        outcome.review |= {"status": "unreadable", "detail": detail}
        return
    outcome.review |= {"verdicts": decisions, "reason": str(value.get("reason", ""))[:300]}
    outcome.levels = corrected.over(outcome.levels)
    for level, given in decisions.items():
        outcome.verdicts[level] = _VERDICTS[str(given)]
        if given == "discard":
            outcome.reasons[level] = "review"


def _discard(outcome: Outcome, settings: SekeSettings) -> None:
    """Take out what the review threw away, what stayed too uncertain, and contradictions that no review looked at."""
    assert outcome.estimate is not None
    for level in outcome.estimate.above(settings.too_much):
        if outcome.verdicts[level] == "kept":
            outcome.reasons[level] = "uncertain"
    if "verdicts" not in outcome.review:
        for finding in outcome.findings:
            # Prototypes are too loose to throw anything away without a look at the face.
            if finding.rule == "region":
                outcome.reasons |= dict.fromkeys(finding.levels, "rules")
    for level in outcome.reasons:
        outcome.verdicts[level] = "discarded"
    kept: list[LevelName] = [level for level in outcome.case.wanted if outcome.verdicts[level] != "discarded"]
    outcome.levels = outcome.levels.only(kept)
