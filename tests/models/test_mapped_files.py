"""Weights as views on their files.

- loading gives the tensors of transformers' own loading, bit for bit: parameters, ties, and buffers that no file has;
- frozen weights in their file's precision are views on it; trained and cast ones are not, and survive its removal;
- pages are given back only if they are a file's, and nothing is lost by it;
- in a fresh process, loading with a cast needs at most 1.1 times the bytes of the weights, and without one only those
  of the trained weights;
- with casts that an engine does later, the fingerprint and the weights are the same;
- a file in LAVIS's format gives the same model, mapped if torch saved it as a zip;
- LAVIS's loading for the CPU keeps the precisions; the tool for random weights writes the published shapes.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration

from lavis_emovit.models.instructblip.convert import convert
from lavis_emovit.models.instructblip.model import EmoVIT
from lavis_emovit.models.instructblip.settings import ModelSettings
from lavis_emovit.models.mapped_files import MappedFiles, casts_later, wanted_dtype

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="the system does not list mapped files")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_random_weights", ROOT / "tools" / "make_random_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small_config(tool: ModuleType, **text) -> InstructBlipConfig:
    config = tool.build_config("7b")
    sizes = {
        "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 4, "vocab_size": 1100,
    }  # fmt: skip
    return InstructBlipConfig(
        vision_config={
            "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
            "image_size": 224, "patch_size": 56,
        },
        qformer_config={
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
            "vocab_size": 1000, "max_position_embeddings": 160, "encoder_hidden_size": 24,
        },
        text_config={**config.text_config.to_dict(), **sizes, **text},
        num_query_tokens=32,
        image_token_index=3,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tool: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights")
    tool.write_folder(small_config(tool), path, shard_bytes=200_000)
    assert len(list(path.glob("*.safetensors"))) > 2
    return path


def settings_of(folder: Path, **changes) -> ModelSettings:
    return ModelSettings(**{"arch": "emovit_test", "pretrained": str(folder), "frozen_precision": "bf16", **changes})


@pytest.mark.parametrize("precision", PRECISIONS)
def test_same_bits_as_the_loading_of_transformers(folder, precision):
    model = EmoVIT.from_settings(settings_of(folder, frozen_precision=precision))
    other = InstructBlipForConditionalGeneration.from_pretrained(folder)
    trained = set(model.trained_parameter_names())
    assert dict(model.core.named_parameters()).keys() == dict(other.named_parameters()).keys()
    for name, parameter in other.named_parameters():
        wanted = parameter.to(torch.float32 if name in trained else PRECISIONS[precision])
        own = model.core.get_parameter(name)
        assert own.dtype == wanted.dtype and torch.equal(own, wanted), name
    buffers = dict(model.core.named_buffers())
    assert buffers.keys() == dict(other.named_buffers()).keys()
    assert any("inv_freq" in name for name in buffers)
    for name, buffer in other.named_buffers():
        assert torch.equal(buffers[name], buffer) and buffers[name].dtype == buffer.dtype, name


@pytest.mark.parametrize("precision", PRECISIONS)
def test_tied_weights_stay_one(tool, tmp_path, precision):
    tool.write_folder(small_config(tool, tie_word_embeddings=True), tmp_path, shard_bytes=10**9)
    path = tmp_path / "model.safetensors"
    file = {name: tensor.clone() for name, tensor in load_file(path).items() if not name.endswith("lm_head.weight")}
    save_file(file, path)
    model = EmoVIT.from_settings(settings_of(tmp_path, frozen_precision=precision)).core.language_model
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    saved = file["language_model.model.embed_tokens.weight"]
    assert torch.equal(model.lm_head.weight, saved.to(PRECISIONS[precision]))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_only_frozen_weights_in_the_files_precision_are_views(folder, precision):
    model = EmoVIT.from_settings(settings_of(folder, frozen_precision=precision))
    files, trained = MappedFiles(), set(model.trained_parameter_names())
    assert 0 < len(trained) < len(list(model.core.parameters()))
    held = {name for name, parameter in model.core.named_parameters() if files.hold(parameter)}
    frozen = {name for name, parameter in model.core.named_parameters() if name not in trained}
    assert held == (frozen if precision == "bf16" else set())


def test_trained_weights_of_a_float32_file_are_not_views(folder, tmp_path):
    for path in folder.rglob("*.json"):
        target = tmp_path / path.relative_to(folder)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    for path in folder.glob("*.safetensors"):
        save_file({name: tensor.float() for name, tensor in load_file(path).items()}, tmp_path / path.name)
    model = EmoVIT.from_settings(settings_of(tmp_path, frozen_precision="fp32"))
    files = MappedFiles()
    assert not any(files.hold(tensor) for tensor in model.trained_state_dict().values())
    assert files.hold(model.core.language_model.lm_head.weight)


def test_giving_back_loses_nothing(folder):
    anonymous = torch.arange(100_000)
    path = next(iter(sorted(folder.glob("*.safetensors"))))
    mapped = load_file(path)
    copies = {name: tensor.clone() for name, tensor in mapped.items()}
    files = MappedFiles()
    for tensor in (anonymous, anonymous[5:], anonymous[::2], torch.zeros(0), *mapped.values()):
        files.give_back(tensor)
    assert not files.hold(anonymous) and all(files.hold(tensor) for tensor in mapped.values())
    assert torch.equal(anonymous, torch.arange(100_000))
    assert all(torch.equal(mapped[name], copies[name]) for name in mapped)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_casts_of_an_engine_give_the_same_model(folder, precision):
    settings = settings_of(folder, frozen_precision=precision)
    now = EmoVIT.from_settings(settings)
    with casts_later():
        later = EmoVIT.from_settings(settings)
    assert later.frozen_fingerprint() == now.frozen_fingerprint()
    trained, files = set(now.trained_parameter_names()), MappedFiles()
    for name, parameter in later.core.named_parameters():
        assert files.hold(parameter) is (name not in trained)
        assert wanted_dtype(parameter) == now.core.get_parameter(name).dtype
        files.settle(parameter)
        assert not files.hold(parameter) and parameter.dtype == now.core.get_parameter(name).dtype
        assert torch.equal(parameter, now.core.get_parameter(name)), name


def test_lavis_keeps_the_precision_on_a_cpu(folder, monkeypatch):
    from lavis.models import load_model_and_preprocess

    monkeypatch.setenv("EMOVIT_WEIGHTS_VICUNA7B", str(folder))
    model, processors, _ = load_model_and_preprocess("emovit_vicuna7b", "vicuna7b", is_eval=True, device="cpu")
    assert {parameter.dtype for parameter in model.core.language_model.parameters()} == {torch.bfloat16}
    assert {tensor.dtype for tensor in model.trained_state_dict().values()} == {torch.float32}
    assert set(processors) == {"train", "eval"}
    image = torch.zeros(1, 3, 224, 224)
    assert model.score_candidates({"image": image, "prompt": "Which?"}, ["awe", "fear"]).isfinite().all()


# Imports first, so that only what loading needs is measured.
MEASURE = """
import json, sys
from pathlib import Path
import transformers.models.instructblip.modeling_instructblip, transformers.models.llama.modeling_llama
from transformers import AutoTokenizer
from lavis_emovit.models.instructblip.convert import convert
from lavis_emovit.models.instructblip.model import EmoVIT
from lavis_emovit.models.instructblip.settings import ModelSettings

