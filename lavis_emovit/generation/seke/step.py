"""The step over a job's records: complete levels and write instructions, or hide known levels and measure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from lavis_emovit.emotion.facial import FacialPriors, facial_priors
from lavis_emovit.emotion.labels_faces import EXPRESSIONS8
from lavis_emovit.files import atomic_writer, write_json
from lavis_emovit.generation.job import Job, StepResult
from lavis_emovit.generation.seke.annotators import Annotator, ChatAnnotator, PriorAnnotator, Question
from lavis_emovit.generation.seke.completion import Outcome, blind_question, complete, question
from lavis_emovit.generation.seke.instructions import write_instructions
from lavis_emovit.generation.seke.levels import (
    MARK,
    Case,
    Levels,
    case_of,
    known_levels,
    level_of,
    own_label,
    sources_of,
    without_generated,
)
from lavis_emovit.generation.seke.measures import MEASURES, Pair, is_error, measure
from lavis_emovit.generation.seke.questions import review_text
from lavis_emovit.generation.seke.settings import LEVELS, LevelName, SekeSettings
from lavis_emovit.generation.seke.teachers import TeacherAnnotator, Teachers
from lavis_emovit.generation.seke.thresholds import fit_thresholds, write_fitted
from lavis_emovit.generation.seke.views import plan_views
from lavis_emovit.records import EmotionRecord

TRAIL = "seke.jsonl"
CHECK = "check.json"


def complete_levels(job: Job, settings: SekeSettings, teachers: Teachers | None = None) -> StepResult:
    """Complete the missing levels of the job's records, and write instructions for all levels.

    Labels by people stay. Levels of an earlier run are removed and completed again; the ledger answers what was already
    requested. `seke.jsonl` in the job's folder contains all details of each face. Faces that a stopped run did not
    finish stay unchanged. DataError if an emotion is not a facial expression, ConfigError for invalid tables.
    """
    priors, annotator = _tables_and_annotator(job, settings, teachers)
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
            verdicts.update(f"{_group(item)} {verdict}" for item, verdict in outcome.verdicts.items())
            result.reasons.update(f"{_group(item)} {reason}" for item, reason in outcome.reasons.items())
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
        "calls per face": round(num_calls / len(outcomes), 2) if outcomes and annotator.kind != "prior" else 0,
        "unreadable": sum(item["status"] == "unreadable" for outcome in outcomes for item in outcome.attempts),
        "contradictions": sum(bool(outcome.findings) for outcome in outcomes),
    }
    for name, shares in agreement_with_tables(outcomes, priors).items():
        result.notes[f"{name} agrees with the tables"] = shares
    with atomic_writer(job.folder / TRAIL) as file:
        for outcome in outcomes:
            file.write(json.dumps(story(outcome, annotator.name), ensure_ascii=False) + "\n")
    return result


def check_levels(job: Job, settings: SekeSettings, teachers: Teachers | None = None) -> dict[str, Any]:
    """Hide each level labelled by people, one at a time, complete it from the others, and measure the result.

    Per level, the report has the result of `measure`, `calls_per_face`, `tables` and `without` (faces without an
    answer, by reason); `thresholds` has the fitted ones with their results on held-back labels; `faults` has one reason
    of each class of fault. It is also written to `check.json`, with the files of `write_fitted`, except in a dry run.
    """
    priors, annotator = _tables_and_annotator(job, settings, teachers)
    levels: dict[str, Any] = {}
    all_outcomes: list[Outcome] = []
    all_truths: list[Levels] = []
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
        all_truths += truths
        pairs = [Pair(truth, outcome.levels, outcome.estimate) for truth, outcome in zip(truths, outcomes)]
        without = Counter(outcome.missing_reason for outcome in outcomes if outcome.missing_reason is not None)
        levels[level] = {
            **measure(pairs, [level], seed=job.settings.seed)[level],
            "tables": compare_hinted(truths, outcomes, level),
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
        fitted = fit_thresholds(
            all_outcomes, all_truths, settings, max_error=settings.max_error, seed=job.settings.seed
        )
        report["thresholds"] = {
            item: {"too_much": fitted.too_much.get(item), "enough": fitted.enough.get(item), **found}
            for item, found in fitted.held_back.items()
        }
        write_fitted(job.folder, fitted, settings)
        write_json(job.folder / CHECK, report)
    return report


def _group(item: str) -> str:
    """Name for counts: `expression`, `valence`, `arousal`, and `unit` for every unit."""
    return item.partition(":")[0]


def agreement_with_tables(outcomes: Sequence[Outcome], priors: FacialPriors) -> dict[str, dict[str, float]]:
    """How much more often answers agree with the likeliest values of the tables if their prompt contains the tables.

    By `expression`, `valence`, `arousal` and `unit`: the share of agreeing answers `with` the tables in the prompt, and
    `without`. Valence and arousal agree within `AFFECT_ERROR`. Only faces whose prompts differ in the tables count.
    """
    found: dict[str, dict[bool, list[bool]]] = {}
    tables = PriorAnnotator(priors)
    for outcome in outcomes:
        if len({view.is_hinted for view in outcome.views}) < 2 or (guess := tables.guess(outcome.case)) is None:
            continue
        for answer in outcome.answers:
            for item in outcome.case.items:
                if (value := answer.levels.get(item)) is not None and guess.get(item) is not None:
                    kinds = found.setdefault(_group(item), {True: [], False: []})
                    kinds[answer.is_hinted].append(not is_error(item, value, guess.get(item)))
    return {
        name: {"with": round(fmean(kinds[True]), 4), "without": round(fmean(kinds[False]), 4)}
        for name, kinds in found.items()
        if all(kinds.values())
    }


def compare_hinted(truths: Sequence[Levels], outcomes: Sequence[Outcome], level: LevelName) -> dict[str, Any] | None:
    """The measure of a level over single answers with the tables in the prompt, and over those without.

    Only faces with answers of both kinds count, and only the first n answers of each kind, where n is the number that
    both kinds have. None if there are none.
    """
    pairs: dict[bool, list[Pair]] = {True: [], False: []}
    for truth, outcome in zip(truths, outcomes):
        full = [answer for answer in outcome.answers if answer.levels.has(level)]
        by_kind = {kind: [answer.levels for answer in full if answer.is_hinted is kind] for kind in pairs}
        count = min(map(len, by_kind.values()))
        for kind, found in by_kind.items():
            pairs[kind] += [Pair(truth, levels) for levels in found[:count]]
    if not pairs[True]:
        return None
    name, function = MEASURES[level]
    values = {kind: function(found) for kind, found in pairs.items()}
    rounded = {kind: None if value is None else round(value, 4) for kind, value in values.items()}
    return {"measure": name, "with": rounded[True], "without": rounded[False], "num_answers": len(pairs[True])}


def _faults(annotator: Annotator, outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Class of fault -> its last reason; `unreadable`: what is wrong with most of the answers that cannot be read."""
    attempts = [item for outcome in outcomes for item in (*outcome.attempts, outcome.review)]
    unreadable = Counter(str(item["detail"]) for item in attempts if "detail" in item)
    return annotator.faults | ({"unreadable": unreadable.most_common(1)[0][0]} if unreadable else {})


