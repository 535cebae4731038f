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
DEFAULT = "partly shared errors (default)"
METHODS = ("single answer", "3 answers", "5 answers", "8 answers", "adaptive", "adaptive, rules",
        "adaptive, review where doubtful", "adaptive, review always (default)", "default without priors")  # fmt: skip


def table_rows(name):
    """The rows of the page, from the result."""
    for method in METHODS:
        found = RESULT["annotators"][name]["ways"][method]
        cells = [method, f"{found['calls_per_face']:.1f}"]
        for level in LEVELS:
            row = found["levels"][level]
            cells.append(f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f}), {row['kept']:.0%}")
        yield "| " + " | ".join(cells) + " |"


def test_numbers():
    assert f"{RESULT['num_faces']} faces" in PAGE
    missing = [row for row in table_rows(DEFAULT) if row not in PAGE]
    assert not missing


def test_claims():
    for name, found in RESULT["annotators"].items():
        methods = found["ways"]
        votes, single = methods["5 answers"]["levels"], methods["5 answers"]["single_answers_of_the_same_calls"]
        if name in ("independent errors", DEFAULT):
            assert all(votes[level]["low"] > single[level] for level in LEVELS)
            ranked = methods["8 answers"]["levels"]
            assert all(ranked[level]["auroc"] > 0.6 for level in LEVELS)
        if name == "mostly shared errors":
            assert not all(votes[level]["low"] > single[level] for level in LEVELS)


def test_settings():
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    assert SekeSettings(**yaml.safe_load(block)["seke"]).n_max == 8
    named = set(re.findall(r"`(n0|n_max|enough|too_much)`", PAGE))
    assert named == {"n0", "n_max", "enough", "too_much"} <= set(SekeSettings.model_fields)
