"""Properties of the small model's image encoder.

- with random weights and batch-norm statistics under the published names, the folded encoder gives the features and
  logits of timm's `tf_efficientnet_lite0`, for even and odd sizes, from pixels as this package normalises them;
- a cell of the grid has the features of timm's three depths, each normalised: the head's, four cells of an earlier
  stage, and one of a stage of the same stride;
- rows of names have the words of the likeliest classes, scaled by the square root of their probability, zero for
  missing words, with a mark of their place; the number of rows is the counted one;
- a file without a tensor is refused by name.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lavis_emovit.errors import WeightsError
from lavis_emovit.images import CLIP_MEAN, CLIP_STD
from lavis_emovit.models.small import vision

# timm's name of a layer in a block -> the published one. The first stage has no expansion.
WITH_EXPANSION = {
    "conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1", "conv_pwl": "_project_conv",
    "bn3": "_bn2",
}  # fmt: skip
WITHOUT = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
OUTSIDE = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}


def published(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """timm's tensors under the published names, worked out from the structure of timm's model."""
    first_of_stage, names = [], {}
    for name in state:
        if match := re.match(r"blocks\.(\d+)\.(\d+)\.conv_pwl?\.weight", name):
            first_of_stage.append((int(match[1]), int(match[2])))
    order = {block: number for number, block in enumerate(sorted(set(first_of_stage)))}
    for name in state:
        if match := re.match(r"blocks\.(\d+)\.(\d+)\.(\w+)\.(\w+)", name):
            layers = WITHOUT if match[1] == "0" else WITH_EXPANSION
            names[name] = f"_blocks.{order[int(match[1]), int(match[2])]}.{layers[match[3]]}.{match[4]}"
        else:
            layer, key = name.split(".")
            names[name] = f"{OUTSIDE[layer]}.{key}"
    return {names[name]: tensor for name, tensor in state.items()}


@pytest.fixture(scope="module")
def reference() -> nn.Module:
    """timm's model with random weights and statistics that keep signals of about one."""
    import timm

    torch.manual_seed(3)
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.3, 3.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    return model


@pytest.fixture(scope="module")
def encoder(reference: nn.Module) -> vision.Encoder:
    encoder = vision.Encoder()
    state = vision.fold(published(dict(reference.state_dict())), "random")
    encoder.load_state_dict({**state, "words": torch.zeros_like(encoder.words)})
    return encoder.eval()


def pixels_of(image: torch.Tensor) -> torch.Tensor:
    """Values 0 to 1 as this package's processors normalise them."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    return (image - mean) / std


def depths_of(reference: Any, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """Outputs of timm's stages and of its head, [B, D, H, W], and logits."""
    found: dict[str, torch.Tensor] = {}
    stages = {"fine": reference.blocks[4], "coarse": reference.blocks[5]}
    handles = [
        stage.register_forward_hook(lambda module, inputs, output, name=name: found.__setitem__(name, output))
        for name, stage in stages.items()
    ]
    normalised = (image - 0.5) / 0.5  # timm's own values for this model
    found["head"] = reference.forward_features(normalised)
    found["logits"] = reference(normalised)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("size_px", [224, 200, 97])
@torch.no_grad()
def test_the_folded_encoder_is_timms(reference: nn.Module, encoder: vision.Encoder, size_px: int) -> None:
    image = torch.rand(2, 3, size_px, size_px, generator=torch.Generator().manual_seed(size_px))
    expected = depths_of(reference, image)
    assert expected["fine"].std() > 0.05 and expected["logits"].std() > 0.01, "weights that say nothing prove nothing"
    grid, logits = encoder(pixels_of(image))
    torch.testing.assert_close(logits, expected["logits"], rtol=1e-4, atol=1e-4)

    side = expected["head"].shape[-1]
    assert grid.shape == (2, side**2, 1280 + 4 * 112 + 192) and vision.num_rows(size_px) == side**2 + 8
    for row in range(side):
        for column in range(side):
            cell = grid[:, row * side + column]
            for found, name in zip(cell.split([1280, 448, 192], dim=-1), ("head", "fine", "coarse")):
                depth = expected[name]
                if name == "fine":  # four neighbours; beyond an odd edge, zero
                    padded = F.pad(depth, (0, 1, 0, 1))[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
                    features = padded.flatten(1)
                else:
                    features = depth[:, :, row, column]
                centred = features - features.mean(dim=-1, keepdim=True)
                variance = features.var(dim=-1, unbiased=False, keepdim=True)
                torch.testing.assert_close(found, centred / (variance + 1e-5).sqrt(), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_names_follow_the_grid(encoder: vision.Encoder) -> None:
    model = vision.ImageEncoder()
    model.encoder = encoder
    torch.manual_seed(0)
    words = torch.randn(1000, 4, 576)
    words[:, 3] = 0  # a name of three words
    encoder.words.copy_(words)
    image = pixels_of(torch.rand(3, 3, 64, 64))
    rows = model(image)
    assert rows.shape == (3, vision.num_rows(64), vision.WIDTH) == (3, 4 + 8, 1280 + 448 + 192 + 576 + 8)
    assert rows[:, :4, 1920:].eq(0).all() and rows[:, 4:, :1920].eq(0).all(), "cells and words share no channel"
    probabilities = encoder(image)[1].exp() / encoder(image)[1].exp().sum(dim=-1, keepdim=True)
    for number in range(3):
        likeliest = probabilities[number].argsort(descending=True)[:2].tolist()
        for place in range(8):
            name, word = divmod(place, 4)
            share = float(probabilities[number, likeliest[name]])
            expected = words[likeliest[name], word] * share**0.5
            torch.testing.assert_close(rows[number, 4 + place, 1920:2496], expected)
            mark = torch.zeros(8)
            mark[place] = 5.0
            assert torch.equal(rows[number, 4 + place, 2496:], mark)
    assert rows[:, [4 + 3, 4 + 7], 1920:2496].eq(0).all()


def test_an_impossible_class_has_a_gradient() -> None:
    """A softmax gives exactly 0 to a class that is far less likely; the root of 0 has no finite slope."""
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    words = torch.ones(2, 4, 576, requires_grad=True)
    rows = vision.name_rows(words, torch.tensor([[0, 1]]), logits.softmax(dim=-1))
    rows.sum().backward()
    assert rows[0, 4:, :576].abs().max() < 1e-18 and logits.grad.isfinite().all() and words.grad.isfinite().all()


def test_the_operations_are_those_of_the_convolutions() -> None:
    """By hand: every convolution's weights once for each of its output pixels, 64 pixels wide and high."""
    encoder, total = vision.Encoder(), 0
    pixels = {"stem": 32, **{f"stages.{stage}": side for stage, side in enumerate((32, 16, 8, 4, 4, 2, 2))}, "head": 2}
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Conv2d):
            place = ".".join(name.split(".")[:2]) if name.startswith("stages") else name
            side = pixels[place]
            if name.endswith(".expand"):  # before the stride of its block
                side *= encoder.get_submodule(name.rpartition(".")[0]).depthwise.stride[0]
            total += 2 * module.weight.numel() * side**2
    assert vision.forward_flops(64) == total + 2 * 1280 * 1000


def test_a_file_without_a_tensor_is_refused(reference: nn.Module) -> None:
    state = published(dict(reference.state_dict()))
    del state["_blocks.7._bn1.running_var"]
    with pytest.raises(WeightsError, match=r"some\.pth has no tensor '_blocks\.7\._bn1\.running_var'"):
        vision.fold(state, "some.pth")
