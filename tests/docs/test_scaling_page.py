"""docs/scaling.md against the code: recipes, files and settings of its commands exist, its lists are the real ones, its
figures follow from the formula, and its exit codes are those of the command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lavis_emovit.distributed import heartbeat, signals
from lavis_emovit.launch import EXIT_USER_ERROR
from lavis_emovit.models.step_memory import StepLoad
from lavis_emovit.paths import find_recipe
from lavis_emovit.runners.config import Config
from lavis_emovit.runners.engines.deepspeed_config import ALLOWED
from lavis_emovit.runners.estimate import TORCH, Assumptions, StepModel, estimate
from lavis_emovit.runners.gpus import find_gpu
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.runners.state_memory import state_bytes

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\|[^|]+\| `([^`]+)` \|$", PAGE, flags=re.MULTILINE)


def test_commands_name_real_files() -> None:
    assert len(COMMANDS) == 8
    for command in COMMANDS:
        paths = re.findall(r"(?:projects|tools)/[\w./]+", command)
        assert paths, command
        for path in paths:
            assert find_recipe(path) if path.startswith("projects") else ROOT / path, path
            assert (ROOT / path).is_file(), path
        for key, value in re.findall(r"run\.(\w+)=(\S+)", command):
            RunSettings(**{"output_dir": "o", "max_epoch": 1, "global_batch_size": 1, "init_lr": 1e-3, key: value})


def test_settings_of_the_page_exist() -> None:
    named = set(re.findall(r"`run\.([a-z_]+)", PAGE))
    assert named and named <= set(RunSettings.model_fields)


def test_files_and_keys_are_all_listed() -> None:
    listed = re.findall(r"^\| `(zero\w+\.json)`", PAGE, flags=re.MULTILINE)
    assert set(listed) == {path.name for path in (ROOT / "projects" / "emovit" / "deepspeed").glob("*.json")}
    (allowed,) = re.findall(r"Allowed besides\s`zero_optimization`: (.*?)\. Offloading", PAGE, flags=re.DOTALL)
    assert set(re.findall(r"`(\w+)`", allowed)) | {"zero_optimization"} == set(ALLOWED)


@pytest.mark.parametrize(("row", "stage"), [("`torch`", 0), ("ZeRO 2", 2), ("ZeRO 3", 3)])
def test_figures_follow_from_the_formula(row: str, stage: int) -> None:
    (gigabytes,) = re.findall(rf"^\| {row} \| ([\d.]+) \|$", PAGE, flags=re.MULTILINE)
    millions, frozen = re.findall(r"P = (\d+) million, F = ([\d.]+) GB", PAGE)[0]
    found = state_bytes(int(millions) * 10**6, int(float(frozen) * 1e9), stage=stage, num_ranks=8).device
    assert float(gigabytes) == round(found / 1e9, 1)


ESTIMATED = {
    "quickstart.yaml": ("quickstart.yaml", ()),
    "photos.yaml": ("photos.yaml", ()),
    "train.yaml": ("train.yaml", ()),
    **{
        f"train.yaml with {name}": ("train.yaml", (f"model.arch=emovit_{name}", f"model.model_type={name}"))
        for name in ("vicuna13b", "flant5xl", "flant5xxl")
    },
}


def _estimate_row(label: str, recipe: str, options: tuple[str, ...]) -> str:
    from lavis.common.registry import registry

    cfg: Any = Config.load(f"projects/emovit/{recipe}", [*options, "run.global_batch_size=1"])
    settings = cfg.model
    count = registry.get_model_class(settings.arch).step_memory
    lengths = (1, settings.max_txt_len, settings.max_output_txt_len)
    model = StepModel(*(count(settings, StepLoad(number, *lengths), cfg.run.amp) for number in (1, 8)), 1, 8)
    kinds = [find_gpu(kind) for kind in ("l4", "a100-40", "h100")]
    usages = [estimate(model, cfg.run, TORCH, 1, gpu, Assumptions()) for gpu in kinds]
    parts = usages[0].parts
    sums = [
        parts["weights"],
        parts["gradients"] + parts["moments"],
        parts["activations"] + parts["logits"],
        usages[0].total,
    ]
    numbers = [f"{size / 1e9:.2f}" for size in sums] + [str(usage.max_micro_batch) for usage in usages]
    return f"| {label} | {' | '.join(numbers)} |"


@pytest.mark.dry_run
def test_the_table_of_estimates_is_computed() -> None:
    (table,) = re.findall(r"<!-- estimates -->\n(?:\|.*\n){2}((?:\|.*\n)+)", PAGE)
    shown = {line.split(" | ")[0].removeprefix("| "): line for line in table.splitlines()}
    assert list(shown) == list(ESTIMATED)
    # The other large models take minutes and go through the same code.
    for label in ("quickstart.yaml", "photos.yaml", "train.yaml"):
        assert shown[label] == _estimate_row(label, *ESTIMATED[label])


def test_exit_codes_are_the_real_ones() -> None:
    (text,) = re.findall(r"The exit codes are (.*?)\. torchrun", PAGE, flags=re.DOTALL)
    codes = [EXIT_USER_ERROR, heartbeat.EXIT_RANK_LOST, signals.EXIT_STOPPED, signals.EXIT_INTERRUPTED]
    assert [int(code) for code in re.findall(r"\b\d+\b", text)] == codes
    script = (ROOT / "tools" / "slurm" / "train.sbatch").read_text(encoding="utf-8")
    assert {int(code) for code in re.findall(r'"\$code" -eq (\d+)', script)} == set(codes[1:3])
