"""Metrics of other packages and of users, with the example of docs/metrics.md as it is printed.

Properties: an installed package adds its metric to `emovit report`, with counts as whole numbers and intervals beside
their numbers, also in table.md; a report without the package names what it lacks; nan is null in metrics.json, with a
warning, and a dash in tables; a metric that raises, and one whose name is taken, end the command with a message that
names the metric, its module, the model and the benchmark; the names of this package cannot be taken.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from report_page import page_of
from suite_folder import make_suite

from lavis_emovit.errors import ConfigError, DataError, UserError
from lavis_emovit.evaluation.metrics import Metric, register_metric, registry
from lavis_emovit.evaluation.metrics.registry import metrics_of
from lavis_emovit.evaluation.report.folder import read_folder
from lavis_emovit.evaluation.report.page import write_report
from lavis_emovit.evaluation.report.summary_tables import markdown
from lavis_emovit.evaluation.summaries import benchmark_summary

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
_, CODE = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
(ENTRY_POINT,) = re.findall(r'```toml\n\[project.entry-points."lavis.plugins"\]\n(\w+) = "(\w+)"\n```', PAGE)


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    metrics_of("emotion")
    monkeypatch.setattr(registry, "_METRICS", dict(registry._METRICS))
    monkeypatch.setattr(registry, "_REFUSED", [])


def install(folder: Path, code: str) -> None:
    """An installed package with the module and the entry point of the page."""
    name, module = ENTRY_POINT
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / f"{module}.py").write_text(code)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[lavis.plugins]\n{name} = {module}\n")


def report(package: Path, suite: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """`emovit report` in a process that has the package installed."""
    return subprocess.run(
        [sys.executable, "-m", "lavis_emovit.cli.main", "report", str(suite)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (package, ROOT))), **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def add(measure, name: str = "added") -> None:
    register_metric(Metric(name, kinds=("emotion",), measure=measure))


def scenes(folder: Path):
    return read_folder(make_suite(folder)).benchmarks[0]


def test_an_installed_package_adds_its_metric_to_the_report(tmp_path):
    install(tmp_path / "package", CODE)
    suite = make_suite(tmp_path / "suite")
    done = report(tmp_path / "package", suite)
    assert done.returncode == 0 and not done.stderr, done.stderr
    page = page_of(suite / "report.html")
    (table,) = (table for table in page.tables if "answer length: num answers" in table[0])
    assert [head.removeprefix("answer length: ") for head in table[0][1:]] == ["num answers", "mean words", "one word"]
    rows = {row[0]: row[1:] for row in table[1:]}
    assert rows["tiny (generation)"][:2] == ["60", "3.000"]
    assert re.fullmatch(r"0\.000 ?0\.000 to 0\.0\d\d", rows["tiny (generation)"][2])
    assert set(rows["tiny (likelihood)"]) == {"\u2013"}


def test_a_report_without_the_package_says_so(tmp_path):
    install(tmp_path / "package", CODE)
    suite = make_suite(tmp_path / "suite")
    result = {"model": "tiny", "method": "generation", "num_without_truth": 0, "metrics": {"answer_length": {}}}
    (suite / "metrics.json").write_text(json.dumps({"benchmarks": {"scenes": {"results": [result]}}}))
    words = "metrics.json has metrics that no loaded package defines: answer_length."
    assert report(tmp_path / "package", suite, LAVIS_PLUGINS="0").returncode == 0
    assert words in page_of(suite / "report.html").text
    assert report(tmp_path / "package", suite).returncode == 0
    assert words not in page_of(suite / "report.html").text


def test_counts_and_intervals_in_the_tables(tmp_path):
    interval = {"low": 0.125, "high": 0.5, "level": 0.95}
    add(lambda measured: {"num_rows": np.int64(1200), "share": np.float32(0.25), "share_interval": interval})
    suite = make_suite(tmp_path / "suite")
    text = markdown(read_folder(suite).summary)
    assert "*scenes: other metrics*" in text and "affect: other metrics" not in text
    assert "| Model | added: num rows | added: share |\n" in text
    assert "| majority | 1,200 | 0.250 (0.125 to 0.500) |\n" in text
    page = page_of(write_report(suite))
    (table,) = (table for table in page.tables if "added: num rows" in table[0])
    assert table[0][1:] == ["added: num rows", "added: share"] and table[1][1] == "1,200"


def test_numbers_that_are_not_finite_are_null_with_a_warning(tmp_path, caplog):
    add(lambda measured: {"mean": float("nan"), "deep": [{"most": float("inf")}], "good": 0.5})
    benchmark = scenes(tmp_path / "suite")
    caplog.clear()
    summary = benchmark_summary(benchmark)
    json.dumps(summary, allow_nan=False)
    result = summary["results"][0]
    assert result["metrics"]["added"] == {"mean": None, "deep": [{"most": None}], "good": 0.5}
    assert result["headline"]["value"] is not None and "problem" not in result
    assert (
        "metric 'added' on tiny (likelihood) on scenes: NaN, Infinity becomes null in metrics.json" in caplog.messages
    )
    text = markdown({"suite": "trial", "benchmarks": {"scenes": summary}})
    assert "| added: mean | added: good |" in text and "| majority | \u2013 | 0.500 |" in text


def test_a_metric_that_raises_is_named(tmp_path):
    def broken(measured):
        return {}["oops"]

    def unfit(measured):
        raise DataError("no row has a depth")

    benchmark = scenes(tmp_path / "suite")
    add(unfit)
    assert benchmark_summary(benchmark)["results"][0]["problem"] == "metric 'added': no row has a depth"
    del registry._METRICS["added"]
    add(broken)
    words = rf"metric 'added' of {__name__} failed on tiny \(likelihood\) on scenes: KeyError: 'oops'\. Repair"
    with pytest.raises(UserError, match=words) as error:
        benchmark_summary(benchmark)
    assert isinstance(error.value.__cause__, KeyError)


def test_a_package_whose_metric_raises_ends_the_report(tmp_path):
    install(tmp_path / "package", CODE.replace("if not answers:", "if measured.rows[0].oops:"))
    done = report(tmp_path / "package", make_suite(tmp_path / "suite"))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "error: metric 'answer_length' of answer_length failed on tiny (likelihood) on scenes: Attrib" in done.stderr


@pytest.mark.parametrize("taken", ["classification", "explanations"])
def test_a_package_cannot_take_a_name_of_this_one(tmp_path, taken):
    install(tmp_path / "package", CODE.replace('"answer_length"', f'"{taken}"'))
    done = report(tmp_path / "package", make_suite(tmp_path / "suite"))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    owner = f"lavis_emovit.evaluation.metrics.{taken}"
    assert f"answer_length: a metric '{taken}' is registered already, by {owner}; choose another" in done.stderr


def test_a_refused_metric_ends_every_evaluation_but_not_a_notebook(tmp_path):
    def measure(measured):
        return None

    benchmark = scenes(tmp_path / "suite")
    measure.__module__ = "__main__"
    with pytest.raises(ConfigError, match="__main__: a metric 'levels' is registered already"):
        add(measure, "levels")
    assert benchmark_summary(benchmark)["results"]
    measure.__module__ = "lavis_emovit.evaluation.metrics.a_user"
    with pytest.raises(ConfigError):
        add(measure, "levels")
    words = r"metrics\.a_user: a metric 'levels' is registered already, by lavis_emovit\.evaluation\.metrics\.hierarchy"
    with pytest.raises(ConfigError, match=words):
        benchmark_summary(benchmark)
