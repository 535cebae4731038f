"""The step over a job's records: complete the levels and write instructions, or hide known levels and measure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from lavis_emovit.emotion.facial import FacialPriors, facial_priors
from lavis_emovit.files import atomic_writer
from lavis_emovit.generation.job import Job, StepResult
from lavis_emovit.generation.seke.annotators import Annotator, ChatAnnotator, PriorAnnotator, Question
from lavis_emovit.generation.seke.asking import answer_text, review_text
from lavis_emovit.generation.seke.completion import Outcome, complete
from lavis_emovit.generation.seke.instructions import write_instructions
from lavis_emovit.generation.seke.levels import Case, Levels, case_of, known_levels, without_generated
from lavis_emovit.generation.seke.measures import Pair, measure
from lavis_emovit.generation.seke.settings import LEVELS, SekeSettings
from lavis_emovit.generation.seke.trail import story, with_levels

TRAIL = "seke.jsonl"
CHECK = "check.json"


def make_annotator(job: Job, settings: SekeSettings, priors: FacialPriors) -> Annotator:
    """The job's chat model, or, without one, the tables alone."""
    return ChatAnnotator(job, settings) if job.chat is not None else PriorAnnotator(priors)


def complete_levels(job: Job, settings: SekeSettings, annotator: Annotator | None = None) -> StepResult:
    """Give the records of the job's split their missing levels, and instructions for all that is there.

    What people gave stays. What an earlier run gave is taken out and completed anew; what is in the ledger is not asked
    again. The whole story of each face goes into `seke.jsonl` in the job's folder. A face that a stopped run left
    unfinished stays as it was.

    Args:
        job: records, pictures, endpoint and ledger.
        settings: how.
        annotator: who answers; None is the job's own.

    Raises:
        DataError: records whose emotion is no facial expression.
        ConfigError: tables that cannot be used.
    """
    priors = facial_priors(settings.priors)
    annotator = annotator or make_annotator(job, settings, priors)
    chosen = job.chosen()
    cases = [case for record in chosen if (case := case_of(record, active_from=settings.active_from)) is not None]
    result = StepResult("seke", annotator.name, getattr(annotator, "prompts", ""), num_records=len(chosen))
    outcomes = complete(cases, annotator, settings, priors)
    if job.dry_run:
        _estimate_the_rest(cases, annotator, settings, priors)
        return result
    finished = {outcome.case.record.id: outcome for outcome in outcomes if outcome.is_complete}
    unfinished = {outcome.case.record.id for outcome in outcomes if not outcome.is_complete}
    verdicts: Counter[str] = Counter()
    changed = {}
    for record in chosen:
        if record.id in unfinished:
            result.missing["unfinished"] += 1
            continue
        outcome = finished.get(record.id)
        new = with_levels(outcome, annotator.name) if outcome is not None else without_generated(record)
        if outcome is not None and outcome.missing_reason is not None:
            result.missing[outcome.missing_reason] += 1
        else:
            result.num_done += 1
        if outcome is not None:
            verdicts.update(f"{level} {verdict}" for level, verdict in outcome.verdicts.items())
            result.reasons.update(f"{level} {reason}" for level, reason in outcome.reasons.items())
        kept = [item for item in new.instructions if not item.provenance.startswith("seke:")]
        written = write_instructions(new, priors, settings, seed=job.settings.seed) if settings.instructions else []
        # The record may ask for the expression already, in the same words.
        there = {(item.question, item.answer) for item in kept}
        written = [item for item in written if (item.question, item.answer) not in there]
        result.num_pairs += len(written)
        changed[record.id] = new.model_copy(update={"instructions": [*kept, *written]})
    result.num_rejected = sum(result.reasons.values())
    result.stopped, result.under_way = annotator.stopped, getattr(annotator, "under_way", 0)
    num_calls = sum(outcome.num_calls for outcome in outcomes)
    result.notes = {
        "levels": dict(sorted(verdicts.items())),
        "calls per face": round(num_calls / len(outcomes), 2) if outcomes and annotator.kind == "model" else 0,
        "unreadable": sum(item["status"] == "unreadable" for outcome in outcomes for item in outcome.attempts),
        "contradictions": sum(bool(outcome.findings) for outcome in outcomes),
    }
    job.replace(changed)
    with atomic_writer(job.folder / TRAIL) as file:
        for outcome in outcomes:
            file.write(json.dumps(story(outcome, annotator.name), ensure_ascii=False) + "\n")
    return result


def check_levels(job: Job, settings: SekeSettings, annotator: Annotator | None = None) -> dict[str, Any]:
    """Hide each level that people gave, one at a time, complete it from the others, and measure how well it comes back.

    Args:
        job, settings, annotator: see `complete_levels`.

    Returns:
        annotator, settings, and by level what `measure` gives with `calls_per_face` and `without` (faces that got no
        answer, by reason); also written to `check.json`, unless this is a dry run.
    """
    priors = facial_priors(settings.priors)
    annotator = annotator or make_annotator(job, settings, priors)
    levels: dict[str, Any] = {}
    for level in LEVELS:
        found = [case_of(record, active_from=settings.active_from, hide=level) for record in job.chosen()]
        cases = [case for case in found if case is not None]
        if not cases or annotator.stopped:
            continue
        outcomes = complete(cases, annotator, settings, priors, label=f"{level} hidden")
        if job.dry_run:
            _estimate_the_rest(cases, annotator, settings, priors, f"{level} hidden")
            continue
        pairs = [_pair(outcome, settings) for outcome in outcomes]
        without = Counter(outcome.missing_reason for outcome in outcomes if outcome.missing_reason is not None)
        levels[level] = {
            **measure(pairs, [level], seed=job.settings.seed)[level],
            "calls_per_face": round(sum(outcome.num_calls for outcome in outcomes) / len(outcomes), 3),
            "without": dict(without),
        }
    report = {
        "annotator": annotator.name,
        "settings": settings.model_dump(mode="json"),
        "levels": levels,
        "stopped": annotator.stopped,
    }
    if not job.dry_run:
        with atomic_writer(job.folder / CHECK) as file:
            json.dump(report, file, ensure_ascii=False, indent=2)
            file.write("\n")
    return report


def _pair(outcome: Outcome, settings: SekeSettings) -> Pair:
    truth = known_levels(without_generated(outcome.case.record), settings.active_from)
    return Pair(truth, outcome.levels, outcome.estimate)


def _estimate_the_rest(
    cases: Sequence[Case], annotator: Annotator, settings: SekeSettings, priors: FacialPriors, label: str = "faces"
) -> None:
    """What a dry run cannot know: how often answers disagree. The most that there can be is estimated."""
    if annotator.kind != "model":
        return
    more = range(settings.num_first, settings.num_most)
    texts = [answer_text(case, priors, hinted=settings.prior) for case in cases]
    if more:
        questions = [Question(case, text, sample) for sample in more for case, text in zip(cases, texts)]
        annotator.ask(f"{label}, further answers at most", questions)
    if settings.verification in ("always", "doubtful"):
        guess = PriorAnnotator(priors).guess
        blank = Levels("neutral", 0.0, 0.0)
        proposals = [(guess(case) or blank).only(case.wanted) for case in cases]
        reviews = [
            Question(case, review_text(case, proposal, (), (), priors, settings.prior), proposal=proposal)
            for case, proposal in zip(cases, proposals)
        ]
        annotator.ask(f"{label}, reviews at most", reviews)
