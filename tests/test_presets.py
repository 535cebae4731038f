"""The presets against the published settings: EmoVIT's two public files and InstructBLIP's paper, figures typed in.

Properties: each preset has exactly these values, and says at each of them where it comes from; train.yaml trains as the
preset of 2025 does.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PRESETS = ROOT / "projects" / "emovit" / "presets"

COMMON: dict[str, Any] = {
    "lr_sched": "linear_warmup_cosine_lr",
    "warmup_lr": 1e-8,
    "beta1": 0.9,
    "beta2": 0.999,
    "max_grad_norm": None,
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "emovit_2024_04": {
        "init_lr": 8e-6,
        "min_lr": 0.0,
        "warmup_steps": 1000,
        "weight_decay": 5e-5,
        "global_batch_size": 1,
        "micro_batch": 1,
        "max_len": 30,
        "min_len": 1,
        "num_beams": 1,
        "seed": 42,
        **COMMON,
    },
    "emovit_2025_04": {
        "max_epoch": 4,
        "init_lr": 1e-5,
        "min_lr": 1e-8,
        "warmup_steps": 30000,
        "weight_decay": 5e-3,
        "global_batch_size": 1,
        "micro_batch": 1,
        "max_len": 1000,
        "min_len": 1,
        "num_beams": 1,
        "seed": 42,
        **COMMON,
    },
    "instructblip": {
        "max_steps": 60000,
        "init_lr": 1e-5,
        "min_lr": 0.0,
        "warmup_steps": 1000,
        "weight_decay": 0.05,
        "global_batch_size": 128,
        **COMMON,
    },
}


def load(name: str, folder: Path = PRESETS) -> Any:
    from lavis_emovit.runners.config import Config

    return Config.load(folder / f"{name}.yaml")


def test_every_preset_is_checked() -> None:
    assert {path.stem for path in PRESETS.glob("*.yaml")} == set(PUBLISHED)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_published_values(name: str) -> None:
    config = load(name)
    assert {key: getattr(config.run, key) for key in PUBLISHED[name]} == PUBLISHED[name]
    assert config.model.image_size == 224
    crop = config.datasets["emoset"].vis_processor.train
    assert (crop.image_size, crop.min_scale, crop.max_scale) == (224, 0.5, 1.0)
    assert config.run.output_dir == f"output/emovit/{name}"


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_every_value_says_where_it_comes_from(name: str) -> None:
    text = (PRESETS / f"{name}.yaml").read_text()
    sources = re.compile(r"#.*\[(FT|LAVIS|paper|ours)\]")
    for key in PUBLISHED[name]:
        if key != "micro_batch":
            (line,) = re.findall(rf"^  {key}:.*$", text, flags=re.MULTILINE)
            assert sources.search(line), line


def test_train_yaml_trains_as_the_preset_of_2025() -> None:
    mine, preset = (load(*where).to_dict() for where in (("train", PRESETS.parent), ("emovit_2025_04",)))
    for node in (mine, preset):
        # What it writes where, and how long the answers in its report may be.
        for key in ("output_dir", "max_len", "batch_size_eval", "num_report_answers"):
            node["run"].pop(key)
    assert mine == preset
    source = yaml.safe_load((PRESETS / "emovit_2025_04.yaml").read_text())
    assert source["run"]["max_len"] == 1000
