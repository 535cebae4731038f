"""The page about teachers.

Properties:
- its figures are those of the benchmark's result;
- it names every teacher with its version, and every status that the code gives.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

from lavis_emovit.teachers import choosing
from lavis_emovit.teachers.catalogue import TEACHERS
from lavis_emovit.teachers.proxies import PROXIES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "teachers.md").read_text(encoding="utf-8")
RESULT = json.loads((ROOT / "benchmarks" / "teachers.json").read_text(encoding="utf-8"))


def _cell(figure):
    return "-" if figure is None else f"{figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})"


def test_the_ratio_of_workers_is_that_of_the_benchmark():
    engines = json.loads((ROOT / "benchmarks" / "engines.json").read_text(encoding="utf-8"))
    ratio = engines["results"]["face-api"]["two_workers_to_one"]["median"]
    assert f"`face-api` looks at {ratio:.2f} times as many images" in " ".join(PAGE.split())


def test_figures_are_those_of_the_benchmark():
    rows = re.findall(r"^\| ((?:face-api|human|fer)[^|]*) \| (\d.*) \|$", PAGE, re.MULTILINE)
    assert len(rows) == len(RESULT["results"]) == 7
    assert f"and {RESULT['num_wrong_in_all']} photographs are wrong in all three" in PAGE
    for found in RESULT["answers"].values():
        errors = sum(count for truth, named in found.items() for label, count in named.items() if label != truth)
        assert found["happiness"]["neutral"] > 0.5 * errors
    for name, cells in rows:
        found = RESULT["results"][name]
        names = ("accuracy", "accuracy_of_two", "entropy_auroc", "mutual_information_auroc")
        assert cells.split(" | ") == [str(found["num_found"]), *(_cell(found.get(key)) for key in names)]


def test_figures_of_the_proxies_are_those_of_the_benchmark():
    proxies = RESULT["proxies"]
    assert f"| proxy | {' | '.join(proxies)} |" in PAGE and list(proxies["human"]) == list(PROXIES)
    for name in PROXIES:
        assert f"| `proxy_{name}` | {' | '.join(_cell(found[name]) for found in proxies.values())} |" in PAGE


def test_all_teachers_and_statuses_are_named():
    for teacher in TEACHERS.values():
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{teacher.name}` |"))
        assert teacher.version in row and teacher.gives in row
        assert teacher.title in RESULT["statuses"]
    statuses = set(re.findall(r'return \(?"(\w+)"', inspect.getsource(choosing.choose_face))) | {"ok", "no_expression"}
    assert len(statuses) == 6
    for status in (*statuses, "unreadable", "error", "timeout", "crash"):
        assert re.search(rf"^\|.*`{status}`.*\|", PAGE, re.MULTILINE), status
