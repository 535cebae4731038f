"""`emovit doctor --recipe`.

Properties:
- it needs neither weights nor data: missing ones are listed with what to do, and the exit code is 0;
- JSON and lines have the same numbers; parts sum to the total; text lengths, images and GPUs change what they should;
- what is wrong with an image-text model is named without its weights;
- overrides are written as for lavis.train; wrong recipes, kinds and numbers are refused.
"""

from __future__ import annotations

import json

import pytest
from tiny_families import make_llava15

from lavis_emovit.cli import doctor_recipe
from lavis_emovit.cli.main import main

pytestmark = pytest.mark.dry_run

QUICK = ["doctor", "--recipe", "projects/emovit/quickstart.yaml"]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMOVIT_DATA", str(tmp_path / "data"))
    return tmp_path


def estimated(capsys, *arguments):
    assert main([*QUICK, "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_json(capsys):
    report = estimated(capsys, "--gpu", "l4", "--gpus", "1,2", "--images", "1000")
    found = report["estimate"]
    assert report["ok"] and found["gpu"]["kind"] == "l4"
    assert {finding["name"] for finding in report["findings"]} == {"dataset", "weights", "disk"}
    assert found["parameters"]["total"] == sum(part["num_parameters"] for part in found["weights"])
    rows = {(row["variant"], row["partition"], row["num_gpus"]): row for row in found["rows"]}
    first = rows["as in the recipe", "torch", 1]
    weights = sum(part["num_bytes"] for part in found["weights"])
    trained = found["parameters"]["trained"]
    assert first["bytes"]["weights"] == weights and first["bytes"]["moments"] == 8 * trained
    assert first["fits"] and first["max_micro_batch"] > first["micro_batch"]
    for row in rows.values():
        assert row["bytes"]["total"] == sum(v for k, v in row["bytes"].items() if k not in ("total", "host"))
        assert row["hours"] == pytest.approx(found["steps"] / row["steps_per_hour"], abs=0.02)
    assert rows["as in the recipe", "zero3", 2]["bytes"]["weights"] == weights // 2
    assert ("as in the recipe", "zero3", 1) not in rows
    assert rows["recompute", "torch", 1]["bytes"]["activations"] < first["bytes"]["activations"]
    assert rows["nf4", "torch", 1]["bytes"]["weights"] < weights


def test_lines(capsys):
    assert main([*QUICK, "--gpus", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (total,) = [line.split() for line in lines if line.startswith("total")]
    (row,) = [line for line in lines if line.startswith("as in the recipe") and " torch " in line]
    assert row.split()[6] == total[1] and " yes " in row
    assert any(line.startswith("h100: 80 GB, 989.4 TFLOP/s") for line in lines)
    assert any("35% of the peak" in line and "not measured" in line for line in lines)


def test_options_change_the_estimate(capsys, monkeypatch):
    monkeypatch.setattr(doctor_recipe, "VARIANTS", {})  # each takes a dry run

    def first(*arguments):
        return estimated(capsys, "--gpus", "1", *arguments)["estimate"]["rows"][0]

    options = ("--options", "run.global_batch_size=8", "run.ema_decay=0.9")
    plain, longer = first(*options), first(*options, "--question-tokens", "20", "--answer-tokens", "5")
    assert plain["micro_batch"] == 8 and plain["bytes"]["moving average"] * 2 == plain["bytes"]["moments"]
    assert longer["bytes"]["activations"] < plain["bytes"]["activations"]
    shown = (f"datasets.emoset_sketch.vis_processor.{split}.box=both" for split in ("train", "eval"))
    assert first(*options, *shown)["bytes"]["activations"] > 1.3 * plain["bytes"]["activations"]
    faster = first(*options, "--utilisation", "0.9")
    assert faster["steps_per_hour"] >= plain["steps_per_hour"]
    paired = first(*options, "--pairs-per-image", "3")
    assert paired["bytes"]["logits"] == 3 * plain["bytes"]["logits"]


def test_missing_data_are_listed(capsys):
    sizes = [f"datasets.emoset.vis_processor.{use}.image_size=96" for use in ("train", "eval")]
    assert main([*QUICK, "--json", "--gpus", "1", "--options", *sizes]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    missing = [finding for finding in report["findings"] if finding["state"] == "warning"]
    assert not report["ok"] and [finding["name"] for finding in missing] == ["dataset"]
    assert missing[0]["detail"] == "emoset: missing" and "EmoSet-118K does not exist" in missing[0]["fix"]
    assert "--options datasets.emoset.build_info.prepare.root=FOLDER" in missing[0]["fix"]


def test_a_model_of_unknown_sizes_is_refused(capsys, monkeypatch):
    monkeypatch.setenv("EMOVIT_WEIGHTS_TINY", "nowhere/weights.pth")
    assert main([*QUICK, "--gpus", "1"]) == 2
    assert "the sizes of emovit_tiny are unknown" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpu", "h101"], "did you mean 'h100'?"),
        (["--gpus", "1,x"], "--gpus: expected numbers of GPUs such as 1,4,8 (got '1,x')"),
        (["--options", "run.max_epochs=3"], "did you mean 'max_epoch'?"),
        (["--options", "run.evaluate=true"], "only evaluates (run.evaluate)"),
    ],
)
def test_wrong_arguments_are_refused(capsys, arguments, message):
    assert main([*QUICK, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_overrides_need_a_recipe(capsys):
    assert main(["doctor", "--options", "run.seed=1"]) == 2
    assert "overrides need --recipe" in capsys.readouterr().err


def test_faults_of_an_image_text_model_are_listed(empty_folder, capsys):
    """Adapters on nothing are a finding beside the others, without weights; a model that is right has none."""
    folder = make_llava15(empty_folder / "llava15")
    for file in folder.glob("*.safetensors"):
        file.unlink()
    model = {"arch": "emovit_image_text", "path": str(folder), "max_side_px": 32}
    for name, ok in (("q_proj", True), ("nothing", False)):
        lora = {"parts": ["language_model"], "target_modules": [name]}
        recipe = {
            "model": {**model, "lora": lora},
            "datasets": {"emoset_sketch": None},
            "run": {
                "task": "emotion_instruction",
                "output_dir": "run",
                "max_epoch": 1,
                "global_batch_size": 4,
                "init_lr": 1e-3,
            },
        }
        path = empty_folder / f"{name}.yaml"
        path.write_text(json.dumps(recipe))
        code = main(["doctor", "--recipe", str(path), "--json", "--gpu", "l4", "--images", "10"])
        out = capsys.readouterr()
        if ok:
            findings = {one["name"]: one for one in json.loads(out.out)["findings"]}
            assert code == 0 and findings["weights"]["state"] == "ok"
        else:
            assert code == 2 and "no linear layer 'nothing' in language_model" in out.err