def _tables_and_annotator(
    job: Job, settings: SekeSettings, teachers: Teachers | None
) -> tuple[FacialPriors, Annotator]:
    priors = facial_priors(settings.priors)
    if teachers is not None:
        return priors, TeacherAnnotator(teachers, settings, priors)
    return priors, ChatAnnotator(job, settings) if job.chat is not None else PriorAnnotator(priors)


def _estimate_the_rest(
    cases: Sequence[Case], annotator: Annotator, settings: SekeSettings, priors: FacialPriors, label: str = "faces"
) -> None:
    """Estimate the highest number of further requests; a dry run cannot know how often answers disagree."""
    if annotator.kind != "model":
        return
    views = [plan_views(case, settings, priors, annotator.num_wordings) for case in cases]

    def ask(samples: range, title: str) -> None:
        if questions := [
            question(plan, case, sample, priors) for sample in samples for case, plan in zip(cases, views)
        ]:
            annotator.ask(f"{label}, {title}", questions)

    last = settings.num_most
    ask(range(settings.num_first, last), "further answers at most")
    if settings.verification in ("always", "doubtful"):
        guess, reviews = PriorAnnotator(priors).guess, []
        for case in cases:
            if settings.review == "blind":
                reviews.append(blind_question(case, priors))
                continue
            proposal = (guess(case) or Levels("neutral", 0.0, 0.0)).only(case.wanted)
            text = review_text(case, proposal, (), (), priors, settings.prior)
            reviews.append(Question(case, text, proposal=proposal))
        annotator.ask(f"{label}, reviews at most", reviews)
    ask(range(last, last + settings.resamples * settings.num_first), "resampled answers at most")


