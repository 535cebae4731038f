"""The pages under docs/ say what is so: links lead somewhere, commands have the options shown, YAML parses."""

from __future__ import annotations

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
    from lavis_emovit.models.settings import ModelSettings
    from lavis_emovit.settings import parse_settings

    content = yaml.safe_load(block)
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        node = {"arch": "emovit_tiny", "pretrained": "package:emovit_tiny", **content["model"]}
        assert parse_settings(ModelSettings, node, "model")[1] == []
