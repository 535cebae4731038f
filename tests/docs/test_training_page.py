"""docs/training_parts.md and the training step in docs/speed.md say nothing that is not so: recipes take the options
shown, keys and defaults are the real ones, figures are those of the benchmark."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from lavis_emovit.models.instructblip.settings import PART_GROUPS, TRAINED_PARTS, LoraSettings, ModelSettings
from lavis_emovit.runners.config import Config

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "training_parts.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"python -m lavis\.train (?:[^\n]*\\\n)*[^\n]*", PAGE)


@pytest.mark.parametrize("command", COMMANDS)
def test_recipes_take_the_options_shown(command):
    words = shlex.split(command.replace("\\\n", " "))
    recipe, options = words[words.index("--cfg-path") + 1], words[words.index("--options") + 1 :]
    if any("lora" in option for option in options):
        assert Config.load(ROOT / recipe, options).model.lora.parts == ("language_model",)
    else:
        assert Config.load(ROOT / recipe, options).model.trained_parts == ("qformer",)


def test_keys_and_defaults_are_the_real_ones():
    assert len(COMMANDS) == 2
    keys = set(re.findall(r"`model\.([a-z_]+)", PAGE)) - {"dead_parameters", "core"}
    assert keys >= {"trained_parts", "lora", "frozen_precision", "grad_checkpoint_parts", "image_size"}
    assert keys <= set(ModelSettings.model_fields)
    assert all(
        f"`{name}" in PAGE or f"{name}`" in PAGE or f" {name}," in PAGE for name in (*TRAINED_PARTS, *PART_GROUPS)
    )
    lora = LoraSettings(parts="qformer")
    assert f"| {lora.rank}, {lora.alpha:g} |" in PAGE and f"| {lora.dropout:g} |" in PAGE and f"| {lora.seed} |" in PAGE
    assert lora.target_modules is None
    assert {f"`{name}`" for name in LoraSettings.model_fields} <= set(re.findall(r"`[a-z_]+`", PAGE))


def test_the_figures_of_training_steps_are_those_of_the_benchmark():
    spec = importlib.util.spec_from_file_location(
        "bench_training_step_figures", ROOT / "tools" / "bench" / "training_step.py"
    )
    tool = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = tool
    spec.loader.exec_module(tool)
    result = json.loads((ROOT / "benchmarks" / "training_step.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    assert tool.table(result) in page
    assert result["ratio"] >= 2.5 and f"{result['ratio']:.1f} times" in page
    assert result["largest_loss_difference"] <= 1e-3
    assert result["batch"]["share_categorical"] == pytest.approx(0.82, abs=0.01)
    assert 80e6 <= result["sizes"]["parameters"]["total"] <= 120e6
