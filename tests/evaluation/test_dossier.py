"""The dossier of published numbers.

- Every confirmed published result is in exactly one experiment, and no experiment has numbers from memory.
- docs/reproduce.md has what `emovit reproduce` prints, with the values of reference_results.json.
- Every recipe of its commands loads with the options shown, and files that it names exist.
- An experiment says that it was not run, or has a test that runs it.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from lavis_emovit.cli.main import main
from lavis_emovit.errors import ConfigError
from lavis_emovit.evaluation.dossier import Dossier, describe, load_dossier
from lavis_emovit.evaluation.references import reference_results
from lavis_emovit.settings import valid_settings

ROOT = Path(__file__).resolve().parents[2]
DOSSIER = load_dossier()
COMMANDS = [command for experiment in DOSSIER.experiments.values() for command in experiment.commands]


def test_every_confirmed_result_is_shown_once():
    shown = [result for experiment in DOSSIER.experiments.values() for result in experiment.results]
    confirmed = [result for result in reference_results().results if result.status != "from memory"]
    assert len(shown) == len(confirmed) > 80 and all(result in shown for result in confirmed)
    values = DOSSIER.model_dump()
    values["experiments"]["again"] = values["experiments"]["heldin"]
    with pytest.raises(ConfigError, match="InstructBLIP on emoset is in 2 experiments"):
        valid_settings(Dossier, values, "dossier", "test")
    del values["experiments"]["again"], values["experiments"]["heldin"]
    with pytest.raises(ConfigError, match="InstructBLIP on emoset is in 0 experiments"):
        valid_settings(Dossier, values, "dossier", "test")


def test_the_page_is_what_the_command_prints(capsys):
    assert main(["reproduce"]) == 0
    printed = capsys.readouterr().out
    page = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
    shown = page.partition("<!-- dossier: begin -->\n")[2].partition("<!-- dossier: end -->")[0]
    assert shown.strip() == printed.strip(), "put the output of `emovit reproduce` between the marks of the page"
    assert "| EmoVIT | emoset (8 classes) | accuracy | 83.36 % | unknown | second hand |" in printed


def test_one_experiment_or_the_list(capsys):
    assert main(["reproduce", "heldin"]) == 0
    assert capsys.readouterr().out.strip() == describe("heldin", DOSSIER.experiments["heldin"]).strip()
    assert main(["reproduce", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(f"\n{name}: " in f"\n{listed}" for name in DOSSIER.experiments) and "| model |" not in listed
    assert main(["reproduce", "heldout_"]) == 2
    assert "no experiment 'heldout_' (did you mean 'heldout'?)" in capsys.readouterr().err


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("python -m lavis.")])
def test_recipes_load(command):
    from lavis_emovit.evaluation.suite.recipe import load_suite
    from lavis_emovit.runners.config import Config

    words = shlex.split(command)
    assert words[:2] == ["python", "-m"] and words[2] in ("lavis.train", "lavis.evaluate") and words[3] == "--cfg-path"
    options = words[6:] if "--options" in words else []
    if words[2] == "lavis.train":
        assert Config.load(words[4], options).run.output_dir
    else:
        assert load_suite(words[4], options, check_names=True).models


def test_nothing_is_called_reproduced_that_was_not_run():
    run = {name for name, experiment in DOSSIER.experiments.items() if not experiment.status.startswith("not run")}
    assert run == {"emotion6_probe"}
    for experiment in DOSSIER.experiments.values():
        for name in re.findall(r"projects/[\w/]+\.yaml", experiment.status):
            assert (ROOT / name).is_file()
