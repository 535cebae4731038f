"""Text of questions about a face: known levels, likely values from the tables, missing levels."""

from __future__ import annotations

from collections.abc import Sequence

from lavis_emovit.emotion.facial import FACIAL_UNITS, FacialPriors
from lavis_emovit.emotion.facial_knowledge import infer
from lavis_emovit.generation.seke.levels import PERSON, Case, Levels, evidence_of, sources_of
from lavis_emovit.generation.seke.rules import Finding, span

_MOST_LIKELY = 3
_OFTEN = 0.25  # a lower probability of a unit is not mentioned


def answer_text(case: Case, priors: FacialPriors, *, hinted: bool) -> str:
    """Question for the missing levels; `hinted` includes likely values from the tables."""
    return "\n\n".join([*_context(case, priors, hinted), _wanted(case, priors)])


def review_text(
    case: Case, proposal: Levels, findings: Sequence[Finding], doubts: Sequence[str], priors: FacialPriors, hinted: bool
) -> str:
    """Request for a review of proposed levels, with contradictions and with items on which the answers disagree."""
    parts = [*_context(case, priors, hinted), "Proposal:\n" + _in_words(proposal.only(case.wanted), priors)]
    notes = [finding.text for finding in findings] + [
        f"the answers disagree on {item.replace(':', ' ')}" for item in doubts
    ]
    if notes:
        parts.append("Noted as unusual:\n" + "\n".join(f"- {note}" for note in notes))
    return "\n\n".join([*parts, _wanted(case, priors)])


def hints(case: Case, priors: FacialPriors) -> list[str]:
    """Likely values from the tables, given the known levels."""
    known, lines = case.known, []
    if known.expression in priors.expressions:
        region = priors.region(known.expression)
        if "affect" in case.wanted:
            valence, arousal = span(region.valence), span(region.arousal)
            lines.append(f"{known.expression}: valence mostly {valence}, arousal mostly {arousal}")
        if "units" in case.wanted:
            listed = [
                "+".join(map(str, units)) or "no unit"
                for prototype in priors.expressions[known.expression].prototypes
                if (units := [unit for unit in prototype.units if unit in FACIAL_UNITS]) or not prototype.units
            ]
            lines.append(f"{known.expression}: in its full form units {' or '.join(dict.fromkeys(listed))}")
    if evidence := evidence_of(case, priors):
        beliefs = infer(priors, evidence, classes=case.classes, units=case.units)
        if "affect" in case.wanted and known.expression is None:
            axes = (("valence", beliefs.valence), ("arousal", beliefs.arousal))
            usual = (f"{axis} about {value.mean:.2f} (deviation {value.sd:.2f})" for axis, value in axes)
            lines.append(f"with these known levels: {', '.join(usual)}")
        if "units" in case.wanted:
            often = [item for item in sorted(beliefs.units.items(), key=lambda item: -item[1]) if item[1] >= _OFTEN]
            shares = ", ".join(f"{unit} ({probability:.2f})" for unit, probability in often)
            lines.append(f"with these known levels: frequent units with their probability: {shares or 'none'}")
    if "expression" not in case.wanted:
        return lines
    if known.units and (likely := priors.expressions_of_units(known.active(), known.units)[:_MOST_LIKELY]):
        scored = ", ".join(f"{name} ({score:.2f})" for name, score in likely)
        lines.append(f"expressions whose units agree best with the known ones (1 is full agreement): {scored}")
    if known.valence is not None and known.arousal is not None:
        near = ", ".join(priors.expressions_of_point(known.valence, known.arousal)[:_MOST_LIKELY])
        lines += [f"expressions that mostly lie at such a valence and arousal: {near}"] if near else []
    return lines


def _context(case: Case, priors: FacialPriors, hinted: bool) -> list[str]:
    known = _in_words(case.known, priors)
    sources = dict.fromkeys(sources_of(case.record, case.known).values())
    names = " and ".join("people" if name == PERSON else name for name in sources)
    parts = [f"Known, from {names}:\n{known}" if known else "Nothing is known yet."]
    if usual := hints(case, priors) if hinted else []:
        parts.append("Usual connections:\n" + "\n".join(f"- {line}" for line in usual))
    return parts


def _wanted(case: Case, priors: FacialPriors) -> str:
    lines = []
    if "expression" in case.wanted:
        lines.append(f"- expression: one of {', '.join(case.classes)}")
    if "affect" in case.wanted:
        lines += [f"- {axis}: a number from -1 to 1" for axis in case.axes]
    if "units" in case.wanted:
        listed = ", ".join(f"{unit} {priors.units[unit]}" for unit in case.units)
        lines.append(f"- units: the active ones of {listed}")
    return "Wanted:\n" + "\n".join(lines)


def _in_words(levels: Levels, priors: FacialPriors) -> str:
    lines = [] if levels.expression is None else [f"- expression: {levels.expression}"]
    point = {"valence": levels.valence, "arousal": levels.arousal}
    lines += [f"- {axis}: {value:.2f}" for axis, value in point.items() if value is not None]
    if levels.units:
        for name, is_active in (("active", True), ("not active", False)):
            listed = sorted(unit for unit, value in levels.units.items() if value is is_active)
            words = ", ".join(f"{unit} {priors.units.get(unit, '')}".strip() for unit in listed)
            lines.append(f"- units that are {name}: {words or 'none'}")
    return "\n".join(lines)
