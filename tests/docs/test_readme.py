"""The README is true.

- every recipe and file that it names exists, every link inside the repository leads somewhere;
- every `python -m lavis.*` line loads its recipe with the options that it shows, every `emovit` line names a command
  and options that exist, every `make` target is one of the Makefile;
- the figures that it quotes are those of the results in benchmarks/;
- its Python snippet runs, and every model in its table is registered.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from lavis_emovit import __version__, registered
from lavis_emovit.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, flags=re.DOTALL)
SHELL_LINES = [
    line.split("#")[0].strip()
    for language, block in BLOCKS
    if language == "bash"
    for line in block.splitlines()
    if line.split("#")[0].strip()
]


def lines_of(prefix: str) -> list[str]:
    found = [line for line in SHELL_LINES if line.startswith(prefix)]
    assert found, f"the README shows no '{prefix}' line"
    return found


def test_links_lead_somewhere():
    prose = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
    targets = re.findall(r"\]\((?!http)([^)#]+)", prose)
    assert len(targets) >= 4
    missing = [target for target in targets if not (ROOT / target).exists()]
    assert not missing


@pytest.mark.parametrize("name", ["quickstart", "photos"])
def test_figures_are_those_of_the_benchmarks(name):
    result = json.loads((ROOT / "benchmarks" / f"{name}.json").read_text())
    row = next(line for line in TEXT.splitlines() if f"(benchmarks/{name}.json)" in line)
    assert f" {result['mean_accuracy']:.3f}," in row
    assert result["command"] in row or f"seeds.py {name}`" in row
    assert result["mean_accuracy"] >= 0.80 > result["mean_accuracy_before"]


def test_speed_figures_are_those_of_the_benchmarks():
    scoring = json.loads((ROOT / "benchmarks" / "scoring.json").read_text())
    row = next(line for line in TEXT.splitlines() if "(benchmarks/scoring.json)" in line)
    few, many = (labels["ratio_of_processor_time"] for labels in scoring["label_sets"])
    assert f"8 labels is {few:.1f} times, 25 labels {many:.1f} times" in row and scoring["command"] in row
    step = json.loads((ROOT / "benchmarks" / "training_step.json").read_text())
    row = next(line for line in TEXT.splitlines() if "(benchmarks/training_step.json)" in line)
    assert f"{step['ratio']:.1f} times as fast as a plain implementation on" in row and step["command"] in row
    assert (
        f"{step['ratio_to_best_plain']:.1f} times as fast as a plain implementation with one question at a time" in row
    )


def test_figures_of_runs_and_suites_are_those_of_the_benchmarks():
    soak = json.loads((ROOT / "benchmarks" / "soak.json").read_text())
    row = next(line for line in TEXT.splitlines() if "(benchmarks/soak.json)" in line)
    assert f"{sum(soak['ended_by'].values())} random kills and stops in {soak['minutes']:.0f} minutes" in row
    assert soak["command"] in row and soak["differences"] == []
    suite = json.loads((ROOT / "benchmarks" / "evaluation.json").read_text())
    row = next(line for line in TEXT.splitlines() if "(benchmarks/evaluation.json)" in line)
    assert f"is {suite['ratio_of_processor_time']:.1f} times as fast" in row and suite["command"] in row


def test_memory_of_the_data_commands_is_that_of_the_benchmark():
    result = json.loads((ROOT / "benchmarks" / "data_memory.json").read_text())
    row = next(line for line in TEXT.splitlines() if "(benchmarks/data_memory.json)" in line)
    assert f"at most 400 MB above an empty process for {result['num_records']:,} records" in row
    assert result["command"] in row
    peaks = result["peak_mb_above_an_empty_process"]
    assert {"import", "stats", "verify", "dedupe", "build"} <= peaks.keys() and max(peaks.values()) <= 400
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `emovit (?:data|shards) .*\| (\d+) MB \|$", page, re.MULTILINE) == [
        *map(str, peaks.values())
    ]


def test_figures_of_the_published_size_are_those_of_the_benchmark():
    result = json.loads((ROOT / "benchmarks" / "full_size.json").read_text())
    phases, sizes = result["phases"], result["arithmetic"]["7b"]
    row = next(line for line in TEXT.splitlines() if "(benchmarks/full_size.json)" in line)
    assert f"{sizes['parameters']['total'] / 1e9:.2f} billion random bfloat16 weights" in row
    load, step = phases["answer"]["load"], phases["resume"]
    assert f"loading takes {phases['answer']['loading_over_reading_once']:.2f} times as long as" in row
    assert f"{load['peak_own_bytes'] / 1e9:.1f} GB" in row and f"{max(step['peak_own_bytes']) / 1e9:.1f} GB" in row
    assert phases["resume"]["step"] == 2 and phases["train"]["loss"] > phases["resume"]["loss"]
    # The limits that loading has to keep.
    assert load["peak_bytes"] <= 1.08 * sizes["file_bytes"]
    assert phases["answer"]["loading_over_reading_once"] <= 1.5
    for rank in phases["zero3_load"]["ranks"]:
        one_process = rank["own_before_loading_bytes"] + rank["loaded_bytes"]
        assert rank["peak_own_bytes"] <= 0.6 * one_process + rank["trained_bytes"]


def test_named_recipes_and_tools_exist():
    named = set(re.findall(r"\b((?:projects|tools|docs|lavis_configs)/[\w./-]+\.\w+)", TEXT))
    assert len(named) >= 6
    assert not [name for name in named if not (ROOT / name).exists()]


def _declare_mypics(folder, monkeypatch):
    """Run the README's `emovit init` on a few images."""
    for number in range(6):
        path = folder / "mypics" / ("calm", "wild")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((32, 32), 20 + 40 * number).save(path)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(registered, "_beside_recipes", [])
    assert main(shlex.split(lines_of("emovit init mypics")[0], comments=True)[1:]) == 0


