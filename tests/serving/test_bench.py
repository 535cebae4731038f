"""`tools/bench/serving.py` against a server of its own: all loads are answered, rates and ratios are of their
latencies, and an answer that differs stops it."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import statistics
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool():
    path = ROOT / "tools" / "bench" / "serving.py"
    spec = importlib.util.spec_from_file_location("bench_serving", path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])
        spec.loader.exec_module(module)
    return module


def test_it_measures_all_loads(tool, serve, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool, "SIZE_PX", 96)
    monkeypatch.setattr(tool, "base_model", lambda location: "emovit_tiny")
    with serve(name="served") as small:

        @contextmanager
        def started(model, device):
            yield small.url, os.getpid()

        monkeypatch.setattr(tool, "started", started)
        out = tmp_path / "serving.json"
        assert tool.main(["--models", "RUN", "--rounds", "2", "--requests", "16", "--out", str(out)]) == 0
        assert small.served.counts["answered"] == (16 + 16 + 16) + 2 * (4 + 16 + 16)
    whole = json.loads(out.read_text())
    result = whole["models"]["emovit_tiny"]
    ratios = [one["clients"]["per_s"] / one["alone"]["per_s"] for one in result["rounds"]]
    assert result["rate_ratio"] == pytest.approx(statistics.median(ratios)) and len(ratios) == 2
    assert result["p95_ratio"] > 0 and f"{result['p95_ratio']:.2f} |\n" in capsys.readouterr().out
    for one in result["rounds"]:
        # One client has one request at a time.
        assert one["alone"]["processor_ms"] > 0
        assert one["alone"]["per_s"] * one["alone"]["p50_s"] < 1.6 and one["half"]["p50_s"] <= one["half"]["p95_s"]


def test_facts_are_those_of_the_latencies(tool):
    found = tool.facts([0.01 * number for number in range(101)], 4.0)
    assert found == pytest.approx({"requests": 101, "per_s": 25.25, "p50_s": 0.5, "p95_s": 0.95})


def test_an_answer_that_differs_stops_it(tool, serve, monkeypatch):
    bodies = tool.request_bodies(2)[:1]
    with serve(name="served") as small:
        asyncio.run(tool.measure(small.url, os.getpid(), bodies, 4, 1))
        changed = [{**bodies[0], "temperature": 2.0}]
        with pytest.raises(SystemExit, match="before"):
            asyncio.run(tool.measure(small.url, os.getpid(), changed, 8, 1))
