"""Properties of what is counted for the small model without weights.

- the parameters of the published sizes, from the YAML file or from a folder; tied embeddings count once;
- the counted activations of a step are linear in the images, and a quantised language model has smaller weights;
- operations of a step: the image encoder's are those that torch counts, three times as many if it is trained; those of
  the Q-Former and the language model equal a count by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_folder import NUM_QUERIES, WIDTH, load, settings_of
from torch.utils.flop_counter import FlopCounterMode

from lavis_emovit.models.catalogue import declared_models
from lavis_emovit.models.small import build, packages, vision
from lavis_emovit.models.small.model import EmoVITSmall
from lavis_emovit.models.small.settings import ModelSettings
from lavis_emovit.models.step_memory import StepLoad

pytestmark = pytest.mark.dry_run


def by_part(settings: ModelSettings) -> dict[str, int]:
    parts: dict[str, int] = {}
    for part in EmoVITSmall.step_memory(settings, StepLoad(1, 1, 8, 4), "off").weights:
        parts[part.part] = parts.get(part.part, 0) + part.num_parameters
    return parts


def test_published_sizes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SmolLM2-135M has 134,515,008 parameters; EfficientNet-Lite0 4,652,008 with its batch norms."""
    monkeypatch.setenv("EMOVIT_CACHE", str(tmp_path))  # nothing is built
    content = declared_models()["emovit_small"].content["model"]
    parts = by_part(ModelSettings(**content))
    assert parts["language_model"] == 134_515_008
    from timm import create_model

    with torch.device("meta"):
        timm_model = create_model("tf_efficientnet_lite0")
    assert sum(one.numel() for one in timm_model.parameters()) == 4_652_008
    # A folded batch norm leaves one number of its two for each channel.
    folded = sum(one.num_features for one in timm_model.modules() if isinstance(one, torch.nn.BatchNorm2d))
    assert parts["vision_encoder"] == 4_652_008 - folded + 1000 * 4 * 576
    assert parts["vision_layernorm"] == 2 * 1920 and parts["query_tokens"] == 16 * 384 + 1920 * 8 * 384
    assert parts["language_projection"] == 384 * 576 + 576
    if not packages.missing():  # as in the folder that is built
        monkeypatch.undo()
        build.build()
        assert by_part(ModelSettings(**content)) == parts


def test_a_folder_has_its_own_sizes(small: Path) -> None:
    model = load(small)
    assert sum(by_part(settings_of(small)).values()) == sum(one.numel() for one in model.core.parameters())


def test_counts_of_a_step(small: Path) -> None:
    def count(images: int, **changes: Any) -> Any:
        return EmoVITSmall.step_memory(settings_of(small, **changes), StepLoad(images, 2, 20, 10), "off")

    one, four, seven = count(1), count(4), count(7)
    assert seven.activations - four.activations == pytest.approx(four.activations - one.activations, rel=0.02)
    everything = count(4, trained_parts="all")
    assert everything.activations > 2 * four.activations, "a trained encoder keeps what its layers computed"
    weights = {
        name: sum(part.num_bytes for part in count(1, frozen_precision=name).weights) for name in ("fp32", "nf4")
    }
    assert weights["nf4"] < 0.7 * weights["fp32"]


def test_the_operations_of_a_step(small: Path) -> None:
    model = load(small)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.core.vision_model.encoder(torch.zeros(1, 3, 64, 64))
    flops = model.step_flops()
    assert flops.image == counter.get_total_flops() == vision.forward_flops(64)
    # By hand, without biases and norms (within 5 %): the Q-Former is trained (6N), the language model passes gradients
    # on (4N).
    own = 2 * (4 * WIDTH**2 + 2 * WIDTH * 48)
    crossing = 2 * WIDTH**2 + 2 * WIDTH * vision.WIDTH
    rows = vision.num_rows(64)
    assert flops.question_token == pytest.approx(6 * own, rel=0.05)
    assert flops.read == pytest.approx((6 * own + 6 * crossing / 2) * NUM_QUERIES, rel=0.05)
    of_cells = (NUM_QUERIES - vision.NUM_WORDS) * WIDTH * vision.GRID_WIDTH
    assert flops.image_features == pytest.approx(6 * crossing / 2 * rows + 4 * of_cells, rel=0.05)
    layers = 2 * (2 * WIDTH**2 + 2 * WIDTH * WIDTH // 2 + 3 * WIDTH * 48)
    assert flops.positions == (pytest.approx(4 * layers, rel=0.05),)
    vocabulary = model.core.language_model.config.vocab_size
    assert flops.supervised == 4 * WIDTH * vocabulary
    assert load(small, trained_parts="all").step_flops().image == 3 * flops.image
