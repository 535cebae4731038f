"""Explanations in three parts, composed from the levels without a model.

The observation names the active units with their strength, the interpretation says what they mean together, and the
conclusion names the expression. ExpLLM (Lan et al., 2024) lets a chat model write such texts from intensities.
"""

from __future__ import annotations

from collections.abc import Mapping

from lavis_emovit.emotion.facial import FACIAL_UNITS, FacialPriors
from lavis_emovit.emotion.facial_knowledge import Evidence, infer

# The five grades of FACS, A to E.
_STRENGTHS = ("shows a trace", "is slight", "is marked", "is strong", "is at its maximum")
_TYPICAL = 0.5  # probability from which a unit is called typical of an expression
# Probability of the expression below which its units do not explain it, and from which they are called clear.
_UNEXPLAINED, _CLEAR = 0.1, 0.8
_NEUTRAL_AXIS = 0.25  # valence and arousal up to this value are called neither high nor low


def strength(intensity: float) -> str:
    """An intensity from 0 to 5 in words, by the nearest grade of FACS."""
    return _STRENGTHS[min(5, max(1, round(intensity))) - 1]


def describe_units(active: Mapping[int, float | None], priors: FacialPriors) -> list[str]:
    """A sentence for each active unit, the strongest first: its name, strength, and the expressions it is typical of.

    Args:
        active: unit -> intensity from 0 to 5, or None without one.
    """
    sentences = []
    for unit, intensity in sorted(active.items(), key=lambda item: (-(item[1] or 0.0), item[0])):
        shares = {name: prior.probability(unit) for name, prior in priors.expressions.items()}
        typical = sorted((name for name in shares if shares[name] >= _TYPICAL), key=lambda name: -shares[name])[:2]
        how = strength(intensity) if intensity is not None else "is present"
        reason = f", typical of {' and '.join(typical)}" if typical else ""
        sentences.append(f"AU{unit}, the {priors.unit_name(unit)}, {how}{reason}.")
    return sentences


def explain(evidence: Evidence, priors: FacialPriors) -> str | None:
    """Observation, interpretation and conclusion, from an expression and units; valence and arousal if they are known.

    None without an expression or units, or if the units make the expression unlikely: the text would argue for a
    conclusion that does not follow.
    """
    expression = evidence.expression
    units = {unit: is_active for unit, is_active in evidence.units.items() if unit in FACIAL_UNITS}
    if expression is None or not units:
        return None
    beliefs = infer(priors, Evidence(units=units, intensities=evidence.intensities))
    if beliefs.expressions.get(expression, 0.0) < _UNEXPLAINED:
        return None
    active = {unit: evidence.intensities.get(unit) for unit, is_active in units.items() if is_active}
    observed = describe_units(active, priors) or ["No action unit is active; the face is at rest."]
    first, second = beliefs.likeliest()[:2]
    names = [f"AU{unit}" for unit in sorted(active)] or ["The relaxed muscles"]
    named = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    if first[0] != expression:
        meaning = f"{named} would also fit {first[0]}, but the face as a whole shows {expression}."
    elif first[1] >= _CLEAR:
        meaning = f"{named} clearly point to {expression}."
    else:
        meaning = f"{named} point to {expression} rather than {second[0]}."
    parts = [f"Observation: {' '.join(observed)}", f"Interpretation: {meaning}{_feeling(evidence)}"]
    return "\n".join([*parts, f"Conclusion: the expression is {expression}."])


def _feeling(evidence: Evidence) -> str:
    if evidence.valence is None or evidence.arousal is None:
        return ""
    valence = _side(evidence.valence, "pleasant", "unpleasant", "neither pleasant nor unpleasant")
    arousal = _side(evidence.arousal, "aroused", "calm", "moderately aroused")
    return f" The person seems to feel {valence} and {arousal}."


def _side(value: float, high: str, low: str, between: str) -> str:
    return high if value > _NEUTRAL_AXIS else low if value < -_NEUTRAL_AXIS else between
