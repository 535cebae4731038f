"""Instructions from coarse to fine: expression, valence and arousal, action units, and reasoning from units."""

from __future__ import annotations

import random
from collections.abc import Sequence

from lavis_emovit.emotion.facial import FACIAL_UNITS, FacialPriors
from lavis_emovit.emotion.questions import AFFECT_QUESTIONS, REASONING_QUESTIONS, STEPS_QUESTIONS, UNITS_QUESTIONS
from lavis_emovit.generation.categorical import affect_answer, categorical_instruction
from lavis_emovit.generation.seke.explanations import explain
from lavis_emovit.generation.seke.levels import MARK, PERSON, Case, Levels, evidence_of, known_levels
from lavis_emovit.generation.seke.rules import contradictions
from lavis_emovit.generation.seke.settings import SekeSettings
from lavis_emovit.records import EmotionRecord, Instruction, InstructionKind


def write_instructions(
    record: EmotionRecord, priors: FacialPriors, settings: SekeSettings, *, seed: int = 0
) -> list[Instruction]:
    """Instructions for the available levels; provenance contains the source of the level and its uncertainty.

    There is no reasoning if the tables indicate that the units fit another expression much better, and no explanation
    if they make the expression unlikely.
    """
    levels = known_levels(record, settings.active_from)
    rng = random.Random(f"seke/{seed}/{record.id}")
    found: list[Instruction] = []

    def add(name: str, level: str, kind: InstructionKind, questions: Sequence[str], answer: str, **words: str) -> None:
        number = rng.randrange(len(questions))
        provenance = f"seke:{name}/{number + 1} {origin(record, level)}"
        question = questions[number].format(**words)
        found.append(Instruction(kind=kind, question=question, answer=answer, provenance=provenance))

    if record.emotion is not None and record.label_set is not None:
        provenance = f"seke:expression/1 {origin(record, 'expression')}"
        found.append(categorical_instruction(record, seed=seed).model_copy(update={"provenance": provenance}))
    if levels.valence is not None and levels.arousal is not None:
        answer = affect_answer(levels.valence, levels.arousal)
        add("affect", "affect", "conversation", AFFECT_QUESTIONS["face"], answer)
    coded = [unit for unit in FACIAL_UNITS if unit in levels.units]
    active = [unit for unit in coded if levels.units[unit]]
    if coded:
        answer = ", ".join(f"AU{unit} ({priors.units[unit]})" for unit in active) + "." if active else "None of them."
        listed = ", ".join(f"AU{unit} ({priors.units[unit]})" for unit in coded)
        add("units", "units", "conversation", UNITS_QUESTIONS, answer, units=listed)
        if (reasons := _reasoning(levels, coded, active, priors, settings)) is not None:
            add("reasoning", "units", "reasoning", REASONING_QUESTIONS, reasons)
        text = explain(evidence_of(Case(record, levels, ()), priors), priors) if settings.explanations else None
        if text is not None:
            add("explanation", "units", "explanation", STEPS_QUESTIONS, text)
    return found


def origin(record: EmotionRecord, level: str) -> str:
    """Source of a level, with its uncertainty if it has one."""
    by = str(record.extra.get(f"{MARK}{level}_by", record.extra.get(f"{level}_by", PERSON)))
    axes = ("valence", "arousal") if level == "affect" else (level,)
    stated = [record.extra[key] for axis in axes if (key := f"{MARK}{axis}_uncertainty") in record.extra]
    return f"{by} uncertainty={max(map(float, stated)):g}" if stated else by


def _reasoning(
    levels: Levels, coded: list[int], active: list[int], priors: FacialPriors, settings: SekeSettings
) -> str | None:
    expression = levels.expression
    if expression is None or expression not in priors.expressions:
        return None
    if any(finding.rule == "prototype" for finding in contradictions(Levels(), levels, priors, settings)):
        return None
    names = [f"the {priors.units[unit]} (AU{unit})" for unit in active]
    listed = " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
    sentences = [f"Active are {listed}." if active else "No action unit is active; the face is at rest."]
    prototypes = [[unit for unit in item.units if unit in coded] for item in priors.expressions[expression].prototypes]
    best = max(prototypes, key=lambda units: 2 * len(set(units) & set(active)) / max(1, len(units) + len(active)))
    seen = [unit for unit in best if unit in active]
    absent = [unit for unit in best if unit not in active]
    if best and not absent:
        sentences.append(f"{_sum(best)} is the prototype of {expression}.")
    elif seen:
        sentences.append(f"Of {_sum(best)}, the prototype of {expression}, {_sum(seen)} can be seen.")
    elif best:
        sentences.append(f"The prototype of {expression}, {_sum(best)}, is not there; the face as a whole decides.")
    elif active:
        sentences.append("They are too slight for any expression.")
    if levels.valence is not None and levels.arousal is not None:
        is_outside = priors.region(expression).distance(levels.valence, levels.arousal)
        where = f"lie {'outside of ' if is_outside else ''}where {expression} mostly is"
        sentences.append(f"A valence of {levels.valence:.2f} and an arousal of {levels.arousal:.2f} {where}.")
    sentences.append(f"The expression is {expression}.")
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)


def _sum(units: list[int]) -> str:
    return "+".join(f"AU{unit}" for unit in units)
