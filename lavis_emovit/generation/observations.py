"""Instructions from templates about what can be seen before the emotion is named: attributes, and the expression.

They are the first two levels of VidEmo's curriculum, from attributes over expressions to emotions (NeurIPS 2025). Their
answers are facts of the record, so no model is needed. The same record and seed give the same words.
"""

from __future__ import annotations

from collections.abc import Callable

from lavis_emovit.emotion.facial import FACIAL_UNITS, facial_priors
from lavis_emovit.emotion.questions import UNITS_QUESTIONS, chooser
from lavis_emovit.generation.change_texts import Topic, label_topics, unit_topics
from lavis_emovit.generation.facts import subject
from lavis_emovit.generation.offline import fact_topics
from lavis_emovit.records import EmotionRecord, Instruction, InstructionKind

_EXPRESSION_FACT = "facial_expression"


def attribute_instructions(record: EmotionRecord, *, seed: int = 0) -> list[Instruction]:
    """A question for each known attribute but the expression: place, things, action, light and colours."""
    topics = fact_topics(record)
    topics.pop(_EXPRESSION_FACT, None)
    return _written(record, "attribute", topics, seed)


def expression_instructions(record: EmotionRecord, *, seed: int = 0) -> list[Instruction]:
    """Questions about the face: its expression, its action units, and how both change over time, as far as known.

    Labels over time count as expressions where the labels are about faces or persons.
    """
    facts, choose = fact_topics(record), chooser("expression", record.id, seed)
    topics: dict[str, Topic] = {name: facts[name] for name in (_EXPRESSION_FACT,) if name in facts}
    units = record.active_units()
    if coded := [unit for unit in FACIAL_UNITS if unit in units]:
        name = facial_priors().unit_name
        names = {unit: f"AU{unit} ({name(unit)})" for unit in coded}
        listed = ", ".join(names.values())
        active = ", ".join(names[unit] for unit in coded if units[unit])
        questions = tuple(question.format(units=listed) for question in UNITS_QUESTIONS)
        topics["units"] = questions, f"{active}." if active else "None of them."
    over_time = [*(label_topics(record, choose) if subject(record) != "picture" else ()), *unit_topics(record)]
    topics |= {f"change-{number}": topic for number, topic in enumerate(over_time, start=1)}
    return _written(record, "expression", topics, seed)


# Kind of instruction -> the function that writes it.
OBSERVATIONS: dict[str, Callable[..., list[Instruction]]] = {
    "attribute": attribute_instructions,
    "expression": expression_instructions,
}


def _written(record: EmotionRecord, kind: InstructionKind, topics: dict[str, Topic], seed: int) -> list[Instruction]:
    shown = "picture" if record.clip is None else "clip"
    return [
        Instruction(
            kind=kind,
            question=chooser(f"{kind}/{name}", record.id, seed).choice(questions).replace("picture", shown),
            answer=answer,
            provenance=f"template:{kind}/{name}",
        )
        for name, (questions, answer) in topics.items()
    ]
