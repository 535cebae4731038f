"""docs/runs.md against the code: keys, defaults, exit codes, fields of the log, limits and files are the real ones."""

from __future__ import annotations

import json
import re
from pathlib import Path

from lavis_emovit.distributed import heartbeat, signals
from lavis_emovit.launch import EXIT_USER_ERROR
from lavis_emovit.runners import watch
from lavis_emovit.runners.settings import FREE_RUN_KEYS, RunSettings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "runs.md").read_text(encoding="utf-8")


def table(name: str) -> dict[str, list[str]]:
    (text,) = re.findall(rf"<!-- keys: {name} -->\n((?:\|.*\n)+)", PAGE)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_keys_and_defaults_are_the_real_ones() -> None:
    rows = table("recipe")
    fields = RunSettings.model_fields
    assert set(rows) <= set(fields)
    for key, (_, default) in rows.items():
        real = fields[key].default
        assert default == ("none" if real in (None, ()) else str(real)), key
    for schedule in re.findall(r"`(\w+_lr)`", rows["lr_sched"][0]):
        RunSettings(output_dir="o", max_epoch=1, global_batch_size=1, init_lr=1e-3, lr_sched=schedule)
    named = set(re.findall(r"`run\.([a-z_]+)", PAGE))
    assert named <= set(fields)
    (free,) = re.findall(r"may always change: (.*?) and others of that kind", PAGE, flags=re.DOTALL)
    assert set(re.findall(r"`run\.([a-z_]+)`", free)) <= FREE_RUN_KEYS


def test_fields_of_the_log_are_the_real_ones() -> None:
    assert set(table("measured")) - {"padding_share", "loss_spike"} == watch.MEASURED_FIELDS


def test_exit_codes_are_the_real_ones() -> None:
    stopping = PAGE[PAGE.index("## Stopping") : PAGE.index("## What is measured")]
    codes = [int(code) for code in re.findall(r"\| (\d+) \|$", stopping, flags=re.MULTILINE)]
    assert codes == [0, EXIT_USER_ERROR, heartbeat.EXIT_RANK_LOST, signals.EXIT_STOPPED, signals.EXIT_INTERRUPTED]


def test_the_rule_for_losses_is_the_real_one() -> None:
    assert f"last {watch.WINDOW_STEPS} steps" in PAGE
    assert f"{watch.MAD_TO_SIGMA} times" in PAGE
    assert f"at least {watch.MIN_SIGMA_SHARE:.0%}".replace("%", " %") in PAGE
    assert f"first {watch.MIN_STEPS} steps" in PAGE.replace("\n", " ")


def test_files_that_the_page_names_exist() -> None:
    named = re.findall(r"`((?:lavis_emovit|projects|tools|tests|docs)/[\w./]+)`", PAGE)
    assert len(named) > 8
    assert not [name for name in named if not (ROOT / name).exists()]
    presets = re.findall(r"`(\w+\.yaml)`", PAGE)
    assert all((ROOT / "projects" / "emovit" / "presets" / name).is_file() for name in presets) and len(presets) == 3


def test_figures_are_those_of_the_benchmarks() -> None:
    soak, saving = (json.loads((ROOT / "benchmarks" / f"{name}.json").read_text()) for name in ("soak", "saving"))
    text = " ".join(PAGE.split())
    ended = soak["ended_by"]
    for words in (
        f"{soak['minutes']:g} minutes, {soak['starts']} starts of {soak['runs']} runs",
        f"{ended['SIGKILL']} ended by SIGKILL",
        f"{ended['SIGTERM']} by SIGTERM and {ended['SIGUSR1']} by SIGUSR1, {soak['ended_in_a_save']} of them",
        f"{len(soak['differences'])} differences",
        f"takes {saving['saves']['waited for']['median_stall_steps']:.1f} steps",
    ):
        assert words in text
    assert soak["minutes"] >= 30 and soak["differences"] == []
    assert saving["saves"]["beside"]["median_stall_steps"] < 1, "a save stalls the training by less than one step"
    seconds = [place["median_s"] for place in saving["resume"]]
    assert f"{min(seconds):.2f} to {max(seconds):.2f} s" in text
    assert max(seconds) < 1.5 * min(seconds), "going on takes the same time at any position"
