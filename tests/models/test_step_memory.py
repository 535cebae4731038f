"""Properties of the counted memory of a training step.

- for random models of both kinds, with frozen, trained, adapted and recomputed parts and several precisions, every part
  is within 10 % of what torch's allocator reports for a real step; a wrong number of bytes in the formula is found;
- counts are linear in the images of a micro-batch;
- the published models have their published numbers of parameters, without any file of weights; tied weights count once;
- the bytes of a quantised layer are those that bitsandbytes allocates;
- recomputing keeps less and computes more, and a model of unknown sizes is refused by name.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from lavis_emovit.errors import ConfigError
from lavis_emovit.models.instructblip.model import EmoVIT
from lavis_emovit.models.instructblip.settings import ModelSettings
from lavis_emovit.models.quantize import quantize_language_model, quantized_bytes
from lavis_emovit.models.step_memory import StepLoad
from lavis_emovit.runners import state_memory
from lavis_emovit.runners.estimate import StepModel

pytestmark = pytest.mark.dry_run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("memory_estimate", ROOT / "tools" / "bench" / "memory_estimate.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


BF16 = {"frozen_precision": "bf16"}
ADAPTED = {**BF16, "lora": {"parts": ["language_model"]}, "trained_parts": "none"}


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {}},
        {"model": {}, "kind": "t5"},
        {"model": BF16, "amp": "bf16", "pairs_per_image": 3, "answer_tokens": 30},
        {"model": {**BF16, "use_grad_checkpoint": True}, "amp": "bf16", "num_images": 4},
        {"model": {"trained_parts": "all", "attention": "eager"}},
        {"model": {**BF16, "qformer_text_input": False, "trained_parts": "vision_layernorm"}, "question_tokens": 90},
        {"model": ADAPTED, "amp": "bf16"},
        {"model": {"frames": {"convolution_layers": 1}}, "num_frames": 3},
    ],
    ids=str,
)
def test_every_part_is_within_ten_percent_of_a_real_step(tool, tmp_path, changes):
    if "lora" in changes["model"]:
        pytest.importorskip("peft")
    result = tool.run_case(tool.Case("tiny", **changes), tmp_path)
    assert result["error"].keys() == {"weights", "gradients", "moments", "activations", "logits", "peak"}
    assert {name: error for name, error in result["error"].items() if abs(error) > tool.LIMIT} == {}


def test_a_wrong_formula_is_found(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(state_memory, "MOMENTS", 4)
    error = tool.run_case(tool.Case("tiny", {}), tmp_path)["error"]
    assert error["moments"] == -0.5 and abs(error["peak"]) > 0.05


def _settings(tool, folder, **changes) -> ModelSettings:
    tool.make_config(tool.Case("tiny", {})).save_pretrained(folder)
    return ModelSettings(arch="emovit_test", pretrained=str(folder), image_size=56, **changes)


def test_counts_are_linear_in_the_images(tool, tmp_path):
    settings = _settings(tool, tmp_path, **BF16)

    def count(images):
        return EmoVIT.step_memory(settings, StepLoad(images, 2, 20, 10), "bf16")

    model = StepModel(count(1), count(8), 1, 8)
    for images in (1, 3, 8, 40):
        for name in ("activations", "logits", "peak", "flops", "model_flops"):
            assert getattr(model.at(images), name) == pytest.approx(getattr(count(images), name), rel=0.03), name


def test_recomputing_keeps_less_and_computes_more(tool, tmp_path):
    kept, again = (
        EmoVIT.step_memory(_settings(tool, tmp_path, use_grad_checkpoint=on), StepLoad(2, 1, 60, 20), "off")
        for on in (False, True)
    )
    assert again.activations < 0.8 * kept.activations
    assert again.flops > 1.1 * kept.flops and again.model_flops == kept.model_flops
    # Attention, which is much in so narrow a model, is not among the operations of the model.
    assert kept.model_flops < kept.flops < 1.5 * kept.model_flops


def test_published_models_have_their_published_sizes(monkeypatch):
    """Llama-7B has 6,738,415,616 parameters; one more token has a row in each of two tables of width 4096."""
    monkeypatch.delenv("EMOVIT_WEIGHTS_VICUNA7B", raising=False)
    settings = ModelSettings(arch="emovit_vicuna7b", pretrained="nobody/has-this", frozen_precision="nf4")
    step = EmoVIT.step_memory(settings, StepLoad(1, 1, 4, 2), "bf16")
    parts: dict[str, int] = {}
    for part in step.weights:
        parts[part.part] = parts.get(part.part, 0) + part.num_parameters
    assert parts["language_model"] == 6_738_415_616 + 2 * 4096
    assert round(sum(parts.values()) / 1e9, 2) == 7.91 and round(step.num_trained / 1e6) == 189
    packed = [part for part in step.weights if part.precision == "nf4"]
    tables = 2 * 32_001 * 4096 + (2 * 32 + 1) * 4096  # embeddings, head and norms stay bfloat16
    assert [part.num_parameters for part in packed] == [parts["language_model"] - tables]


def test_tied_weights_count_once(tool, tmp_path):
    config = tool.make_config(tool.Case("tiny", {}, kind="t5"))
    config.save_pretrained(tmp_path)
    settings = ModelSettings(arch="emovit_test", pretrained=str(tmp_path), image_size=56)
    counted = sum(part.num_parameters for part in EmoVIT.step_memory(settings, StepLoad(1, 1, 4, 2), "off").weights)
    with torch.device("meta"):
        core = tool_core(config)
    assert counted == sum(parameter.numel() for parameter in core.parameters())


def tool_core(config):
    from transformers import InstructBlipForConditionalGeneration

    return InstructBlipForConditionalGeneration(config)


@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_quantised_bytes_are_those_of_bitsandbytes(precision):
    library = pytest.importorskip("bitsandbytes")
    if "cpu" not in getattr(library, "supported_torch_devices", ()):
        pytest.skip("this bitsandbytes needs a GPU")

    class Language(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = torch.nn.Linear(320, 192, bias=False), torch.nn.Linear(192, 8)

        def get_output_embeddings(self):
            return self.head

    model = Language()
    expected = quantized_bytes(model.layer.weight, precision)
    quantize_language_model(model, precision, torch.bfloat16)
    weight = model.layer.weight
    found = weight.numel() * weight.element_size()
    if precision == "int8":
        model.layer.init_8bit_state()
        found += model.layer.state.SCB.numel() * 4
    else:
        state = weight.quant_state
        tensors = [state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
        found += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert expected == found


def test_unknown_sizes_are_refused(tmp_path):
    settings = ModelSettings(arch="emovit_other", pretrained=str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match=r"the sizes of emovit_other are unknown.*no key `shapes`"):
        EmoVIT.step_memory(settings, StepLoad(1, 1, 4, 2), "off")
