"""The step over a job's records: complete levels and write instructions, or hide known levels and measure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from lavis_emovit.emotion.facial import FacialPriors, facial_priors
from lavis_emovit.emotion.labels_faces import EXPRESSIONS8
from lavis_emovit.files import atomic_writer, write_json
from lavis_emovit.generation.job import Job, StepResult
from lavis_emovit.generation.seke.annotators import Annotator, ChatAnnotator, PriorAnnotator, Question
from lavis_emovit.generation.seke.completion import Outcome, complete
from lavis_emovit.generation.seke.instructions import write_instructions
from lavis_emovit.generation.seke.levels import (
    MARK,
    Case,
    Levels,
    case_of,
    known_levels,
    own_label,
    sources_of,
    without_generated,
)
from lavis_emovit.generation.seke.measures import Pair, measure
from lavis_emovit.generation.seke.questions import answer_text, review_text
from lavis_emovit.generation.seke.settings import LEVELS, SekeSettings
from lavis_emovit.records import EmotionRecord

TRAIL = "seke.jsonl"
CHECK = "check.json"


def complete_levels(job: Job, settings: SekeSettings) -> StepResult:
    """Complete the missing levels of the job's records, and write instructions for all levels.

    Labels by people stay. Levels of an earlier run are removed and completed again; the ledger answers what was already
    requested. `seke.jsonl` in the job's folder contains all details of each face. Faces that a stopped run did not
    finish stay unchanged. DataError if an emotion is not a facial expression, ConfigError for invalid tables.
    """
    priors, annotator = _tables_and_annotator(job, settings)
    chosen = job.chosen()
    cases = [case for record in chosen if (case := case_of(record, active_from=settings.active_from)) is not None]
    result = StepResult("seke", annotator.name, annotator.prompts, num_records=len(chosen))
    outcomes = complete(cases, annotator, settings, priors)
    if job.dry_run:
        _estimate_the_rest(cases, annotator, settings, priors)
        return result
    by_id = {outcome.case.record.id: outcome for outcome in outcomes}
    verdicts: Counter[str] = Counter()
    for number, record in chosen.items():
        # Without an outcome, nothing was missing.
        outcome = by_id.get(record.id)
        if outcome is not None and not outcome.is_complete:
            result.missing["unfinished"] += 1
            continue
        if outcome is not None and outcome.missing_reason is not None:
            result.missing[outcome.missing_reason] += 1
        else:
            result.num_done += 1
        new = without_generated(record)
        if outcome is not None:
            verdicts.update(f"{level} {verdict}" for level, verdict in outcome.verdicts.items())
            result.reasons.update(f"{level} {reason}" for level, reason in outcome.reasons.items())
            new = with_levels(outcome, annotator.name)
        kept = [item for item in new.instructions if not item.provenance.startswith("seke:")]
        written = write_instructions(new, priors, settings, seed=job.settings.seed) if settings.instructions else []
        # The record may already contain the question about the expression, in the same words.
        existing = {(item.question, item.answer) for item in kept}
        written = [item for item in written if (item.question, item.answer) not in existing]
        result.num_pairs += len(written)
        job.put(number, new.model_copy(update={"instructions": [*kept, *written]}))
    result.num_rejected = sum(result.reasons.values())
    result.stopped, result.under_way = annotator.stopped, annotator.under_way
    result.faults = _faults(annotator, outcomes)
    num_calls = sum(outcome.num_calls for outcome in outcomes)
    result.notes = {
        "levels": dict(sorted(verdicts.items())),
        "calls per face": round(num_calls / len(outcomes), 2) if outcomes and annotator.kind == "model" else 0,
        "unreadable": sum(item["status"] == "unreadable" for outcome in outcomes for item in outcome.attempts),
        "contradictions": sum(bool(outcome.findings) for outcome in outcomes),
    }
    with atomic_writer(job.folder / TRAIL) as file:
        for outcome in outcomes:
            file.write(json.dumps(story(outcome, annotator.name), ensure_ascii=False) + "\n")
    return result


def check_levels(job: Job, settings: SekeSettings) -> dict[str, Any]:
    """Hide each level labelled by people, one at a time, complete it from the others, and measure the result.

    Per level, the report has the result of `measure`, `calls_per_face` and `without` (faces without an answer, by
    reason); `faults` has one reason of each class of fault. It is also written to `check.json`, except in a dry run.
    """
    priors, annotator = _tables_and_annotator(job, settings)
    levels: dict[str, Any] = {}
    all_outcomes: list[Outcome] = []
    # All records are checked before the first request.
    found = {
        level: [case_of(record, active_from=settings.active_from, hide=level) for record in job.chosen()]
        for level in LEVELS
    }
    for level in LEVELS:
        cases, label = [case for case in found[level] if case is not None], f"{level} hidden"
        if not cases or annotator.stopped:
            continue
        outcomes = complete(cases, annotator, settings, priors, label=label)
        if job.dry_run:
            _estimate_the_rest(cases, annotator, settings, priors, label)
            continue
        all_outcomes += outcomes
        truths = [known_levels(without_generated(case.record), settings.active_from) for case in cases]
        pairs = [Pair(truth, outcome.levels, outcome.estimate) for truth, outcome in zip(truths, outcomes)]
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
        "faults": _faults(annotator, all_outcomes),
    }
    if not job.dry_run:
        write_json(job.folder / CHECK, report)
    return report


def _faults(annotator: Annotator, outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Class of fault -> its last reason; `unreadable`: what is wrong with most of the answers that cannot be read."""
    attempts = [item for outcome in outcomes for item in (*outcome.attempts, outcome.review)]
    unreadable = Counter(str(item["detail"]) for item in attempts if "detail" in item)
    return annotator.faults | ({"unreadable": unreadable.most_common(1)[0][0]} if unreadable else {})