@pytest.mark.parametrize("line", lines_of("python -m lavis."))
def test_recipes_load_with_their_options(line, monkeypatch, tmp_path):
    from lavis_emovit.evaluation.suite.recipe import load_suite
    from lavis_emovit.plugin import activate
    from lavis_emovit.runners.config import Config

    activate()
    monkeypatch.chdir(ROOT)
    words = shlex.split(line)
    assert words[2] in ("lavis.train", "lavis.evaluate")
    options = words[words.index("--options") + 1 :] if "--options" in words else []
    recipe = words[words.index("--cfg-path") + 1]
    if recipe == "mypics.yaml":
        _declare_mypics(tmp_path, monkeypatch)
    if words[2] == "lavis.train" or load_suite(recipe, options, check_names=True) is None:
        Config.load(recipe, options)


def test_launches_are_those_of_the_page_on_scaling():
    # That page's table is held to the launchers and recipes themselves.
    table = TEXT[TEXT.index("| your hardware") : TEXT.index("docs/scaling.md")]
    shown = re.findall(r"`((?:python|torchrun|sbatch) [^`]+)`", table)
    assert len(shown) == 3
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert not [command for command in shown if f"`{command}`" not in page]


@pytest.mark.parametrize("line", lines_of("emovit"))
def test_commands_and_options_exist(line):
    from lavis_emovit.cli.main import app

    words = shlex.split(line)[1:]
    commands = [word for word in words[:2] if re.fullmatch(r"[a-z]+", word)]
    result = CliRunner().invoke(app, [*commands, "--help"])
    assert result.exit_code == 0, result.output
    for option in (word for word in words if word.startswith("--")):
        assert option in result.output


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"make ([a-z]+)", TEXT)) & targets
    shown = {line.split()[1] for line in lines_of("make")}
    assert shown <= targets
    assert {"quickstart", "test", "setup", "help"} <= targets
    assert {"quickstart", "test"} <= named


def test_snippet_runs(capsys):
    snippets = [block for language, block in BLOCKS if language == "python"]
    assert snippets
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_models_of_the_table_are_registered():
    from lavis.common.registry import registry

    named = set(re.findall(r"`(emovit_\w+)`", TEXT))
    assert len(named) == 9
    assert not [name for name in named if registry.get_model_class(name) is None]


def test_citation_has_the_version_and_the_entries_of_the_readme():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    assert f"version = {{{__version__}}}" in TEXT and citation["title"] in TEXT
    for author in citation["references"][0]["authors"]:
        assert f"{author['family-names']}, {author['given-names']}" in TEXT
