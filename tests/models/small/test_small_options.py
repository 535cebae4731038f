"""Properties of the options of a model with the small family, on random weights.

- every set of trained parts learns in each of its tensors but those that cannot, and nothing else moves;
- adapters on the Q-Former and the language model begin as the model without them, learn, and merge;
- frozen bf16 and fp16 keep trained parts in float32; 8 and 4 bits quantise the language model alone;
- recomputed layers and groups by length change no loss and no gradient; compiled parts neither;
- trained tensors survive saving and loading; those of other parts are refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_folder import load, make_batch, write_folder
from torch import nn

from lavis_emovit.errors import ConfigError, WeightsError
from lavis_emovit.models import lora
from lavis_emovit.models.small.model import EmoVITSmall
from lavis_emovit.runners.compiling import compile_parts

WORDS = ["awe", "sadness", "it is dark"]


def losses_after(model: EmoVITSmall, steps: int) -> list[float]:
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3, weight_decay=0.0)
    losses = []
    for _ in range(steps):
        loss = model(make_batch())["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("parts", ["emovit", "all", "vision_encoder", "query_tokens,language_model"])
def test_what_is_trained_moves_and_nothing_else(small: Path, parts: str) -> None:
    model = load(small, trained_parts=parts)
    before = {name: tensor.detach().clone() for name, tensor in model.core.named_parameters()}
    frozen = model.frozen_fingerprint()
    losses = losses_after(model, 3)
    assert losses[-1] < losses[0]
    moved = {name for name, tensor in model.core.named_parameters() if not torch.equal(tensor, before[name])}
    trained = set(model.trained_parameter_names())
    assert moved <= trained and trained == {n for n, p in model.core.named_parameters() if p.requires_grad}
    # Rounding alone moves the biases of keys, which change no probability.
    assert {name for name in trained - moved if not name.endswith("key.bias")} <= set(model.dead_parameters())
    assert parts == "all" or model.frozen_fingerprint() == frozen


def test_nothing_is_trained(small: Path) -> None:
    model = load(small, trained_parts="none")
    assert model.trained_parameter_names() == [] and model.parameter_counts()["trained"] == 0
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("part", ["qformer", "language_model"])
def test_adapters_learn_and_merge(small: Path, part: str) -> None:
    pytest.importorskip("peft", reason="adapters need the extra `lora`")
    plain = load(small).eval()
    model = load(small, lora={"parts": part, "rank": 4, "alpha": 8}, trained_parts="none")
    batch = make_batch()
    expected = plain.score_candidates(batch, WORDS)
    torch.testing.assert_close(model.eval().score_candidates(batch, WORDS), expected, rtol=1e-5, atol=1e-4)
    assert model.frozen_fingerprint() == load(small, trained_parts="none").frozen_fingerprint()
    names = model.trained_parameter_names()
    assert names and all(".lora_" in name and name.startswith(part) for name in names)
    losses = losses_after(model, 6)
    assert losses[-1] < losses[0] - 0.01
    tuned = model.eval().score_candidates(batch, WORDS)
    assert (tuned - expected).abs().max() > 0.05
    lora.merge(model.core)
    torch.testing.assert_close(model.score_candidates(batch, WORDS), tuned, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_frozen_weights_in_half_precision(small: Path, precision: str, dtype: torch.dtype) -> None:
    exact, model = load(small).eval(), load(small, frozen_precision=precision).eval()
    trained = set(model.trained_parameter_names())
    found = {name: parameter.dtype for name, parameter in model.core.named_parameters()}
    assert {found[name] for name in trained} == {torch.float32}
    assert {found[name] for name in found if name not in trained} == {dtype}
    scores, expected = (one.score_candidates(make_batch(), WORDS) for one in (model, exact))
    assert 0 < ((scores - expected).norm() / expected.norm()).item() < 0.15
    assert len(model.generate(make_batch(), max_length=3)) == 3
    losses = losses_after(model, 3)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_a_quantised_language_model(tmp_path: Path, precision: str) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="needs the extra `quantize`")
    if "cpu" not in getattr(bitsandbytes, "supported_torch_devices", ()):
        pytest.skip("this bitsandbytes needs a GPU")
    small = write_folder(tmp_path / "wide", llm_width=64)  # 4-bit kernels need blocks of 64
    exact, model = load(small, frozen_precision="bf16").eval(), load(small, frozen_precision=precision).eval()
    packed = {name for name, p in model.core.named_parameters() if not p.is_floating_point()}
    assert packed and all(name.startswith("language_model.model.layers.") for name in packed)
    assert model.parameter_counts() == exact.parameter_counts()
    scores, expected = (one.score_candidates(make_batch(), WORDS) for one in (model, exact))
    assert ((scores - expected).norm() / expected.norm()).item() < (0.15 if precision == "int8" else 0.5)
    losses = losses_after(model, 3)
    assert losses[-1] < losses[0]


def gradients(model: EmoVITSmall) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model.train()(make_batch())["loss"].backward()
    return {name: p.grad.clone() for name, p in model.core.named_parameters() if p.grad is not None}


def assert_same_gradients(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, gradient in first.items():
        torch.testing.assert_close(second[name], gradient, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize(
    "changes",
    [
        {"use_grad_checkpoint": True, "grad_checkpoint_parts": ("qformer", "language_model")},
        {"group_by_length": False},
    ],
    ids=["recomputed", "one group"],
)
def test_the_same_gradients(small: Path, changes: dict[str, Any]) -> None:
    assert_same_gradients(gradients(load(small)), gradients(load(small, **changes)))


def test_an_encoder_without_layers_to_recompute_is_refused(small: Path) -> None:
    with pytest.raises(ValueError, match="grad_checkpoint_parts"):
        load(small, use_grad_checkpoint=True, grad_checkpoint_parts=("vision_encoder",))


@pytest.mark.parametrize(
    ("part", "module"),
    [
        ("vision_encoder", "core.vision_model.encoder"),
        ("qformer", "core.qformer"),
        ("language_model", "core.language_model.base_model"),
    ],
)
def test_compiled_parts_compute_the_same(small: Path, part: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Translation stops before machine code, which would take minutes."""
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    real, real_of_module = torch.compile, nn.Module.compile
    monkeypatch.setattr(torch, "compile", lambda *args, **kw: real(*args, **{**kw, "backend": backend}))
    monkeypatch.setattr(
        nn.Module, "compile", lambda self, *args, **kw: real_of_module(self, *args, **{**kw, "backend": backend})
    )
    torch._dynamo.reset()
    expected, model = gradients(load(small)), load(small)
    assert compile_parts(model, [part], torch.device("cpu")) == [module]
    assert_same_gradients(expected, gradients(model))
    assert max(graphs) > 30, "only the probe was compiled"
    with pytest.raises(ConfigError, match="no part 'query_tokens' to compile"):
        compile_parts(model, ["query_tokens"], torch.device("cpu"))