def _tables_and_annotator(job: Job, settings: SekeSettings) -> tuple[FacialPriors, Annotator]:
    priors = facial_priors(settings.priors)
    return priors, ChatAnnotator(job, settings) if job.chat is not None else PriorAnnotator(priors)


def _estimate_the_rest(
    cases: Sequence[Case], annotator: Annotator, settings: SekeSettings, priors: FacialPriors, label: str = "faces"
) -> None:
    """Estimate the highest number of further requests; a dry run cannot know how often answers disagree."""
    if annotator.kind != "model":
        return
    if more := range(settings.num_first, settings.num_most):
        texts = [answer_text(case, priors, hinted=settings.prior) for case in cases]
        questions = [Question(case, text, sample) for sample in more for case, text in zip(cases, texts)]
        annotator.ask(f"{label}, further answers at most", questions)
    if settings.verification in ("always", "doubtful"):
        guess, reviews = PriorAnnotator(priors).guess, []
        for case in cases:
            proposal = (guess(case) or Levels("neutral", 0.0, 0.0)).only(case.wanted)
            text = review_text(case, proposal, (), (), priors, settings.prior)
            reviews.append(Question(case, text, proposal=proposal))
        annotator.ask(f"{label}, reviews at most", reviews)


def with_levels(outcome: Outcome, annotator: str) -> EmotionRecord:
    """The record with the kept levels, and with their marks in `extra`.

    `seke_<level>_by` is `person`, the program of an imported table, the name of the annotator, or two of them joined by
    ` + ` (units that people did not code);
    `seke_given` lists every generated value, so the next run recognises them; `seke_<level>_uncertainty` comes from
    `Estimate` and is absent after a single answer. Intensities of generated units are 1 and 0.
    """
    record = without_generated(outcome.case.record)
    levels, estimate = outcome.levels, outcome.estimate
    changes: dict[str, Any] = {}
    given: list[str] = []
    marks: dict[str, str | int | float | bool] = {}
    if levels.expression is not None:
        changes["emotion"] = levels.expression
        if record.label_set is None:
            changes["label_set"] = marks["label_set"] = EXPRESSIONS8.name
        else:
            changes["emotion"] = own_label(record.label_set, levels.expression) or levels.expression
        given.append("expression")
    for axis in ("valence", "arousal"):
        if getattr(levels, axis) is not None and getattr(record, axis) is None:
            changes[axis] = round(getattr(levels, axis), 4)
            given.append(axis)
    if levels.units:
        new = {unit: float(active) for unit, active in sorted(levels.units.items())}
        changes["action_units"] = {**(record.action_units or {}), **new}
        given += [f"unit:{unit}" for unit in new]
    marks["given"] = " ".join(given)
    sources = sources_of(record, outcome.case.known)
    for level in LEVELS:
        parts = [sources[level]] if level in sources else []
        parts += [annotator] if level in outcome.case.wanted and levels.has(level) else []
        if parts:
            marks[f"{level}_by"] = " + ".join(parts)
    if estimate is not None:
        stated = {
            "expression": estimate.expression,
            "valence": estimate.valence,
            "arousal": estimate.arousal,
            "units": estimate.uncertainty("units"),
        }
        marks |= {f"{name}_uncertainty": round(value, 4) for name, value in stated.items() if value is not None}
        if estimate.units:
            marks["unit_uncertainties"] = " ".join(f"{unit}:{value:.4g}" for unit, value in estimate.units.items())
        marks["num_answers"] = estimate.num_answers
        marks["verdicts"] = " ".join(f"{level}:{verdict}" for level, verdict in outcome.verdicts.items())
    extra = {**record.extra, **{f"{MARK}{name}": value for name, value in marks.items()}}
    return record.model_copy(update={**changes, "extra": extra})


def story(outcome: Outcome, annotator: str) -> dict[str, Any]:
    """All details of a face, for JSON."""
    estimate = outcome.estimate
    row: dict[str, Any] = {
        "record": outcome.case.record.id,
        "annotator": annotator,
        "known": outcome.case.known.plain(),
        "wanted": list(outcome.case.wanted),
        "attempts": outcome.attempts,
    }
    if estimate is not None:
        row["aggregate"] = estimate.levels.plain()
        stated = {level: estimate.uncertainty(level) for level in outcome.case.wanted}
        row["uncertainty"] = {level: round(value, 4) for level, value in stated.items() if value is not None}
    row["findings"] = [{"rule": item.rule, "levels": list(item.levels), "text": item.text} for item in outcome.findings]
    row |= {"review": outcome.review, "verdicts": outcome.verdicts, "discarded": outcome.reasons}
    row |= {"levels": outcome.levels.plain(), "num_calls": outcome.num_calls}
    return row
