"""docs/report.md is true: its commands and its code write the files that they name, it explains the columns of the
page, and the settings that it names exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from report_page import page_of

from lavis_emovit.cli.main import main
from lavis_emovit.evaluation.report.comparison import COLUMNS
from lavis_emovit.evaluation.suite_settings import SuiteSettings

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "report.md").read_text(encoding="utf-8")


def test_commands_and_code_write_the_files_that_they_name(make_run, monkeypatch, tmp_path):
    for name in ("quickstart", "quickstart_1"):
        make_run(f"output/emovit/{name}", num_rows=40, num_images=2, num_epochs=1, with_scores=False, seed=len(name))
    monkeypatch.chdir(tmp_path)
    (commands,) = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    for command in commands.strip().splitlines():
        assert main(shlex.split(command)[1:]) == 0
    assert {path.name for path in tmp_path.glob("*.*")} == {
        "quickstart.html",
        "quickstart.md",
        "quickstart.tex",
        "both.html",
    }
    assert (tmp_path / "output/emovit/quickstart/report.html").exists()
    written = (tmp_path / "quickstart.md").read_bytes()
    (tmp_path / "quickstart.md").unlink()
    exec(compile(code, "docs/report.md", "exec"), {})
    assert (tmp_path / "quickstart.md").read_bytes() == written
    tables = page_of(tmp_path / "both.html").tables
    assert any(table[0][1:] == list(COLUMNS) for table in tables)


def test_the_columns_of_differences_are_explained():
    explained = {
        name for cell in re.findall(r"^\| ([^|]+) \|", PAGE, flags=re.MULTILINE) for name in cell.split(", only ")
    }
    named = {name.removeprefix("Only ").casefold() for name in COLUMNS if name != "Minus"}
    assert named <= {name.removeprefix("Only ").casefold() for name in explained}


def test_settings_that_are_named_exist():
    named = set(re.findall(r"`suite\.(\w+)`", PAGE))
    assert named
    assert named <= set(SuiteSettings.model_fields)