def memory(key):
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[key].split()[0]) * 1024

folder, precision = sys.argv[1:]
for one in (folder, folder + "/qformer_tokenizer"):
    AutoTokenizer.from_pretrained(one)
Path("/proc/self/clear_refs").write_text("5")
before = {key: memory(key) for key in ("VmRSS", "RssAnon")}
model = EmoVIT.from_settings(ModelSettings(arch="emovit_test", pretrained=folder, frozen_precision=precision))
parameters = list(model.core.parameters())
print(json.dumps({
    "peak": memory("VmHWM") - before["VmRSS"],
    "own": memory("RssAnon") - before["RssAnon"],
    "weights": sum(parameter.nbytes for parameter in parameters),
    "trained": sum(parameter.nbytes for parameter in parameters if parameter.requires_grad),
}))
"""


@pytest.fixture(scope="module")
def large_folder(tool: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large")
    sizes = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 12, "vocab_size": 32001}
    tool.write_folder(small_config(tool, **sizes), path, shard_bytes=100_000_000)
    return path


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_peak_of_loading_in_a_fresh_process(large_folder, precision):
    command = [sys.executable, "-c", MEASURE, str(large_folder), precision]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert 380e6 < found["weights"] < 480e6
    if precision == "bf16":
        # Nothing is cast but the trained weights; Python objects and tokenizers take some megabytes.
        assert found["own"] < found["trained"] + 40e6
    assert found["peak"] <= 1.1 * found["weights"]


def test_the_tool_knows_the_published_shapes(tool):
    counts = tool.count_parameters(tool.build_config("7b"))
    # Llama-7B: 32 layers of four square and three 4096 x 11008 matrices and two norms; two tables; a last norm.
    layer = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    assert counts["language_model"] == 32 * layer + 2 * 32_001 * 4096 + 4096
    assert counts["language_projection"] == 768 * 4096 + 4096
    assert counts["query_tokens"] == 32 * 768
    vision_layer = 4 * 1408**2 + 4 * 1408 + 2 * 1408 * 6144 + 6144 + 1408 + 4 * 1408
    embeddings = 1408 * 3 * 14 * 14 + 1408 + 1408 + 257 * 1408
    assert counts["vision_model"] == 39 * vision_layer + embeddings + 2 * 1408
    half = tool.build_config("7b", divide_depth=2)
    assert (half.text_config.num_hidden_layers, half.vision_config.num_hidden_layers) == (16, 19)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_file_in_lavis_format_gives_the_same_model(tool, folder, tmp_path, precision, is_zip):
    config = InstructBlipConfig.from_pretrained(folder)
    tool.write_tokenizers(tmp_path / "llm", config.text_config.vocab_size - 1, config.qformer_config.vocab_size - 1)
    config.text_config.save_pretrained(tmp_path / "llm")
    convert(str(folder), tmp_path / "weights.pth")
    if not is_zip:
        content = torch.load(tmp_path / "weights.pth")
        torch.save(content, tmp_path / "weights.pth", _use_new_zipfile_serialization=False)
    beside = {"vision_heads": 4, "qformer_heads": 4, "llm_model": str(tmp_path / "llm")}
    beside["qformer_tokenizer"] = str(tmp_path / "llm" / "qformer_tokenizer")
    model = EmoVIT.from_settings(settings_of(tmp_path / "weights.pth", frozen_precision=precision, **beside))
    other = EmoVIT.from_settings(settings_of(folder, frozen_precision=precision))
    for name, parameter in other.core.named_parameters():
        own = model.core.get_parameter(name)
        assert own.dtype == parameter.dtype and torch.equal(own, parameter), name
    files = MappedFiles()
    assert files.hold(model.core.language_model.lm_head.weight) is (is_zip and precision == "bf16")
