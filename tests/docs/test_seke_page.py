"""docs/seke.md is correct.

- Its numbers are those of the benchmark, and its claims about them are true.
- Its settings file is accepted, and every setting in it exists.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from lavis_emovit.generation.seke.settings import LEVELS, SekeSettings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "seke.md").read_text(encoding="utf-8")
RESULT = json.loads((ROOT / "benchmarks" / "seke.json").read_text(encoding="utf-8"))
TABLES = ("errors partly shared (default)", "errors mostly of the prompt", "errors mostly of the face")


def table_rows(name):
    """The rows of the page, from the result."""
    for method, found in RESULT["annotators"][name]["methods"].items():
        cells = [method, f"{found['calls_per_face']:.1f}"]
        for level in LEVELS:
            row = found["levels"][level]
            cells.append(f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f}), {row['kept']:.0%}")
        yield "| " + " | ".join(cells) + " |"


def test_numbers():
    assert f"{RESULT['num_faces']} faces" in PAGE
    missing = [row for name in TABLES[:1] for row in table_rows(name) if row not in PAGE]
    assert not missing


def test_claims():
    default, of_prompt, of_face = (RESULT["annotators"][name]["methods"] for name in TABLES)

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


def test_figures_with_teachers():
    result = json.loads((ROOT / "benchmarks" / "seke_teachers.json").read_text(encoding="utf-8"))
    methods = result["methods"]
    assert len(methods) == 15 and result["hidden"] == ["expression"] and result["num_images"] == 204
    for name, found in methods.items():
        cells = [name, f"{found['calls_per_record']:.2f}"]
        for key in ("accuracy", "coverage", "right", "auroc", "ece"):
            cells.append("{value:.2f} ({low:.2f} to {high:.2f})".format(**found[key]))
        assert f"| {' | '.join(cells)} |" in PAGE
    all_three, best = methods["all teachers (default)"], methods["face-api alone"]
    adaptive, reviewed = methods["another teacher while uncertain"], methods["face-api, human reviews"]
    assert (
        best["accuracy"]["value"] >= all_three["accuracy"]["value"]
        and best["auroc"]["value"] >= all_three["auroc"]["value"]
    )
    assert f"{adaptive['calls_per_record']:.2f} instead of {all_three['calls_per_record']:.0f} answers per face" in PAGE
    assert all_three["accuracy"]["low"] < adaptive["accuracy"]["value"] < all_three["accuracy"]["high"]
    assert methods["the same, fer first"]["accuracy"]["value"] < adaptive["accuracy"]["value"]
    tables = [methods[name]["accuracy"] for name in ("no tables", "packaged tables")]
    assert tables[0] == tables[1] and tables[0]["low"] < all_three["accuracy"]["value"] < tables[0]["high"]
    assert f"keeps {reviewed['coverage']['value']:.0%} of the faces" in PAGE
    assert best["accuracy"]["value"] < reviewed["accuracy"]["value"] < best["accuracy"]["high"]
    assert reviewed["right"]["value"] < best["right"]["value"]
    fitted = {name: found for name, found in methods.items() if "fitted reliability" in name}
    eces = [found["ece"]["value"] for name, found in methods.items() if name not in fitted]
    assert f"by {min(eces):.2f} to {max(eces):.2f} on average" in PAGE
    of_three, of_one = (fitted[name]["ece"] for name in ("fitted reliability", "face-api with fitted reliability"))
    assert f"all three miss it by {of_three['value']:.2f} and `face-api` alone by {of_one['value']:.2f}" in PAGE
    assert max(of_three["high"], of_one["high"]) < min(eces)
    assert fitted["fitted reliability"]["auroc"]["value"] >= best["auroc"]["value"]
    low, high = (all_three["accuracy"][end] for end in ("low", "high"))
    assert low < fitted["fitted reliability"]["accuracy"]["value"] < high
    assert f"this is {best['fitted_ece_median']:.2f} on the others" in PAGE
    assert not any(found["num_fitted_thresholds"] for found in methods.values())
    assert max(found["reasons"].get("uncertain", 0) for found in methods.values()) == 1


def test_figures_of_other_levels():
    result = json.loads((ROOT / "benchmarks" / "seke_levels.json").read_text(encoding="utf-8"))
    units, affect = result["units"], result["affect"]
    for teachers, found in units.items():
        smiles = [found[name]["among_smiles"] for name in ("AU12", "AU25", "AU6")]
        values = [*smiles, *(affect[teachers]["all"][axis]["ccc"] for axis in ("valence", "arousal"))]
        values.append(affect[teachers]["faces and poses"]["valence"]["ccc"])
        cells = ["{value:.2f} ({low:.2f} to {high:.2f})".format(**value) for value in values]
        assert f"| {' | '.join([teachers, *cells])} |" in PAGE
        assert smiles[0]["value"] > smiles[1]["value"] > smiles[2]["value"] > 0
        assert values[4]["low"] < 0 < values[4]["high"]
        assert values[3]["value"] < values[5]["value"]
    paired = [found[name]["paired"]["value"] for found in units.values() for name in ("AU12", "AU25", "AU6")]
    assert f"in {min(paired):.0%} to {max(paired):.0%} of the cases" in PAGE
    for part, rest in (("all", "photographs, and"), ("faces and poses", "whose theme")):
        faces = [found[part]["num_faces"] for found in affect.values()]
        assert f"{min(faces)} to {max(faces)} of" in PAGE and rest in PAGE
    assert f"of {result['num_images']['affect']} photographs" in PAGE
