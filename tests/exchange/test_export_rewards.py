"""`emovit export rewards`: plug-in files of rewards, called as their trainers call them.

Properties:
- verl, EasyR1 and ms-swift get the totals of the preset, and verl and EasyR1 its parts, from records as `emovit export
  data` writes them into the columns that these trainers pass on;
- a record that is missing or lacks what a reward needs is an error, not a reward;
- unknown presets, formats, overrides and rewards are refused, and so are rewards that have to ask the model.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
import types

import pytest

from lavis_emovit.cli import main as command
from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.exchange.rewards import export_rewards
from lavis_emovit.records import EmotionRecord

RECORD = EmotionRecord(id="1", image="1.jpg", split="train", source="s", emotion="awe", label_set="mikels8")
RIGHT, WRONG = "<think>a</think><answer>awe</answer>", "<answer>fear</answer>"


def load(path, name="custom_reward_fn"):
    """As EasyR1 and verl load such a file."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_verl(tmp_path):
    export_rewards("grpo_plain", "verl", tmp_path / "r.py", options=["rewards.format_tags.weight=0.25"])
    compute_score = load(tmp_path / "r.py").compute_score
    # reward_manager/naive.py of verl 0.9.1 adds these two to `extra_info`, which is a column of the data.
    extra_info = {"emovit_record": RECORD.to_json(), "num_turns": None, "rollout_reward_scores": {}}
    common = {"data_source": "s", "ground_truth": "Predict emotion: awe", "extra_info": extra_info}
    assert compute_score(solution_str=RIGHT, **common) == {"score": 1.25, "label_exact": 1.0, "format_tags": 1.0}
    assert compute_score(solution_str=WRONG, **common) == {"score": 0.0, "label_exact": 0.0, "format_tags": 0.0}
    for nothing in ({}, None):
        with pytest.raises(DataError, match="the trainer passed no 'emovit_record'"):
            compute_score(solution_str=RIGHT, **{**common, "extra_info": nothing})
    unlabelled = RECORD.model_copy(update={"emotion": None}).to_json()
    with pytest.raises(ConfigError, match="reward 'label_exact' needs a label: record '1'"):
        compute_score(solution_str=RIGHT, **{**common, "extra_info": {"emovit_record": unlabelled}})


def test_easyr1(tmp_path):
    export_rewards("grpo_plain", "easyr1", tmp_path / "r.py")
    module = load(tmp_path / "r.py")
    assert module.REWARD_TYPE == "batch"
    inputs = [{"response": one, "response_length": 9, "ground_truth": RECORD.to_json()} for one in (RIGHT, WRONG)]
    assert module.compute_score(inputs) == [
        {"overall": 1.5, "label_exact": 1.0, "format_tags": 1.0},
        {"overall": 0.0, "label_exact": 0.0, "format_tags": 0.0},
    ]


@pytest.fixture
def orms(monkeypatch):
    """The registry of ms-swift, with its base class; ms-swift itself needs an older transformers."""

    class ORM:
        def __init__(self, args=None, **kwargs):
            self.args = args

    swift, rewards = types.ModuleType("swift"), types.ModuleType("swift.rewards")
    rewards.ORM, rewards.orms = ORM, {}
    monkeypatch.setitem(sys.modules, "swift", swift)
    monkeypatch.setitem(sys.modules, "swift.rewards", rewards)
    return rewards.orms


def test_ms_swift(tmp_path, orms):
    export_rewards("grpo_plain", "ms-swift", tmp_path / "r.py")
    load(tmp_path / "r.py")
    reward = orms["emovit"](args=None)
    columns = {"emovit_record": [RECORD.to_json()] * 2, "messages": [[], []], "trainer_state": None}
    assert reward([RIGHT, WRONG], **columns) == [1.5, 0.0]
    with pytest.raises(DataError, match="the trainer passed no 'emovit_record'"):
        reward([RIGHT], messages=[[]])


def test_exported_data_has_the_record(folder, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert command.main(["export", "data", str(folder), "--format", "verl", "--out", str(tmp_path / "d")]) == 0
    rows = parquet.read_table(tmp_path / "d" / "test.parquet").to_pylist()
    export_rewards("grpo_plain", "verl", tmp_path / "r.py")
    compute_score = load(tmp_path / "r.py").compute_score
    categorical = [row for row in rows if row["kind"] == "categorical"]
    assert categorical
    for row in categorical:
        truth = row["reward_model"]["ground_truth"]
        answer = f"<think>a</think><answer>{truth}</answer>"
        found = compute_score(
            data_source=row["data_source"], solution_str=answer, ground_truth=truth, extra_info=row["extra_info"]
        )
        assert found["score"] == 1.5


def test_command(tmp_path, capsys):
    out = tmp_path / "r.py"
    arguments = ["export", "rewards", "emo_r3", "--format", "verl", "--out", str(out)]
    assert command.main(arguments) == command.EXIT_USER_ERROR
    shown = capsys.readouterr().err
    assert "reward 'reflect_image' asks the model or a judge during training, which verl does not offer" in shown
    assert "--leave-out reflect_image,reflect_emotion exports the others" in shown
    left_out = ["--leave-out", "reflect_image,reflect_emotion", "--options", "rewards.label_exact.weight=0.7"]
    assert command.main([*arguments, *left_out]) == 0
    assert f"custom_reward_function.path={out}" in capsys.readouterr().out
    assert load(out).SETTINGS["label_exact"] == {"weight": 0.7}
    assert command.main([*arguments, *left_out]) == command.EXIT_USER_ERROR
    assert "already exists; use another --out, or --overwrite" in capsys.readouterr().err
    assert command.main([*arguments, *left_out, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("name", "format_name", "options", "leave_out", "message"),
    [
        ("emo_r4", "verl", [], [], "unknown preset of rewards 'emo_r4'"),
        ("esj", "verk", [], [], "--format: unknown format 'verk'"),
        ("esj", "verl", ["rewards.label_exact.wight=1"], [], "rewards.label_exact.wight: unknown key"),
        ("esj", "verl", ["rewards.nothing.weight=1"], [], "rewards.nothing: unknown reward"),
        ("esj", "verl", [], ["length"], "length: no reward of the preset"),
        ("esj", "verl", [], ["label_exact", "format_tags"], "names no reward"),
    ],
)
def test_refused(tmp_path, name, format_name, options, leave_out, message):
    with pytest.raises((ConfigError, DataError), match=message):
        export_rewards(name, format_name, tmp_path / "r.py", options=options, leave_out=leave_out)
    assert not (tmp_path / "r.py").exists()


@pytest.mark.parametrize("name", ['a"""b', "back\\slash", "\\N{x}", 'end"', "new\nline"])
def test_names_of_files_are_escaped_in_the_plug_in(tmp_path, name):
    preset = tmp_path / f"{name}.yaml"
    preset.write_text("template: think_answer\nsource: mine\nrewards: {label_exact: {weight: 0.5}}\n")
    export_rewards(str(preset), "verl", tmp_path / f"{name}.py")
    module = ast.parse((tmp_path / f"{name}.py").read_text())
    assert f"preset {name}." in ast.get_docstring(module, clean=False)
