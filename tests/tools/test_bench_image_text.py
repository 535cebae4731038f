"""`tools/bench/image_text.py` at a tiny size: all cases of ours and the scoring run without TRL, counts and ratios are
those worked out by hand, sides that compute something else are refused; with TRL where it is installed. The committed
result keeps the promises, and its figures are those of the page."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("bench_image_text", ROOT / "tools" / "bench" / "image_text.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_run_at_a_tiny_size_without_trl(tool, tmp_path, capsys):
    out = tmp_path / "result.json"
    options = ["--shapes", "tiny", "--rounds", "1", "--cases", "0", "--trl-python", sys.executable]
    has_trl = importlib.util.find_spec("trl") is not None
    if has_trl:
        options = options[:-2]
    assert tool.main([*options, "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    (row,) = result["training"].values()
    assert "TRL" in result["trl_not_measured"]
    assert row["pairs"] == 8 and row["image"] == {"tokens": 4, "patches": 5}
    assert list(row["seconds"]) == ["ours"] and len(row["seconds"]["ours"]) == 1
    assert row["ran_over"]["ours"]["images"] == 2
    assert row["memory"]["ours"]["peak_bytes"] > row["memory"]["ours"]["after_loading_bytes"] > 0
    assert {"command", "commit", "versions", "machine", "date"} <= set(result)
    if result["scoring"]["before_not_measured"] is None:
        assert result["scoring"]["largest_score_difference"] < 1e-4
        assert result["scoring"]["ratio"] > 1
    assert "TRL was not measured: " in capsys.readouterr().out
    # Other measurements of the same shapes stay.
    kept = tool.earlier(out, "tiny")
    assert kept == {key: result[key] for key in ("training", "scoring")}
    assert tool.earlier(out, "100m") == tool.earlier(tmp_path / "none", "tiny") == {"training": {}, "scoring": None}


@pytest.mark.skipif("EMOVIT_TRL_PYTHON" not in os.environ, reason="EMOVIT_TRL_PYTHON names no Python that has TRL")
@pytest.mark.parametrize("reads_all", [False, True])
def test_both_sides_compute_the_same(tool, tmp_path, reads_all):
    bench = tool.Bench(tmp_path, "tiny", 1, os.environ["EMOVIT_TRL_PYTHON"])
    row = bench.train(tool.Case("qwen25vl", 4, 2, trl_reads_all=reads_all))
    ours, theirs = (row["ran_over"][side] for side in ("ours", "trl"))
    assert row["largest_relative_loss_difference"] < 1e-4
    assert ours["supervised"] == theirs["supervised"]
    assert (ours["images"], theirs["images"]) == (2, 8)
    assert row["share_of_positions_saved"] == 1 - ours["positions"] / theirs["positions"] > 0


def _side(losses, positions, trained=5, **more):
    rows = [
        {"loss": loss, "supervised": 7, "positions": positions, "images": 1, "seconds": 2.0, "peak_bytes": 9, **more}
        for loss in losses
    ]
    return {"loaded": {"trained": trained, "memory_bytes": 4, "image": {"tokens": 4, "patches": 5}}, "steps": rows}


def test_figures_by_hand(tool):
    found = {"ours": _side([1.0, 2.0], 10), "trl": _side([1.0, 2.0], 30, real=24, seconds=6.0, images=4, peak_bytes=14)}
    found["trl"]["loaded"] |= {"version": "1", "settings": {}}
    parameters = {"language_model": 100, "head": 20, "projector": 3, "vision_encoder": 11}
    row = tool.training_figures(found, parameters, tool.Case("llava15", 4, 2))
    assert row["ratio"] == row["ratio_lowest"] == 3
    assert row["pairs_per_s"] == {"ours": 4, "trl": 8 / 6}
    assert row["memory_ratio"] == 9 / 14 and row["memory_ratio_above_loading"] == 5 / 10
    assert row["share_of_positions_saved"] == 1 - 10 / 30
    assert row["share_of_padding_in_trl"] == pytest.approx(1 - 24 / 30)
    ours = 3 * 100 * 10 + 3 * 20 * 7 + 3 * 3 * 4 + 11 * 5
    theirs = 3 * 100 * 30 + 3 * 20 * 7 + (3 * 3 * 4 + 11 * 5) * 4
    assert row["limit"] == pytest.approx(theirs / ours)
    row = tool.training_figures(found, parameters, tool.Case("llava15", 4, 2, trl_reads_all=True))
    assert row["limit"] == pytest.approx((theirs + 3 * 20 * (30 - 7)) / ours)


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        (_side([1.0, 2.1], 10), "other losses"),
        (_side([1.0, 2.0], 10, supervised=8), "other losses"),
        (_side([1.0, 2.0], 10, trained=6), "train other parameters"),
    ],
)
def test_sides_that_differ_are_refused(tool, tmp_path, monkeypatch, theirs, message):
    bench = tool.Bench(tmp_path, "tiny", 1, None)
    monkeypatch.setattr(bench, "_take_turns", lambda work, sides: {"ours": _side([1.0, 2.0], 10), "trl": theirs})
    with pytest.raises(SystemExit, match=message):
        bench.train(tool.Case("llava15", 1, 1))


def test_a_side_that_ends_is_an_error(tool, tmp_path):
    (tmp_path / "work.json").write_text("{}")
    with (
        tool.Side("unknown", sys.executable, ROOT, tmp_path / "work.json") as side,
        pytest.raises(SystemExit, match=r"(?s)the side unknown ended:.*KeyError: 'unknown'"),
    ):
        side.read()


def test_texts_are_of_the_mix(tool, tmp_path):
    model = tool.BenchModel(tmp_path / "qwen25vl", "qwen25vl", "tiny")
    steps = [model.step(random.Random(number), 4, 5) for number in range(20)]
    kinds = [kind for step in steps for kind in step["kinds"]]
    assert kinds.count("conversation") == 200 and kinds.count("complex") == 100
    assert 80 <= kinds.count("categorical") <= 98 and kinds.count("categorical") + kinds.count("reasoning") == 100
    for step in steps:
        assert step["image_index"] == [number for number in range(5) for _ in range(4)]
        for kind, question, answer in zip(step["kinds"], step["questions"], step["answers"]):
            (shortest, longest), (least, most) = tool.LENGTHS[kind]
            assert shortest <= len(question.split()) <= longest
            assert least <= len(answer.split()) <= most
    assert len({path for step in steps for path in step["images"]}) == 100


def test_a_commit_that_git_does_not_have_is_named(tool, tmp_path):
    assert tool.extract("0" * 40, tmp_path / "before") == f"Git has no commit {'0' * 40} here"


def test_committed_result_keeps_the_promises(tool):
    result = json.loads((ROOT / "benchmarks" / "image_text.json").read_text())
    rows, page = result["training"], (ROOT / "docs" / "speed.md").read_text()
    assert result["trl_not_measured"] is None
    llava, qwen = (rows[f"{family}, 4 questions per image"] for family in ("llava15", "qwen25vl"))
    assert llava["ratio"] >= 3 and llava["memory_ratio"] <= 0.6
    assert qwen["ratio"] >= 2.5
    assert rows["llava15, 1 question per image"]["ratio"] >= 1
    assert result["scoring"]["ratio"] >= 6
    for row in rows.values():
        assert 85e6 < row["parameters"]["total"] < 105e6 and row["image"]["tokens"] == 576
        assert row["largest_relative_loss_difference"] < 1e-4
        assert tool.training_row(row) in page
