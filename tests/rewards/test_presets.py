"""Presets of rewards.

Properties:
- every preset is loaded by its name, states its source and has a header as all YAML files, whose launch command and
  override work;
- the weights are the published ones: EMO-R3's paper and code differ, and have a maximum of 1 and 1.1;
- an answer in the template's form with the true label has the maximum of every preset.
"""

from __future__ import annotations

import re
import shlex

import pytest
import yaml

from lavis_emovit.cli import main as command
from lavis_emovit.emotion.templates import get_template
from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.rewards import Asked
from lavis_emovit.rewards.presets import load_preset, preset_files

NAMES = ("affectgpt_r1", "affectgpt_r1_think", "emo_r3", "emo_r3_code", "emocaliber", "esj", "facial_r1", "grpo_plain")


def test_all_are_there():
    assert tuple(preset_files()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_header(name, tmp_path, capsys):
    text = preset_files()[name].read_text()
    header = "\n".join(line for line in text.split("\n\n")[0].splitlines())
    assert all(line.startswith("#") for line in header.splitlines())
    launch = re.search(r"# Launch: +emovit (export rewards .*)", header)[1]
    override = re.search(r"# Override: +(--options .*)", header)[1]
    assert re.search(r"# Needs: .+", header) and re.search(r"# Memory: .*\d [KMG]B", header)
    arguments = shlex.split(f"{launch} {override}".replace("rewards.py", str(tmp_path / "rewards.py")))
    if name.startswith("emo_r3"):
        assert "--leave-out reflect_image,reflect_emotion" in header
        arguments += ["--leave-out", "reflect_image,reflect_emotion"]
    assert command.main(arguments) == 0
    key, _, value = override.removeprefix("--options ").partition("=")
    reward, setting = key.removeprefix("rewards.").split(".")
    changed = load_preset(name, [f"{key}={value}"]).rewards[reward]
    assert str(getattr(changed, setting)) == value
    assert getattr(changed, setting) != getattr(load_preset(name).rewards[reward], setting)
    assert yaml.safe_load(text)["source"]


@pytest.mark.parametrize("name", NAMES)
def test_right_answer_has_the_maximum(name, make_record):
    preset = load_preset(name)
    label, fields = "fear", {"emotion": "fear", "action_units": {1: 1.0, 4: 1.0}}
    if name == "esj":
        label, fields = "correct", {"emotion": "correct", "label_set": "labels: correct, incorrect"}
    record = make_record(**fields)
    template = get_template(preset.template)
    reasoning = dict.fromkeys(template.part_names, "Fear: AU1 and AU4")
    answer = template.write({**reasoning, "answer": label, **({"confidence": "1"} if name == "emocaliber" else {})})
    if name == "emocaliber":  # 1 is no probability there
        answer = answer.replace(">1<", ">0.999999<")

    def model(questions):
        return ["yes" if question.with_image else "fear" for question in questions]

    together = preset.sum(Asked(model=model))
    together.check([record])
    (score,) = together.score([answer], [record])
    assert score.total == pytest.approx(together.range[1], abs=1e-5)
    (bad,) = together.score(["nothing"], [record])
    assert bad.total < score.total - 0.5


def test_weights_of_emo_r3():
    paper, code = (load_preset(name) for name in ("emo_r3", "emo_r3_code"))
    weights = {name: settings.weight for name, settings in paper.rewards.items()}
    assert weights == {"label_exact": 0.8, "reflect_image": 0.05, "reflect_emotion": 0.05, "format_tags": 0.1}
    assert {name: settings.weight for name, settings in code.rewards.items()} == {
        **weights,
        "reflect_image": 0.1,
        "reflect_emotion": 0.1,
    }
    assert paper.sum().range == pytest.approx((0.0, 1.0)) and code.sum().range == pytest.approx((0.0, 1.1))
    assert paper.schedule == code.schedule and paper.schedule.kl == 0.01


def test_own_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("template: direct\nsource: me\nrewards:\n  length: {most: 5}\n  label_exact:\n")
    preset = load_preset(str(path), leave_out=["label_exact"])
    assert preset.name == "mine" and list(preset.rewards) == ["length"]
    path.write_text("template: dirct\nsource: me\nreward: {}\n")
    with pytest.raises(ConfigError) as caught:
        load_preset(str(path))
    assert any("unknown answer template 'dirct'" in problem for problem in caught.value.problems)
    assert "mine.reward: unknown key (did you mean 'rewards'?)" in caught.value.problems
    path.write_text("a: [1\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_preset(str(path))
    with pytest.raises(DataError, match=r"unknown preset of rewards 'emo-r3' .did you mean 'emo_r3'"):
        load_preset("emo-r3")
