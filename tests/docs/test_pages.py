"""The pages under docs/ say what is so: links lead somewhere, commands have the options shown, YAML parses."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]
PAGES = {page.name: page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md"))}
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)


def lines(prefix: str) -> list[str]:
    found = []
    for text in PAGES.values():
        for language, block in BLOCK.findall(text):
            if language == "bash":
                joined = block.replace("\\\n", " ")
                found += [line.split(" #")[0].strip() for line in joined.splitlines() if line.startswith(prefix)]
    return sorted(set(found))


def yaml_blocks() -> list[str]:
    return [block for text in PAGES.values() for language, block in BLOCK.findall(text) if language == "yaml"]


def test_there_are_pages():
    assert len(PAGES) >= 3 and lines("emovit ") and yaml_blocks()


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    prose = BLOCK.sub("", PAGES[page])
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)", prose) if not target.startswith("http")]
    assert not [target for target in targets if not (ROOT / "docs" / target).exists()]


@pytest.mark.parametrize("line", lines("emovit "))
def test_commands_have_the_options_shown(line):
    from lavis_emovit.cli.main import app

    words = shlex.split(line)[1:]
    depth = 2 if len(words) > 1 and re.fullmatch(r"[a-z-]+", words[1]) else 1
    for commands in (words[:depth], words[:1]):
        result = CliRunner().invoke(app, [*commands, "--help"], env={"COLUMNS": "300", "NO_COLOR": "1"})
        if result.exit_code == 0:
            break
    assert result.exit_code == 0, line
    for option in (word.split("=")[0] for word in words if word.startswith("--")):
        assert re.search(rf"{option}\b", result.output), f"{line}: no {option}"


@pytest.mark.parametrize("block", yaml_blocks(), ids=range(len(yaml_blocks())))
def test_yaml_parses_and_models_have_known_keys(block):
    from lavis_emovit.models.instructblip.settings import ModelSettings
    from lavis_emovit.settings import parse_settings

    content = yaml.safe_load(block)
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        node = {"arch": "emovit_tiny", "pretrained": "package:emovit_tiny", **content["model"]}
        assert parse_settings(ModelSettings, node, "model")[1] == []


def test_figures_of_shards_and_ranks_are_those_of_the_results():
    def result(name: str) -> dict:
        return json.loads((ROOT / "benchmarks" / f"{name}.json").read_text())

    shards, page = result("shards"), PAGES["shards.md"]
    shapes = [shards["loader"][shape] for shape in ("1024x1024", "1024x768")]
    for workers, title in (("one_process", "one process"), ("two_workers", "two workers")):
        bare, lavis = ([shape[workers][f"ours_over_{other}"] for shape in shapes] for other in ("bare", "lavis"))
        assert re.search(
            rf"^\| {title}, over the bare loop.* \| {bare[0]:.2f} \| {bare[1]:.2f} \|$", page, re.MULTILINE
        )
        assert re.search(rf"^\| {title}, over LAVIS's.* \| {lavis[0]:.1f} \| {lavis[1]:.1f} \|$", page, re.MULTILINE)
    assert f"shards {2 * shards['build']['scaling']:.2f} times as fast as one" in page
    ranks = result("training_ranks")
    assert f"{ranks['two_ranks_over_one']['ratio']:.2f} times as fast as one" in PAGES["scaling.md"]
    assert f"({100 * ranks['runner_over_bare_loop']['overhead_share']:.0f} %" in PAGES["scaling.md"]
