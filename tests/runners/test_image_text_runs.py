"""Properties of whole runs with tiny image-text models of transformers on the drawn sample set, for six families.

- the training command trains adapters and a projector; stopped and started again, it ends bit for bit the same;
- exported to a plain folder or to an adapter of peft, transformers and peft compute the run's logits and answers;
- the export differs from its base in weights alone, and an adapter of a run can be trained on;
- two processes of plain torch, and of DeepSpeed with ZeRO stages 2 and 3, have the losses of one, and write answers;
- recomputed layers, rows without a shared image, and processes that read images change no loss; weights in 16, 8 and 4
  bits change it a little;
- a suite scores and asks a trained run, with a probe on what its projector makes of images;
- predictions of the run, of its archive and of its exported folder are those of its own evaluation.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file
from tiny_batches import NEEDED, QUESTIONS, batch_of, model_of, picture_of, write_recipe

sys.path.insert(0, str(Path(__file__).resolve().parent / "ranks"))

from jobs import finish, load_deepspeed, logs, start_ranks, stop_before

from lavis_emovit import load_tuned
from lavis_emovit.cli.main import main
from lavis_emovit.evaluation.predictions import read_predictions
from lavis_emovit.models.image_text.model import ImageText
from lavis_emovit.paths import list_checkpoints
from lavis_emovit.runners.logs import read_log
from lavis_emovit.train import main as train_main
from lavis_emovit.train import run_recipe
from lavis_emovit.tuned.loading import Tuned
from lavis_emovit.tuned.predictions import probabilities_of

pytestmark = pytest.mark.xdist_group("image_text_runs")  # one worker draws the data and trains each model, once

SIX = ("llava15", "llava_next", "qwen25vl", "qwen3vl", "gemma3", "smolvlm")
BUILD = {"images": {"storage": "small"}, "prepare": {"draw": {"images_per_class": 10, "size_px": 48}}}
RUN = {
    "runner": "runner_emovit", "task": "emotion_instruction", "max_epoch": 1, "max_steps": 3, "global_batch_size": 6,
    "batch_size_eval": 16, "init_lr": 1e-3, "lr_sched": "constant_lr", "warmup_steps": 0, "device": "cpu",
    "num_threads": 1, "seed": 3, "num_report_answers": 1, "tensorboard": False, "report": False, "keep_last": 9,
    "valid_splits": [], "test_splits": ["test"], "evaluate_before": False, "save_every_steps": 2, "ema_decay": 0.9,
}  # fmt: skip
LORA = {"parts": ["language_model"], "rank": 2, "alpha": 4}
# What some families are trained with; the rest trains adapters of the language model and the whole projector.
TRAINED = {
    "llava_next": {"trained_parts": "none", "lora": {**LORA, "parts": ["vision_encoder", "language_model"]}},
    "smolvlm": {"trained_parts": "none", "lora": {**LORA, "target_modules": ["q_proj", "v_proj"], "dropout": 0.1}},
    "qwen3vl": {"trained_parts": "none", "lora": {**LORA, "parts": ["projector", "language_model"]}},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers.utils.logging.disable_progress_bar()
    return tmp_path_factory.mktemp("image_text_runs")


@pytest.fixture(autouse=True)
def place(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All recipes share the data and the working directory."""
    monkeypatch.setenv("EMOVIT_DATA", str(root / "data"))
    monkeypatch.chdir(root)


@pytest.fixture(scope="module")
def recipe(root: Path) -> Callable[..., Path]:
    """Writes the recipe of a run of this name for a family."""

    def write(name: str, family: str, model: dict[str, Any] | None = None, **run: Any) -> Path:
        settings = {"lora": LORA, **TRAINED.get(family, {}), **(model or {})}
        return write_recipe(root, name, family, settings, {"emoset_sketch": {"build_info": BUILD}}, {**RUN, **run})

    return write


@pytest.fixture(scope="module")
def trained(root: Path, recipe: Callable[..., Path]) -> Callable[[str], Path]:
    """The run of a family that nothing disturbed."""

    def run_of(family: str) -> Path:
        if not (root / family).exists():
            assert train(recipe(family, family, report=family == "llava15")) == 0
        return root / family

    return run_of


