"""docs/leaderboard.md.

- The page is what tools/write_leaderboard.py writes from benchmarks/leaderboard.yaml.
- Every number has a model, a protocol, a date, a status and a source; every recipe exists, and every dataset is
  registered. Figures were compared by hand with their sources.
- An incomplete number, an unknown reference, a path that a result does not have, what is no finite number, and a title
  that occurs twice are refused, all at once.
- A table keeps its columns whatever the texts contain.
"""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import write_leaderboard as tool

from lavis_emovit.errors import ConfigError
from lavis_emovit.settings import valid_settings

ROOT = Path(__file__).resolve().parents[2]
BOARD = tool.load()
PAGE = tool.PAGE.read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if re.match(r"\| (best published|EmoVIT|ours) \|", line)]
PUBLISHED = {"protocol": "p", "date": "2024-01", "model": "m", "value": 1.0, "source": "s", "status": "quoted"}


def test_the_page_is_what_the_tool_writes():
    assert tool.page(BOARD) == PAGE, "run python tools/write_leaderboard.py"


def test_every_number_is_complete():
    assert len(BOARD.benchmarks) > 25 and len(ROWS) > 35
    for row in ROWS:
        _, _, model, value, n, protocol, date, status, source, _ = (cell.strip() for cell in row.split("|"))
        assert (
            model and re.fullmatch(r"-?\d+\.\d+", value) and re.fullmatch(r"\d{4}-\d{2}", date) and protocol and source
        )
        assert status in ("quoted", "second hand", "inferred", tool.MEASURED)
        assert re.fullmatch(r"[\d,]+( \((inferred|second hand)\))?|unknown", n)


def test_recipes_and_datasets_exist():
    for benchmark in BOARD.benchmarks:
        assert benchmark.recipe is None or (ROOT / benchmark.recipe).is_file()
        if benchmark.dataset is not None:
            assert (ROOT / "lavis_configs" / "datasets" / benchmark.dataset.name / "defaults.yaml").is_file()


def test_the_overview_has_the_numbers_of_the_sections():
    line = next(line for line in PAGE.splitlines() if line.startswith("| Emotion6, 6 emotions |"))
    assert line == "| Emotion6, 6 emotions | accuracy, % | 77.27 | TinyEmo 3.21B | 57.81 | 74.9 |"
    assert sum(f"| {one.title} |" in PAGE for one in BOARD.benchmarks) == len(BOARD.benchmarks)


@pytest.mark.parametrize(
    ("title", "cells"),
    [
        ("EmoSet, 8 emotions", ["| best published | TinyEmo 1.53B | 83.92 |", "| EmoVIT | EmoVIT | 83.36 |"]),
        ("EEmo-Bench, perception", ["| best published | GPT-4o | 65.31 |"]),
        ("ArtPhoto, 8 emotions, all images", ["| best published | EmoCaliber | 41.94 | 806 |"]),
        ("FABA-Bench, action units", ["| best published | EmoLA | 91.5 | 325 |"]),
        ("London faces, neutral or happy", ["| ours | emovit_small, tuned | 91.67 | 52 |"]),
    ],
)
def test_figures_are_those_of_the_sources(title, cells):
    section = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    assert all(cell in section for cell in cells)


def board(*benchmarks):
    return valid_settings(tool.Leaderboard, {"benchmarks": benchmarks}, "leaderboard", "test")


def test_texts_break_no_table():
    odd = {"model": "a|b", "protocol": "one\ntwo", "source": "`x` | <b>"}
    ours = {"model": "m|n", "protocol": "p|q", "value": 1.0, "n": 5, "source": "tests/a|b.py", "date": "2024-01"}
    text = tool.page(board({"title": "t|u\n## v", "metric": "F1|\r", "best": {**PUBLISHED, **odd}, "ours": ours}))
    overview, heading, best, own = text.splitlines()[-10], text.splitlines()[-8], *text.splitlines()[-2:]
    assert overview == rf"| t\|u ## v | F1\| | 1.0 | a\|b | {tool.NOTHING} | 1.0 |"
    assert heading == r"## t\|u ## v"
    assert best == r"| best published | a\|b | 1.0 | unknown | one two | 2024-01 | quoted | \`x\` \| \<b> |"
    assert own == r"| ours | m\|n | 1.0 | 5 | p\|q | 2024-01 | measured here | [a\|b.py](../tests/a%7Cb.py) |"


def test_mistakes_are_refused_together():
    base = {"title": "t", "metric": "accuracy, %"}
    fi = {**base, "dataset": {"name": "fi", "num_labels": 8}}
    with pytest.raises(ConfigError, match="without `reference`, source must be given"):
        board({**base, "best": {key: value for key, value in PUBLISHED.items() if key != "source"}})
    with pytest.raises(ConfigError, match="a reference has its own model"):
        board({**fi, "best": {**PUBLISHED, "reference": "EmoVIT"}})
    with pytest.raises(ConfigError, match="needs `result` with paths"):
        board({**base, "ours": {"model": "m", "protocol": "p", "value": 1.0, "n": 5}})
    with pytest.raises(ConfigError, match=r"benchmarks\.0\.best\.value: Input should be a finite number \(got nan\)"):
        board({**base, "best": {**PUBLISHED, "value": math.nan}})
    path = {"model": "m", "protocol": "p", "result": "real_sets", "n": ["date"], "value": ["nowhere"]}
    wrong = [
        {**fi, "best": {"reference": "EmoVit", "protocol": "p", "date": "2024-01"}},
        {**base, "best": {"reference": "EmoVIT", "protocol": "p", "date": "2024-01"}},
        {**base, "title": "u", "ours": path},
        {**base, "title": "v"},
        {**base, "title": "x", "ours": {**path, "value": ["date"], "n": ["date"]}},
        {**base, "title": "y", "ours": {**path, "result": "none"}},
        {**base, "title": "z", "ours": {**path, "value": ["date", "day"]}},
    ]
    with pytest.raises(ConfigError) as caught:
        tool.page(board(*wrong))
    text = str(caught.value)
    for problem in (
        "t: occurs twice",
        "0 references of EmoVit",
        "needs `dataset`",
        "u: no 'nowhere' at ['nowhere']",
        "v: no number",
        "x: the value must be a finite number (got '2",
        "y: no result benchmarks/none.json",
        "z: no 'day' at ['date', 'day']",
    ):
        assert problem in text, problem


def test_a_result_without_a_finite_number_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "r.json").write_text('{"date": "2024-01-02", "accuracy": NaN, "n": 0}')
    ours = {"model": "m", "protocol": "p", "result": "r", "value": ["accuracy"], "n": ["n"]}
    base = {"metric": "accuracy, %", "ours": ours}
    counted = {**base, "title": "u", "ours": {**ours, "value": ["n"]}}
    with pytest.raises(ConfigError) as caught:
        tool.page(board({**base, "title": "t"}, counted))
    assert "t: the value must be a finite number (got nan)" in str(caught.value)
    assert "u: n must be a whole number from 1 (got 0)" in str(caught.value)
