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
