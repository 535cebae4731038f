"""Find levels that contradict each other, by the tables of priors."""

from __future__ import annotations

from dataclasses import dataclass

from lavis_emovit.emotion.facial import FACIAL_UNITS, FacialPriors
from lavis_emovit.emotion.facial_knowledge import Evidence, infer
from lavis_emovit.generation.seke.levels import Levels
from lavis_emovit.generation.seke.settings import LevelName, SekeSettings


@dataclass(frozen=True)
class Finding:
    """Two levels that contradict each other."""

    # `region` (of valence and arousal), `prototype` (that of another expression fits much better), or
    # `units_and_affect` (such a valence or arousal is implausible with these units).
    rule: str
    levels: tuple[LevelName, ...]  # the generated ones of the two levels
    text: str  # description for the review and the trail


def contradictions(known: Levels, generated: Levels, priors: FacialPriors, settings: SekeSettings) -> list[Finding]:
    """Compare levels labelled by people and generated levels with the tables.

    Real faces vary around prototypes, so their rule applies only if another expression fits much better.
    """
    together = known.over(generated)
    return [*_of_expression(together, generated, priors, settings), *_of_units(together, generated, priors, settings)]


def _of_units(together: Levels, generated: Levels, priors: FacialPriors, settings: SekeSettings) -> list[Finding]:
    levels = _generated(generated, "affect", "units")
    coded = {unit: active for unit, active in together.units.items() if unit in FACIAL_UNITS}
    if not levels or not coded:
        return []
    found = []
    beliefs = infer(priors, Evidence(units=coded))
    for axis, usual in (("valence", beliefs.valence), ("arousal", beliefs.arousal)):
        value = getattr(together, axis)
        if value is not None and usual.plausibility(value) < settings.least_plausible:
            active = "+".join(map(str, together.active())) or "none"
            text = (
                f"{axis} {value:.2f} is implausible with the active units ({active}), which mostly have "
                f"{usual.mean:.2f} with a standard deviation of {usual.sd:.2f}"
            )
            found.append(Finding("units_and_affect", levels, text))
    return found


def _of_expression(together: Levels, generated: Levels, priors: FacialPriors, settings: SekeSettings) -> list[Finding]:
    expression, valence, arousal = together.expression, together.valence, together.arousal
    if expression is None or expression not in priors.expressions:
        return []
    found: list[Finding] = []
    levels = _generated(generated, "expression", "affect")
    if valence is not None and arousal is not None and levels:
        region = priors.region(expression)
        if region.distance(valence, arousal) > settings.region_tolerance:
            text = (
                f"valence {valence:.2f} and arousal {arousal:.2f} are unusual for {expression}, which mostly has "
                f"{span(region.valence)} and {span(region.arousal)}"
            )
            found.append(Finding("region", levels, text))
    levels = _generated(generated, "expression", "units")
    coded = [unit for unit in FACIAL_UNITS if unit in together.units]
    if levels and coded:
        agreement = priors.agreement(expression, together.active(), coded)
        others = [item for item in priors.expressions_of_units(together.active(), coded) if item[0] != expression]
        if others and others[0][1] > agreement + settings.units_margin:
            units = "+".join(map(str, together.active())) or "none"
            text = f"the active units ({units}) fit {others[0][0]} better than {expression}"
            found.append(Finding("prototype", levels, text))
    return found


def _generated(generated: Levels, *levels: LevelName) -> tuple[LevelName, ...]:
    return tuple(level for level in levels if generated.has(level))


def span(value: tuple[float, float]) -> str:
    return f"{value[0]:g} to {value[1]:g}"
