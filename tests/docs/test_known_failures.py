"""The table of known failures is true.

- it has every case once, in order, each with the outcome and at least one test;
- every test that it names exists;
- the README names its counts.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (ROOT / "docs" / "known_failures.md").read_text(encoding="utf-8").splitlines()
    if re.match(r"\| [A-D]\d", line)
]
NAMED = [re.findall(r"`([\w/]+\.py)::(\w+)`", tests) for _, _, tests in ROWS]
COUNTS = {"A": 18, "B": 20, "C": 10, "D": 20}


def test_every_case_is_there_once_with_a_test():
    assert [case for case, _, _ in ROWS] == [f"{of}{n}" for of, count in COUNTS.items() for n in range(1, count + 1)]
    assert all(outcome for _, outcome, _ in ROWS) and all(NAMED)


def test_every_named_test_exists():
    functions: dict[str, set[str]] = {}
    for file, name in {one for named in NAMED for one in named}:
        if file not in functions:
            tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
            functions[file] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in functions[file], f"{file} has no {name}"


def test_the_readme_names_the_counts():
    num_tests = len({one for named in NAMED for one in named})
    claim = f"{len(ROWS)} known failures of earlier versions, each with its right outcome in a test ({num_tests} tests)"
    assert claim in " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
