"""Properties of a frozen language model in 8 or 4 bits.

- its linear layers are quantised, its head and embeddings are not, and answers stay close;
- gradients pass through it to the trained parts, including adapters on top of it;
- quantised parameters count as often as unquantised ones, and the fingerprint differs from other precisions;
- invalid settings are rejected by name.
"""

from __future__ import annotations

import sys

import pytest
import torch
from pydantic import ValidationError

from lavis_emovit.errors import ConfigError, WeightsError
from lavis_emovit.models import lora
from lavis_emovit.models.instructblip.loading import LoadedParts
from lavis_emovit.models.instructblip.model import EmoVIT
from lavis_emovit.models.instructblip.settings import ModelSettings

bitsandbytes = pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: pip install 'lavis-emovit[quantize]'")
pytestmark = pytest.mark.skipif(
    "cpu" not in getattr(bitsandbytes, "supported_torch_devices", ()), reason="this bitsandbytes needs a GPU"
)

WORDS = ["awe", "sadness", "it is dark"]


def settings_for(precision: str, **changes) -> ModelSettings:
    fixed = {"arch": "emovit_test", "pretrained": "x", "image_size": 16, "num_query_token": 3}
    return ModelSettings(**{**fixed, "frozen_precision": precision, **changes})


@pytest.fixture
def wide(build_parts):
    """Function (kind) -> parts with a language model whose widths are multiples of 64, as quantisation needs."""

    def made(kind: str) -> LoadedParts:
        parts = build_parts(kind)
        config = parts.core.config.text_config
        sizes = (("hidden_size", 64), ("intermediate_size", 128), ("d_model", 64), ("d_ff", 128), ("d_kv", 16))
        for key, value in sizes:
            if hasattr(config, key):
                setattr(config, key, value)
        if hasattr(config, "head_dim"):
            config.head_dim = 16
        torch.manual_seed(0)
        parts.core.language_model = type(parts.core.language_model)(config)
        parts.core.language_projection = torch.nn.Linear(32, 64)
        with torch.no_grad():
            for parameter in parts.core.language_model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=0.25)
        return parts

    return made


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_quantised_language_model(wide, batch, kind, precision):
    plain = EmoVIT(wide(kind), settings_for("bf16")).eval()
    model = EmoVIT(wide(kind), settings_for(precision)).eval()
    names = {name for name, p in model.core.named_parameters() if not p.is_floating_point()}
    linear = {
        f"{name}.weight"
        for name, module in plain.core.language_model.named_modules(prefix="language_model")
        if isinstance(module, torch.nn.Linear) and not name.endswith(("lm_head", ".wo"))
    }
    assert names == linear and len(linear) > 8
    assert model.parameter_counts() == plain.parameter_counts()
    assert len({m.frozen_fingerprint() for m in (plain, model)}) == 2
    assert model.frozen_fingerprint() == EmoVIT(wide(kind), settings_for(precision)).frozen_fingerprint()
    scores, exact = model.score_candidates(batch, WORDS), plain.score_candidates(batch, WORDS)
    # Random weights suffer most from few bits; 8 bits must be much closer than 4.
    assert ((scores - exact).norm() / exact.norm()).item() < (0.1 if precision == "int8" else 0.4)
    assert len(model.generate(batch, max_length=3)) == 3

    model.train()
    model(batch)["loss"].backward()
    dead = set(model.dead_parameters())
    for name in model.trained_parameter_names():
        assert name in dead or model.core.get_parameter(name).grad.any(), name
    assert all(p.grad is None for n, p in model.core.named_parameters() if not p.requires_grad)


@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_adapters_are_trained_on_top(wide, batch, precision):
    pytest.importorskip("peft", reason="needs peft: pip install 'lavis-emovit[lora]'")
    adapters = {"lora": {"parts": "language_model"}, "trained_parts": "none"}
    model = EmoVIT(wide("causal"), settings_for(precision, **adapters)).train()
    without = EmoVIT(wide("causal"), settings_for(precision, trained_parts="none"))
    assert model.frozen_fingerprint() == without.frozen_fingerprint()
    model.score_candidates(batch, WORDS)  # an evaluation must not change the training
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for _ in range(4):
        loss = model(batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    with pytest.raises(WeightsError, match=r"q_proj is quantised(.|\n)*frozen_precision=bf16"):
        lora.merge(model.core)


def test_invalid_settings_are_rejected_by_name(build_parts, monkeypatch):
    with pytest.raises(ValidationError, match="int8 quantises the language model, so it cannot be trained"):
        settings_for("int8", trained_parts="all")
    with monkeypatch.context() as patched:
        patched.setattr(bitsandbytes, "supported_torch_devices", {"cuda"})
        with pytest.raises(ConfigError, match=r"on cpu, only on cuda; set model\.frozen_precision=bf16"):
            EmoVIT(build_parts("causal"), settings_for("nf4"))
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match=r"need the package bitsandbytes: pip install"):
        EmoVIT(build_parts("causal"), settings_for("int8"))
