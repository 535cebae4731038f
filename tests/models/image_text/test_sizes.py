"""Memory of a training step, counted without weights, is that of the model with weights."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lavis_emovit.errors import ConfigError
from lavis_emovit.models.image_text.model import ImageText
from lavis_emovit.models.step_memory import StepLoad, count_step

LOAD = StepLoad(num_images=2, pairs_per_image=3, question_tokens=12, answer_tokens=6)


@pytest.mark.parametrize("load", [LOAD, replace(LOAD, num_frames=2)], ids=["one image", "two images"])
@pytest.mark.parametrize("family", ["llava15", "qwen25vl", "gemma3", "smolvlm"])
def test_a_dry_run_counts_what_a_real_step_takes(build, family, load):
    model = build(family, trained_parts=["projector", "language_model"], max_side_px=48).train()
    counted = ImageText.step_memory(model.settings, load, "off")
    width = model.core.get_output_embeddings().weight.shape[0]
    real = count_step(model, load, "off", weights=(), logit_width=width)
    assert counted.sizes == real.sizes
    # Two records, of one image or two each.
    assert real.sizes.num_images == (4 if load.num_frames == 2 else 2)
    assert counted.logits == real.logits == 4 * width * real.sizes.num_supervised
    assert counted.activations == pytest.approx(real.activations, rel=0.03)
    assert counted.peak == pytest.approx(real.peak, rel=0.03)
    assert counted.num_trained == model.parameter_counts()["trained"]


def test_shared_images_take_less(build):
    settings = build("smolvlm", max_side_px=64).settings
    shared = ImageText.step_memory(settings, LOAD, "off")
    plain = ImageText.step_memory(settings.model_copy(update={"share_prefix": False}), LOAD, "off")
    assert shared.activations < 0.7 * plain.activations
    assert (shared.sizes.num_images, plain.sizes.num_images) == (2, 6)


def test_a_model_that_cannot_be_counted_says_so(build):
    assert ImageText.step_memory(build("qwen3vl").settings, LOAD, "off") is None


def test_unknown_sizes_name_the_download(build):
    settings = build("llava15").settings.model_copy(update={"pretrained": "llava-hf/llava-1.5-7b-hf"})
    with pytest.raises(ConfigError, match=r"hf download llava-hf/llava-1\.5-7b-hf --exclude"):
        ImageText.step_memory(settings, LOAD, "off")