def with_levels(outcome: Outcome, annotator: str) -> EmotionRecord:
    """The record with the kept levels, and with their marks in `extra`.

    `seke_<level>_by` is `person`, the program of an imported table, the name of the annotator (of teachers: of those
    that answered), or two of them joined by ` + ` (units that people did not code);
    `seke_given` lists every generated value, so the next run recognises them; `seke_<level>_uncertainty` comes from
    `Estimate` and is absent after a single answer; `docs/seke.md` lists the other marks. Intensities of generated
    units are 1 and 0.
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
    who = [name for attempt in outcome.attempts if "levels" in attempt for name in attempt.get("by", ())]
    annotator = " + ".join(dict.fromkeys(who)) or annotator
    for level in LEVELS:
        parts = [sources[level]] if level in sources else []
        parts += [annotator] if level in outcome.case.wanted and levels.has_any(level) else []
        if parts:
            marks[f"{level}_by"] = " + ".join(parts)
    if estimate is not None:
        marks |= {f"{name}_uncertainty": round(value, 4) for name, value in estimate.summary().items()}
        units = {item: value for item in outcome.case.items if level_of(item) == "units"
                 and (value := estimate.total(item)) is not None}  # fmt: skip
        words = {
            "unit_uncertainties": _in_words({item.removeprefix("unit:"): value for item, value in units.items()}),
            "within_prompts": _in_words(estimate.summary("within")),
            "between_prompts": _in_words(estimate.summary("between")),
            "prior_influence": _in_words(estimate.influence_summary()),
            "reasons": " ".join(f"{item}:{reason}" for item, reason in outcome.reasons.items()),
        }
        marks |= {name: text for name, text in words.items() if text}
        if "verdicts" in outcome.review:
            marks["reviewed_by"] = outcome.review["by"]
        marks["num_answers"] = estimate.num_answers
        verdicts = Counter((_group(item), verdict) for item, verdict in outcome.verdicts.items())
        marks["verdicts"] = " ".join(
            f"{group}:{verdict}" + (f"*{count}" if group == "unit" else "")
            for (group, verdict), count in verdicts.items()
        )
    extra = {**record.extra, **{f"{MARK}{name}": value for name, value in marks.items()}}
    return record.model_copy(update={**changes, "extra": extra})


def _in_words(values: Mapping[str, float]) -> str:
    return " ".join(f"{name}:{value:.4g}" for name, value in values.items())


def story(outcome: Outcome, annotator: str) -> dict[str, Any]:
    """All details of a face, for JSON."""
    estimate = outcome.estimate
    row: dict[str, Any] = {
        "record": outcome.case.record.id,
        "annotator": annotator,
        "known": outcome.case.known.plain(),
        "wanted": list(outcome.case.wanted),
        "views": [view.plain() for view in outcome.views],
        "attempts": outcome.attempts,
    }
    if estimate is not None:
        row["aggregate"] = estimate.levels.plain()
        row["uncertainty"] = {item: _rounded(vars(spread)) for item, spread in estimate.spreads.items()}
        row["prior_influence"] = _rounded(estimate.prior_influence)
    row["findings"] = [{"rule": item.rule, "items": list(item.items), "text": item.text} for item in outcome.findings]
    row |= {"review": outcome.review, "verdicts": outcome.verdicts, "discarded": outcome.reasons}
    row |= {"levels": outcome.levels.plain(), "num_resamples": outcome.num_resamples, "num_calls": outcome.num_calls}
    return row


def _rounded(values: Mapping[str, float | None]) -> dict[str, float]:
    """Without values that are missing."""
    return {name: round(value, 4) for name, value in values.items() if value is not None}
