"""Every YAML file, found recursively.

Properties:
- it opens with its purpose, what it needs, how it is launched, an override and what it costs; the launch command names
  a recipe that is there;
- every recipe is valid, and so is the recipe that a file names together with the file's own override;
- a suite scores the official split of a dataset that has one;
- the launch command of a dataset that no recipe names holds for a copy of the recipe that names it;
- every override example does what it says: the setting that it names is known, a misspelt one is refused.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from lavis_emovit.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
# Presets of rewards are exported, not trained: tests/rewards/test_presets.py.
REWARDS = ROOT / "lavis_configs" / "rewards"
CONFIGS = sorted(path for path in (ROOT / "lavis_configs").rglob("*.yaml") if path.parent != REWARDS)
RECIPES = sorted((ROOT / "projects").rglob("*.yaml"))
HEADINGS = ("Needs", "Launch", "Override", "Memory")


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _header(path: Path) -> dict[str, str]:
    """The comment block at the top: `purpose`, and what stands under each heading, lines joined."""
    parts: dict[str, list[str]] = {"purpose": []}
    heading = "purpose"
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        text = line[1:].strip()
        found = re.match(rf"({'|'.join(HEADINGS)}):\s*(.*)", text)
        if found:
            heading, text = found.groups()
        parts.setdefault(heading, []).append(text)
    return {heading: " ".join(lines).strip() for heading, lines in parts.items()}


def _launched_recipe(header: dict[str, str]) -> Path:
    found = re.search(r"python -m lavis\.(?:train|evaluate) --cfg-path (projects/emovit/\S+\.yaml)", header["Launch"])
    assert found, header["Launch"]
    return ROOT / found.group(1)


def _overrides(header: dict[str, str]) -> list[str]:
    _, marker, rest = header["Override"].partition("--options ")
    assert marker, header["Override"]
    options = []
    for word in shlex.split(rest):
        if not re.fullmatch(r"[a-z_0-9.]+=\S+", word):
            break
        options.append(word)
    assert options, header["Override"]
    return options


def test_all_are_found():
    assert len(CONFIGS) >= 8
    assert len(RECIPES) >= 3


@pytest.mark.parametrize("path", [*CONFIGS, *RECIPES], ids=_name)
def test_header(path):
    header = _header(path)
    assert all(header.get(heading) for heading in ("purpose", *HEADINGS)), header
    assert _launched_recipe(header).is_file()
    assert re.search(r"[KMGT]B|as large as", header["Memory"]), header["Memory"]
    if path in RECIPES:
        assert path == _launched_recipe(header)
        assert re.search(r"second|minute|hour|day", header["Memory"]), header["Memory"]
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def _is_suite(path: Path) -> bool:
    return "suite" in yaml.safe_load(path.read_text())


def _resolved(path: Path, options: list[str]) -> dict:
    """A recipe with all its defaults and the options over it."""
    from lavis_emovit.evaluation.suite.recipe import load_suite
    from lavis_emovit.runners.config import Config

    if _is_suite(path):
        return {"suite": load_suite(path, options, check_names=True).model_dump(mode="json")}
    return Config.load(path, options).to_dict()


@pytest.mark.parametrize("path", RECIPES, ids=_name)
def test_recipe_is_valid(path):
    from lavis_emovit.runners.config import Config

    if _is_suite(path):
        suite = _resolved(path, [])["suite"]
        assert suite["models"] and suite["benchmarks"]
        for benchmark in suite["benchmarks"].values():
            file = ROOT / "lavis_configs" / "datasets" / benchmark["dataset"] / "defaults.yaml"
            defaults = yaml.safe_load(file.read_text())["datasets"][benchmark["dataset"]]
            # A dataset with an official test or validation split is scored on it, not on a part of its training split.
            published = {*defaults.get("about", {}).get("published", {}).get("splits", {})} & {"val", "test"}
            assert not published or benchmark["split"] in published
        for model in suite["models"].values():
            if train := model.get("train"):
                run = Config.load(train["recipe"], train["options"], [f"run.output_dir={model['checkpoint']}"])
                if model["arch"] is None:  # all settings are those of the run
                    continue
                # The parts are listed twice; a model with other parts would refuse the checkpoint.
                assert model["arch"] == run.model.arch
                assert tuple(model["config"]["trained_parts"]) == run.model.trained_parts
        return
    config = Config.load(path)
    assert config.run.task in ("emotion_instruction", "emotion_grpo")
    assert config.datasets


def _copy_that_names(name: str, recipe: Path, folder: Path) -> Path:
    """The copy of a recipe that a dataset's header tells to make: another dataset in the place of the recipe's."""
    content = yaml.safe_load(recipe.read_text())
    content["datasets"] = {name: {}}
    copy = folder / "copy.yaml"
    copy.write_text(yaml.safe_dump(content))
    return copy


@pytest.mark.parametrize("path", [*CONFIGS, *RECIPES], ids=_name)
def test_override_example(path, tmp_path):
    header = _header(path)
    recipe, options = _launched_recipe(header), _overrides(header)
    if "in a copy of the recipe" in header["Launch"]:
        assert f"names {path.parent.name} in the place of" in header["Launch"]
        recipe = _copy_that_names(path.parent.name, recipe, tmp_path)
    changed = _resolved(recipe, options)
    for option in options:
        key, _, value = option.partition("=")
        node = changed
        for part in key.split("."):
            node = node.get(part) if value == "null" else node[part]
        assert value == "null" or value in (str(node), str(node).lower()) or value in str(node), (option, node)
        if value == "null":  # takes an entry out of a table of any names; there is no wrong one
            assert node is None
            continue
        misspelt = f"{key}_x={value}"
        with pytest.raises(ConfigError, match="unknown key"):
            _resolved(recipe, [misspelt])
