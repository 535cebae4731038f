"""Find levels that contradict each other, by the tables of priors."""

from __future__ import annotations

from dataclasses import dataclass

from lavis_emovit.emotion.facial import FACIAL_UNITS, FacialPriors
from lavis_emovit.emotion.facial_knowledge import Evidence, infer
from lavis_emovit.generation.seke.levels import EXPRESSION, Levels
from lavis_emovit.generation.seke.settings import SekeSettings


@dataclass(frozen=True)
class Finding:
    """Items of two levels that contradict each other."""

    # `region` (of valence and arousal), `prototype` (that of another expression fits much better), or
    # `units_and_affect` (such a valence or arousal is implausible with these units).
    rule: str
    items: tuple[str, ...]  # the generated ones among them
    text: str  # description for the review and the trail


def contradictions(known: Levels, generated: Levels, priors: FacialPriors, settings: SekeSettings) -> list[Finding]:
    """Compare levels labelled by people and generated levels with the tables.

    Real faces vary around prototypes, so their rule applies only if another expression fits much better.
    """
    together = known.over(generated)
    return [*_of_expression(together, generated, priors, settings), *_of_units(together, generated, priors, settings)]


def _of_units(together: Levels, generated: Levels, priors: FacialPriors, settings: SekeSettings) -> list[Finding]:
    coded = {unit: active for unit, active in together.units.items() if unit in FACIAL_UNITS}
    if not coded:
        return []
    found = []
    beliefs = infer(priors, Evidence(units=coded))
    for axis, usual in (("valence", beliefs.valence), ("arousal", beliefs.arousal)):
        value = getattr(together, axis)
        items = _generated(generated, axis, *_units_of(generated))
        if items and value is not None and usual.plausibility(value) < settings.least_plausible:
            active = "+".join(map(str, together.active())) or "none"
            text = (
                f"{axis} {value:.2f} is implausible with the active units ({active}), which mostly have "
                f"{usual.mean:.2f} with a standard deviation of {usual.sd:.2f}"
            )
            found.append(Finding("units_and_affect", items, text))
    return found


def _of_expression(together: Levels, generated: Levels, priors: FacialPriors, settings: SekeSettings) -> list[Finding]:
    expression, valence, arousal = together.expression, together.valence, together.arousal
    if expression is None or expression not in priors.expressions:
        return []
    found: list[Finding] = []
    region = priors.region(expression)
    outside = {
        axis: f"{axis} {value:.2f} (mostly {span((low, high))})"
        for axis, value, (low, high) in (("valence", valence, region.valence), ("arousal", arousal, region.arousal))
        if value is not None and max(low - value, value - high) > settings.region_tolerance
    }
    items = _generated(generated, EXPRESSION, *outside)
    if items and outside:
        found.append(Finding("region", items, f"unusual for {expression}: {' and '.join(outside.values())}"))
    items = _generated(generated, EXPRESSION, *_units_of(generated))
    coded = [unit for unit in FACIAL_UNITS if unit in together.units]
    if items and coded:
        agreement = priors.agreement(expression, together.active(), coded)
        others = [item for item in priors.expressions_of_units(together.active(), coded) if item[0] != expression]
        if others and others[0][1] > agreement + settings.units_margin:
            units = "+".join(map(str, together.active())) or "none"
            text = f"the active units ({units}) fit {others[0][0]} better than {expression}"
            found.append(Finding("prototype", items, text))
    return found


def _generated(generated: Levels, *items: str) -> tuple[str, ...]:
    return tuple(item for item in items if generated.get(item) is not None)


def _units_of(levels: Levels) -> list[str]:
    return [f"unit:{unit}" for unit in levels.units]


def span(value: tuple[float, float]) -> str:
    return f"{value[0]:g} to {value[1]:g}"
