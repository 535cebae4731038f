"""The small LLaVA, where emovit_small is built: its image encoder computes the last layer of that of emovit_small, its
language model has the same tensors, and the family image_text trains on it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))

from lavis_emovit.images import CLIP_MEAN, CLIP_STD
from lavis_emovit.models.image_text.model import ImageText
from lavis_emovit.models.image_text.settings import ModelSettings
from lavis_emovit.models.small import packages
from lavis_emovit.models.small.architecture import CONFIG_NAME, WEIGHTS_NAME
from lavis_emovit.models.small.build import built_folder
from lavis_emovit.models.small.vision import HEAD_WIDTH, Encoder
from lavis_emovit.models.tensors import read_tensor_file

is_built = not packages.missing() and (built_folder() / CONFIG_NAME).is_file()
pytestmark = pytest.mark.skipif(not is_built, reason="needs the packages of emovit_small and `make small`")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_has_the_parts_of_emovit_small(tmp_path, precision):
    from make_small_llava import make

    torch.manual_seed(5)
    settings = ModelSettings(
        arch="emovit_image_text", pretrained=str(make(tmp_path / "llava")), frozen_precision=precision
    )
    model = ImageText.from_settings(settings)
    assert model.shares_prefix and set(model.trained_parameter_parts()) == {"projector"}
    image = Image.fromarray(torch.randint(0, 256, (80, 60, 3), dtype=torch.uint8).numpy())
    images = model.image_processor.stack([model.image_processor(image)])
    own = read_tensor_file(built_folder() / WEIGHTS_NAME)
    if precision == "fp32":
        language = model.core.model.language_model.state_dict()
        for name, tensor in language.items():
            assert torch.equal(tensor[: len(own[f"language_model.model.{name}"])], own[f"language_model.model.{name}"])
        encoder = Encoder()
        mark = "vision_model.encoder."
        encoder.load_state_dict({key.removeprefix(mark): own[key] for key in own if key.startswith(mark)})
        pixels = images.stack([0])["pixel_values"]
        mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
        with torch.no_grad():
            grid, _ = encoder(((pixels * 0.5 + 0.5) - mean) / std)
            found = model.core.model.vision_tower(pixels).last_hidden_state.flatten(2).transpose(1, 2)
        normed = torch.nn.functional.layer_norm(found, found.shape[-1:])
        torch.testing.assert_close(normed, grid[..., :HEAD_WIDTH], rtol=1e-3, atol=1e-2)
    batch = {"image": images, "image_index": torch.zeros(1, dtype=torch.long)}
    batch |= {"text_input": ["Which emotion?"], "text_output": ["Predict emotion: happy"]}
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss = model.train().answer_loss(batch)
    loss.loss_sum.backward()
    assert loss.num_tokens == 5 and all(
        parameter.grad.any() for parameter in model.parameters() if parameter.requires_grad
    )
