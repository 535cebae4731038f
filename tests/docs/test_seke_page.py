"""docs/seke.md is correct.

- Its numbers are those of the benchmark, and its claims about them are true.
- Its settings file is accepted, and every setting in it exists.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from lavis_emovit.generation.seke.settings import LEVELS, SekeSettings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "seke.md").read_text(encoding="utf-8")
RESULT = json.loads((ROOT / "benchmarks" / "seke.json").read_text(encoding="utf-8"))
SIMULATED = json.loads((ROOT / "benchmarks" / "seke_simulated.json").read_text(encoding="utf-8"))
TABLES = ("errors partly shared (default)", "errors mostly of the prompt", "errors mostly of the face")


def table_rows(name):
    """The rows of the page, from the result."""
    for method, found in SIMULATED["annotators"][name]["methods"].items():
        cells = [method, f"{found['calls_per_face']:.1f}"]
        for level in LEVELS:
            row = found["levels"][level]
            cells.append(f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f}), {row['kept']:.0%}")
        yield "| " + " | ".join(cells) + " |"


def test_numbers():
    assert f"{SIMULATED['num_faces']} faces" in PAGE
    missing = [row for name in TABLES[:1] for row in table_rows(name) if row not in PAGE]
    assert not missing


def test_claims():
    default, of_prompt, of_face = (SIMULATED["annotators"][name]["methods"] for name in TABLES)

    def value(methods, method, level, key="value"):
        return methods[method]["levels"][level][key]

    everything, one_prompt = "all parts (default)", "one prompt for all answers"
    for level in LEVELS:
        # Several answers are better than one, unless the answers share their errors.
        assert value(default, "no rules and no review", level, "low") > value(
            default, "one answer, nothing else", level
        )
        # Views separate errors of the prompt.
        assert value(of_prompt, everything, level, "low") > value(of_prompt, one_prompt, level)
        assert value(of_face, everything, level) - value(of_face, one_prompt, level) < 0.01
        # The tables change the values by less than the interval; wrong ones cost faces.
        assert value(default, everything, level, "low") < value(default, "no tables", level)
        assert value(default, "wrong tables", level, "kept") < value(default, everything, level, "kept") - 0.02
        assert value(default, everything, level, "auroc") > 0.7
        # A blind reviewer is right where all answers are wrong, and keeps less; asking again changes little.
        blind, again = "blind reviewer", "rejected items resampled"
        assert value(of_face, blind, level) > value(of_face, everything, level)
        assert value(of_face, blind, level, "kept") < value(of_face, everything, level, "kept") - 0.05
        assert value(default, again, level, "low") < value(default, everything, level)


def test_settings():
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    assert SekeSettings(**yaml.safe_load(block)["seke"]).n_max == 8
    named = set(re.findall(r"`(n0|n_max|num_views|vary|enough|too_much)`", PAGE))
    assert named == {"n0", "n_max", "num_views", "vary", "enough", "too_much"} <= set(SekeSettings.model_fields)


def cell(figure):
    return "-" if figure is None else "{value:.2f} ({low:.2f} to {high:.2f})".format(**figure)


@pytest.mark.parametrize("level", ["expression", "units", "valence", "arousal"])
def test_figures_with_teachers(level):
    methods = RESULT["levels"][level]
    # All parts, and each of them switched off: knowledge, adaptive samples, review, several teachers.
    assert {"all parts", "no knowledge", "fixed samples", "no review", "one teacher"} < set(methods)
    for name, found in methods.items():
        costs = [found["calls_per_record"], found["seconds_per_record"]]
        cells = [name, *(f"{value:.2f}" for value in costs), cell(found["accuracy"])]
        if level in ("valence", "arousal"):
            cells.append(cell(found.get("ccc")))
        cells += [cell(found[key]) for key in ("coverage", "auroc", "ece")]
        assert f"| {' | '.join(cells)} |" in PAGE


def test_figures_of_the_strength_of_units():
    for teachers, found in RESULT["unit_strength"].items():
        values = [found[name] for name in ("AU12", "AU25", "AU6")]
        assert f"| {' | '.join([teachers, *map(cell, values)])} |" in PAGE
        assert values[0]["value"] > values[1]["value"] > values[2]["value"] > 0
        assert values[0]["low"] > 0.5


def test_what_was_measured():
    numbers = RESULT["num_images"]
    assert f"{numbers['london_faces']} London Faces ({RESULT['num_people']} people" in PAGE
    assert f"{numbers['oasis_faces']} of the {numbers['oasis']} photographs in OASIS" in PAGE
    seconds = RESULT["seconds_per_face"]
    assert ", ".join(f"`{name}` {seconds[name]:.2f}" for name in seconds) in PAGE
    assert "People coded no action unit of any of these faces" in PAGE


def test_claims_about_teachers():
    def value(level, method, key="accuracy"):
        return RESULT["levels"][level][method][key]["value"]

    def low(level, method, key="accuracy"):
        return RESULT["levels"][level][method][key]["low"]

    everything, faces = "all parts", RESULT["levels"]["expression"]
    # A review costs right labels and does not raise the accuracy; adaptive samples cost less at equal accuracy.
    assert value("expression", everything) <= value("expression", "no review")
    assert value("expression", everything, "right") < low("expression", "no review", "right")
    calls = [faces[name]["calls_per_record"] for name in (everything, "fixed samples")]
    assert "{:.2f} instead of {:.2f} teachers".format(*calls) in PAGE
    assert value("expression", everything) == value("expression", "fixed samples")
    assert value("expression", "one teacher") >= value("expression", everything)
    # Knowledge calibrates, and another level helps.
    eces = [value("expression", name, "ece") for name in (everything, "no knowledge")]
    assert "{:.2f} instead of {:.2f}".format(*eces) in PAGE
    assert faces[everything]["ece"]["high"] < low("expression", "no knowledge", "ece")
    assert faces["packaged tables"]["accuracy"] == faces["no knowledge"]["accuracy"]
    known = "moved landmarks known"
    assert low("expression", known) > faces[everything]["accuracy"]["high"]
    assert f"{value('expression', known):.2f} instead of {value('expression', everything):.2f}" in PAGE
    assert low("expression", known, "auroc") > value("expression", everything, "auroc")
    assert not any(found["num_fitted_thresholds"] for found in faces.values())
    # Units: more is right than if no unit were active; people's expressions are no better than the teachers'.
    moved, number = RESULT["num_moved"], RESULT["levels"]["units"][everything]["num_values"]
    assert f"{value('units', 'nothing is discarded'):.2f} of all units are right" in PAGE
    assert f"{1 - sum(moved.values()) / number:.2f} if none were called active" in PAGE
    assert low("units", "nothing is discarded") > 1 - sum(moved.values()) / number
    assert abs(value("units", "expression known") - value("units", everything)) < 0.02
    assert value("units", "packaged tables", "ece") < value("units", everything, "ece")
    # Valence of kept faces follows the rating, arousal does not.
    for axis in ("valence", "arousal"):
        for name, found in RESULT["levels"][axis].items():
            if found.get("ccc"):
                assert (found["ccc"]["low"] > 0) <= (axis == "valence"), name
    assert low("valence", everything, "ccc") > 0 > low("valence", "nothing is discarded", "ccc")
    assert value("valence", "tables of the London Faces", "ccc") < value("valence", everything, "ccc")