def train(path: Path) -> int:
    return train_main(["--cfg-path", str(path)])


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_log(run / "log.jsonl") if row["event"] == "step"]


def last_checkpoint(run: Path) -> Path:
    return list_checkpoints(run / "checkpoints")[-1]


def tuned(run: Path) -> ImageText:
    """The model of a run, from its checkpoint."""
    node = yaml.safe_load((run / "config.yaml").read_text())["model"]
    return ImageText.from_config({**node, "load_finetuned": True, "finetuned": str(last_checkpoint(run))}).eval()


def plain(folder: Path) -> Any:
    return transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("family", SIX)
def test_stopped_and_started_again_ends_the_same(
    trained: Callable[[str], Path], recipe: Callable[..., Path], root: Path, family: str
) -> None:
    straight, name = trained(family), f"{family}_stopped"
    path = recipe(name, family, report=family == "llava15")
    stop_before(3, lambda: run_recipe(path))
    assert train(path) == 0
    assert len(losses(straight)) == 3 and losses(root / name) == losses(straight)
    last, other = last_checkpoint(straight), last_checkpoint(root / name)
    for file in sorted(last.iterdir()):
        if file.name not in ("MANIFEST.json", "config.yaml"):
            assert file.read_bytes() == (other / file.name).read_bytes(), file.name
    first, second = (json.loads((run / "metrics.json").read_text()) for run in (straight, root / name))
    assert first == second and first["splits"]["test"]["after"]["num_samples"] > 0
    rows = [json.loads(line) for line in (straight / "predictions" / "test-after.jsonl").read_text().splitlines()]
    assert all(len(row["scores"]) == 8 for row in rows) and rows[0]["answer"] is not None