def test_trained_tensors_are_saved_and_loaded(small: Path) -> None:
    model, other = load(small), load(small).eval()
    losses_after(model, 2)
    state = {name: tensor.clone() for name, tensor in model.trained_state_dict().items()}
    other.load_trained_state_dict(state)
    scores = model.eval().score_candidates(make_batch(), WORDS)
    assert torch.equal(other.score_candidates(make_batch(), WORDS), scores)
    state["mystery"] = state.pop("query_tokens")
    with pytest.raises(WeightsError, match=r"(?s)ckpt-7.*missing: query_tokens.*unknown: mystery"):
        other.load_trained_state_dict(state, "ckpt-7")


def test_frozen_parts_stay_in_eval_mode(small: Path) -> None:
    model = load(small).train()
    assert model.core.qformer.training and not model.core.language_model.training
    assert not any(module.training for module in model.core.vision_model.encoder.modules())


def test_its_identity_names_what_changes_answers(small: Path) -> None:
    model = load(small)
    assert model.identity()["frozen"] == model.frozen_fingerprint()
    assert (model.identity()["arch"], model.identity()["image_size"]) == ("emovit_small", 64)
    image_processor, _ = model.processors()
    from PIL import Image

    assert image_processor(Image.new("RGB", (40, 20))).shape == (3, 64, 64)
