"""Conversion of image-text models from trained tensors with the settings of a run beside them.

- adapters are added to their weights in full precision and rounded once, in the precision of the base; trained tensors
  keep theirs; `config.json` is the base's;
- trained tensors alone are those of the run, or of some parts, and load again as `model.finetuned`;
- what a target cannot hold, and what does not fit, is refused by name and nothing is written;
- processors and batches travel to other processes.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from safetensors.torch import load_file, save_file
from tiny_batches import batch_of, model_of

from lavis_emovit.cli.main import main
from lavis_emovit.models.image_text.model import ImageText

LORA = {"parts": ["language_model"], "rank": 2, "alpha": 6}


def run_of(base: Path, folder: Path, **settings: Any) -> tuple[Path, ImageText]:
    """A folder as a run leaves one, with random trained tensors."""
    model = model_of(base, **settings)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in model.trained_state_dict().values():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
    folder.mkdir(parents=True)
    save_file(
        {name: value.contiguous() for name, value in model.trained_state_dict().items()}, folder / "a.safetensors"
    )
    node = {"arch": "emovit_image_text", "path": str(base), "frozen_precision": "fp32", **settings}
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": node}))
    return folder / "a.safetensors", model.eval()


def test_adapters_are_rounded_once(folder_of, tmp_path):
    base = tmp_path / "base"
    core = transformers.AutoModelForImageTextToText.from_pretrained(folder_of("llava15"), dtype=torch.bfloat16)
    core.save_pretrained(base)
    for file in folder_of("llava15").iterdir():
        if not (base / file.name).exists():
            (base / file.name).write_bytes(file.read_bytes())
    run, _ = run_of(base, tmp_path / "run", lora=LORA)
    assert main(["convert", str(run), str(tmp_path / "out")]) == 0
    before, after, trained = (
        load_file(path) for path in (base / "model.safetensors", tmp_path / "out" / "model.safetensors", run)
    )
    assert before.keys() == after.keys()
    content = json.loads((tmp_path / "out" / "config.json").read_text())
    assert content == json.loads((base / "config.json").read_text()) and "emovit" not in json.dumps(content)
    layer = "language_model.layers.0.self_attn.q_proj"
    (stored,) = (name for name in before if name.endswith("layers.0.self_attn.q_proj.weight") and "language" in name)
    down, up = (trained[f"model.{layer}.lora_{side}.default.weight"] for side in "AB")
    expected = (before[stored].float() + 6 / 2 * up @ down).bfloat16()
    assert torch.equal(after[stored], expected) and not torch.equal(after[stored], before[stored])
    changed = {
        name for name in before if after[name].dtype == torch.float32 or not torch.equal(after[name], before[name])
    }
    projector = {name for name in changed if "projector" in name}
    assert len(projector) == 4 and all(after[name].dtype == torch.float32 for name in projector)
    assert all("layers" in name and "language_model" in name for name in changed - projector)
    assert all(after[name].dtype == torch.bfloat16 for name in changed - projector)


def test_trained_tensors_alone(folder_of, tmp_path):
    base = folder_of("qwen25vl")
    run, model = run_of(base, tmp_path / "run", lora=LORA)
    assert main(["convert", str(run), str(tmp_path / "all.safetensors")]) == 0
    own, written = load_file(run), load_file(tmp_path / "all.safetensors")
    assert own.keys() == written.keys() and all(torch.equal(own[name], written[name]) for name in own)
    again = model_of(base, lora=LORA, load_finetuned=True, finetuned=str(tmp_path / "all.safetensors")).eval()
    batch = batch_of(model)
    assert torch.equal(again.answer_loss(batch).loss_sum, model.answer_loss(batch).loss_sum)
    assert main(["convert", str(run), str(tmp_path / "some.safetensors"), "--parts", "projector"]) == 0
    some = load_file(tmp_path / "some.safetensors")
    assert set(some) == {name for name in own if "visual.merger" in name}
    # Without adapters the base needs no settings of a run.
    assert main(["convert", str(tmp_path / "some.safetensors"), str(tmp_path / "whole"), "--base", str(base)]) == 0
    whole = model_of(tmp_path / "whole").trained_state_dict()
    assert all(torch.equal(whole[name], some[name]) for name in some)
    assert main(["convert", str(base), str(tmp_path / "vision.safetensors"), "--parts", "vision"]) == 0
    assert all("visual" in name and "merger" not in name for name in load_file(tmp_path / "vision.safetensors"))


def test_what_does_not_fit_is_refused(folder_of, tmp_path, capsys):
    llava, following = folder_of("llava15"), folder_of("llava_next")
    run, _ = run_of(following, tmp_path / "next", lora=LORA)
    plain, _ = run_of(llava, tmp_path / "plain")
    adapted, _ = run_of(llava, tmp_path / "adapted", lora=LORA)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    alone = tmp_path / "alone" / "a.safetensors"
    alone.parent.mkdir()
    alone.write_bytes(adapted.read_bytes())
    out = str(tmp_path / "out")
    for arguments, message in {
        (str(run), out, "--adapter"): "also trained model.image_newline (1 tensors)",
        (str(plain), out, "--adapter"): "has no adapters; write a whole folder",
        (str(adapted), f"{out}.safetensors", "--adapter"): "--adapter writes a folder",
        (str(adapted), f"{out}.pth"): "LAVIS's format, which holds InstructBLIP alone",
        (str(adapted), out, "--trimmed"): "--trimmed: for LAVIS's format",
        (str(adapted), str(tmp_path / "full"), "--overwrite"): "a folder of something else",
        (str(alone), out, "--base", str(llava)): "has adapters, whose settings are in",
        (str(plain), out, "--base", str(folder_of("qwen25vl"))): "does not fit the base",
        (str(llava), f"{out}.safetensors"): "is a whole model; name the parts to write with --parts",
        ("package:emovit_tiny", out, "--adapter"): "is no image-text model of transformers",
    }.items():
        assert main(["convert", *arguments]) == 2, arguments
        assert message in capsys.readouterr().err.replace("\n", " "), arguments
    assert not list(tmp_path.glob("out*")) and (tmp_path / "full" / "mine.txt").exists()


def test_processors_and_batches_travel(build):
    model = build("qwen25vl").eval()
    batch = batch_of(model)
    again = pickle.loads(pickle.dumps(batch))
    assert torch.equal(model.answer_loss(again).loss_sum, model.answer_loss(batch).loss_sum)
    processor, _ = pickle.loads(pickle.dumps(model.processors()))
    assert processor.chat.prompts(["How?"]) == model.chat.prompts(["How?"])
