"""docs/generation.md is correct.

- Every command in it parses, and every option in it exists.
- Its settings file and its node of a recipe are accepted; its mixes, reasons and statuses are those of the code.
- Its numbers are those of the JSON results.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from chat_server import ChatServer
from typer.main import get_command

from lavis_emovit.chat.faults import ADAPTABLE, FATAL, TRANSIENT
from lavis_emovit.chat.ledger import FINISHED
from lavis_emovit.cli.generate_job import read_settings
from lavis_emovit.cli.main import app
from lavis_emovit.generation.checks import REASONS
from lavis_emovit.generation.mix import MIXES
from lavis_emovit.recipes import resolve_dataset
from lavis_emovit.runners.config import Config

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "generation.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^(?:# )?(emovit .*?)(?:\s{2,}#.*)?$", PAGE, flags=re.MULTILINE)
RECIPE, SETTINGS = re.findall(r"^```yaml\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
(PYTHON,) = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_parse(line):
    group = get_command(app)
    _, *words = shlex.split(line)
    context = group.make_context("emovit", list(words), resilient_parsing=False)
    while hasattr(group, "commands") or hasattr(group, "list_commands"):
        name, group, words = group.resolve_command(context, words)
        parsed = group.make_context(name, list(words), parent=context)
        if hasattr(group, "list_commands"):
            context = parsed
    assert parsed.params


def test_options_exist():
    assert len(COMMANDS) >= 7
    group = get_command(app)
    generate = group.get_command(group.make_context("emovit", ["doctor"], resilient_parsing=True), "generate")
    known = {
        option for command in generate.commands.values() for parameter in command.params for option in parameter.opts
    }
    known |= {option for command in generate.commands.values() for p in command.params for option in p.secondary_opts}
    prose = re.sub(r"^```.*?^```", "", PAGE, flags=re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"`[^`\n]*?(--[a-z-]+)", prose))
    assert named and named <= known


def test_settings_file(tmp_path):
    path = tmp_path / "generate.yaml"
    path.write_text(SETTINGS)
    chat, judge, job, mix = read_settings(path, {}, {}, None, None)
    assert chat is not None and judge is None and mix is not None
    assert set(yaml.safe_load(SETTINGS)) == {"chat", "job", "mix"} and "scene" not in job.facts


def test_python_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ChatServer() as server:
        names: dict[str, object] = {}
        exec(PYTHON.replace("http://localhost:8000/v1", server.url), names)
        assert server.num_requests == 8 and {body["seed"] for body in server.bodies} == set(range(8))
        assert [row["status"] for row in names["replies"]] == ["ok"] * 8


def test_names():
    for name in (*MIXES, *REASONS, *FINISHED, *TRANSIENT, *FATAL, *ADAPTABLE):
        assert f"`{name}`" in PAGE, name


def test_numbers():
    costs = json.loads((ROOT / "benchmarks" / "generation_costs.json").read_text())
    for model, kinds in costs["models"].items():
        cells = " | ".join(f"${kind['usd']:.2f}" for kind in kinds.values())
        assert f"| {model} | {cells} |" in PAGE
    assert costs["prices"] in PAGE
    speed = json.loads((ROOT / "benchmarks" / "generation.json").read_text())
    for name in ("no latency", "one second"):
        assert f"**{speed[name]['rows_per_second']:.0f} rows a second**" in PAGE
    memory = [item["rss_mib"] for item in speed["no latency"]["memory"]]
    assert f"from {memory[0]:.0f} to {memory[-1]:.0f} MiB" in PAGE
    memory = json.loads((ROOT / "benchmarks" / "generation_memory.json").read_text())
    shown = [memory[name] for name in ("rss_mib_at_a_tenth", "rss_mib_at_the_last_reply", "highest_rss_mib")]
    assert f"over {memory['records']:,} records" in PAGE and all(f"{value:.1f} MiB" in PAGE for value in shown)
    assert memory["highest_to_a_tenth"] == pytest.approx(shown[2] / shown[0], abs=1e-4)
    kills = speed["kills"]
    assert (kills["finished_requests_sent_again"], kills["rows_lost"], kills["rows_twice"]) == (0, 0, 0)
    assert f"{kills['kills']} times" in PAGE
    assert f"{kills['asked_twice_since_under_way_at_a_kill']} requests that were under way" in PAGE


def test_the_node_of_a_recipe_is_that_of_the_recipe():
    problems: list[str] = []
    (name, node), *others = yaml.safe_load(RECIPE)["datasets"].items()
    _, settings = resolve_dataset(name, node, problems, "datasets.emoset")
    assert problems == [] and others == []
    shipped = Config.load("projects/emovit/train_instructions.yaml").datasets[name]
    assert settings.build_info == shipped.build_info and settings.kinds == shipped.kinds