@pytest.mark.parametrize("family", SIX)
def test_an_export_answers_like_the_run(trained: Callable[[str], Path], root: Path, family: str) -> None:
    run, base = trained(family), root / "weights" / family
    whole, adapter = root / "out" / family, root / "out" / f"{family}_adapter"
    assert main(["convert", str(run), str(whole)]) == 0
    assert main(["convert", str(run), str(adapter), "--adapter"]) == 0
    ours, theirs = tuned(run), plain(whole)
    batch = batch_of(ours)
    inputs = ours.inputs.padded(batch["image"], ours._read_pairs(batch)[0]).inputs
    with torch.no_grad():
        expected = ours.core(**inputs).logits
        torch.testing.assert_close(theirs(**inputs).logits, expected, atol=1e-4, rtol=1e-5)
        loaded = peft.PeftModel.from_pretrained(plain(base), adapter).eval()
        torch.testing.assert_close(loaded(**inputs).logits, expected, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(plain(base)(**inputs).logits, expected, atol=1e-2)
        # The text that plain transformers writes, with the folder's own processor.
        processor = transformers.AutoProcessor.from_pretrained(whole)
        message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTIONS[1]}]}]
        asked = processor.apply_chat_template(message, add_generation_prompt=True)
        begins = bool(processor.tokenizer.bos_token) and asked.startswith(processor.tokenizer.bos_token)
        given = processor(images=[[picture_of(0)]], text=[asked], return_tensors="pt", add_special_tokens=not begins)
        ids = theirs.generate(**given, max_new_tokens=6, do_sample=False, eos_token_id=list(ours.chat.end_ids))
    written = processor.tokenizer.decode(ids[0, given["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    answers = ours.generate({**batch, "prompt": QUESTIONS}, max_length=6, num_beams=1)
    assert answers[1] == written
    again = model_of(whole, max_side_px=48).eval()
    assert again.generate({**batch, "prompt": QUESTIONS}, max_length=6, num_beams=1) == answers
    # All but the weights are the files of the base.
    names = {file.name for file in base.iterdir()}
    assert {file.name for file in whole.iterdir()} == names | {"README.md", "emovit.json"}
    for name in names - {"model.safetensors"}:
        assert (whole / name).read_bytes() == (base / name).read_bytes(), name


def test_an_adapter_of_a_run_is_trained_on(
    trained: Callable[[str], Path], recipe: Callable[..., Path], root: Path
) -> None:
    """Its first loss is that of the run's weights, and it is resumed, exported and merged like `model.lora`."""
    run, adapter = trained("qwen25vl"), root / "out" / "qwen25vl_adapter"
    if not adapter.exists():
        assert main(["convert", str(run), str(adapter), "--adapter"]) == 0
    settings = {"lora": None, "adapter": str(adapter)}
    path = recipe("on", "qwen25vl", settings, max_steps=2)
    assert train(path) == 0
    model = model_of(root / "weights" / "qwen25vl", adapter=str(adapter), max_side_px=48)
    assert set(load_file(last_checkpoint(root / "on") / "model.safetensors")) == set(model.trained_parameter_names())
    # The weights that the run saved, not those of its moving average, are in its last checkpoint.
    start = load_file(last_checkpoint(run) / "model.safetensors")
    for name, value in model.trained_state_dict().items():
        assert torch.equal(value, start[name]), name
    assert main(["convert", str(root / "on"), str(root / "out" / "on"), "--adapter"]) == 0
    assert main(["convert", str(root / "on"), str(root / "out" / "on_whole")]) == 0
    assert main(["convert", str(root / "out" / "on"), str(root / "out" / "on_merged")]) == 0
    merged, whole = (load_file(root / "out" / name / "model.safetensors") for name in ("on_merged", "on_whole"))
    assert all(torch.equal(merged[name], whole[name]) for name in whole) and merged.keys() == whole.keys()


@pytest.mark.parametrize("family", SIX)
def test_every_engine_on_two_processes_trains_alike(recipe: Callable[..., Path], root: Path, family: str) -> None:
    """Training batches have one image more for one process than for the other, and test images are all of one."""
    pytest.importorskip("deepspeed")
    common = {"global_batch_size": 7, "max_steps": 4, "ema_decay": None, "save_every_steps": 9, "micro_batch_size": 2}
    model = {"scoring_pairs_per_pass": 5}  # several passes of one process, one of the other
    assert train(recipe(f"{family}_one", family, model, **common)) == 0
    expected = losses(root / f"{family}_one")
    load_deepspeed()
    zero = {**common, "engine": "deepspeed"}
    engines = {
        "torch": common,
        "zero2": {**zero, "deepspeed_config": "projects/emovit/deepspeed/zero2.json"},
        "zero3": {**zero, "deepspeed_config": "projects/emovit/deepspeed/zero3.json"},
    }
    if family not in ("llava15", "qwen25vl"):
        del engines["zero2"]
    for name, changes in engines.items():
        run = root / f"{family}_{name}"
        ranks = start_ranks(2, train, [recipe(run.name, family, model, **changes)], root / f"{run.name}_logs")
        assert finish(ranks) == [0, 0], logs(root / f"{run.name}_logs")[-4000:]
        assert losses(run) == pytest.approx(expected, rel=1e-4), name
        for row, wanted in zip(predictions(run), predictions(root / f"{family}_one"), strict=True):
            assert row["scores"] == pytest.approx(wanted["scores"], abs=1e-2), name
            assert row["answer"] == wanted["answer"], name


def predictions(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "predictions" / "test-after.jsonl").read_text().splitlines()]


def test_settings_that_change_no_loss(trained: Callable[[str], Path], recipe: Callable[..., Path], root: Path) -> None:
    changes = {
        "recomputed": {"use_grad_checkpoint": True, "grad_checkpoint_parts": ["vision_encoder", "language_model"]},
        "apart": {"share_prefix": False},
        "workers": {},
    }
    for family, names in {"qwen25vl": list(changes), "gemma3": ["recomputed"]}.items():
        expected = losses(trained(family))
        for name in names:
            model = changes[name]
            run = f"{family}_{name}"
            workers = 2 if name == "workers" else 0
            assert train(recipe(run, family, model, num_workers=workers, test_splits=[])) == 0
            assert losses(root / run) == pytest.approx(expected, rel=1e-5), name


@pytest.mark.parametrize("precision", ["bf16", "int8", "nf4"])
def test_frozen_weights_of_fewer_bits(
    trained: Callable[[str], Path], recipe: Callable[..., Path], root: Path, precision: str
) -> None:
    """Trained weights are float32, with autocast or without."""
    expected = losses(trained("llava15"))
    for amp in ("off", "bf16"):
        name = f"{precision}_{amp}"
        path = recipe(name, "llava15", {"frozen_precision": precision}, amp=amp, test_splits=[])
        assert train(path) == 0
        assert losses(root / name) == pytest.approx(expected, rel=0.05)
        assert losses(root / name) != expected
        state = load_file(last_checkpoint(root / name) / "model.safetensors")
        assert {value.dtype for value in state.values()} == {torch.float32}


@pytest.mark.parametrize("family", ["paligemma2", "blip2_opt"])
def test_families_without_a_chat_template(recipe: Callable[..., Path], root: Path, family: str) -> None:
    assert train(recipe(family, family, {"trained_parts": "none"}, max_steps=1)) == 0
    assert main(["convert", str(root / family), str(root / "out" / family)]) == 0
    ours = tuned(root / family)
    again = model_of(root / "out" / family, **NEEDED.get(family, {}), max_side_px=48).eval()
    batch = {**batch_of(ours), "prompt": QUESTIONS}
    torch.testing.assert_close(
        again.score_candidates(batch, ["awe", "fear"]), ours.score_candidates(batch, ["awe", "fear"]), atol=1e-3, rtol=0
    )
    assert again.generate(batch, max_length=4) == ours.generate(batch, max_length=4)


def test_a_suite_asks_a_trained_run(trained: Callable[[str], Path], root: Path) -> None:
    from lavis_emovit.evaluation.suite.recipe import load_suite
    from lavis_emovit.evaluation.suite.suite import run_suite

    run = trained("gemma3")
    node = yaml.safe_load((root / "gemma3.yaml").read_text())["model"]
    model = {"adapter": "lavis", "arch": node.pop("arch"), "checkpoint": str(run), "device": "cpu", "config": node}
    suite = {
        "name": "suite", "output_dir": str(root / "suite"), "batch_size": 8, "num_threads": 1, "report": False,
        "models": {"tuned": model}, "methods": ["likelihood_sum", "generation"],
        "benchmarks": {"set": {"dataset": "emoset_sketch", "config": {"build_info": BUILD}}},
    }  # fmt: skip
    path = root / "suite.yaml"
    path.write_text(yaml.safe_dump({"suite": suite}))
    rows = run_suite(load_suite(path, []))["benchmarks"]["set"]["results"]
    results = {(row["model"], row["method"]): row for row in rows}
    own = json.loads((run / "metrics.json").read_text())["splits"]["test"]["after"]
    assert set(results) == {("tuned", "likelihood_sum"), ("tuned", "generation"), ("probe", "direct")}
    assert {row["num_samples"] for row in rows} == {own["num_samples"]} and own["num_samples"] > 0


@pytest.mark.parametrize("family", ["llava15", "smolvlm"])
def test_predictions_are_those_of_the_run(
    trained: Callable[[str], Path], root: Path, family: str, request: pytest.FixtureRequest
) -> None:
    run, packed, exported = trained(family), root / f"{family}.emovit", root / f"{family}_whole"
    expected = {row.record_id: row for row in read_predictions(run / "predictions" / "test-after.jsonl")}

    def check(tuned: Tuned) -> None:
        found = {row.image: row for row in tuned.predict(root / "data" / "small" / "test")}
        assert found.keys() == expected.keys()
        for name, row in expected.items():
            assert found[name].probabilities == pytest.approx(probabilities_of(row.scores, 1.0), rel=1e-3)

    assert main(["pack", str(run), str(packed)]) == 0
    assert main(["convert", str(run), str(exported)]) == 0
    check(load_tuned(run))
    before, after = root / "weights" / family, root / "weights" / f"{family}_moved"
    before.rename(after)
    request.addfinalizer(lambda: after.rename(before))
    check(load_tuned(exported))  # complete
    check(load_tuned(packed, model={"path": str(after)}))
    # What was trained is seen in the scores.
    with pytest.raises(AssertionError):
        check(load_tuned(exported, model={"path": str(after)}))
    card = (exported / "README.md").read_text()
    assert f"Weights under it: {family}." in card and str(root) not in card
