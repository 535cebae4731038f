"""Properties of images of another size and of clips.

- for another image size than the weights', positions are interpolated as in LAVIS, and the weights do not change;
- the frames of a clip are read one by one and their query tokens joined, in training, scoring and generation; a clip of
  one frame is an image;
- NaN and infinite pixels are rejected with the number of the image, except in training, where the loss shows them.
"""

from __future__ import annotations

import pytest
import torch

from lavis_emovit.errors import DataError, WeightsError
from lavis_emovit.models.instructblip.loading import load_parts
from lavis_emovit.models.instructblip.model import EmoVIT
from lavis_emovit.models.instructblip.settings import ModelSettings


def cubic(t: float) -> list[float]:
    """Keys' cubic convolution kernel with a = -0.75 at the four neighbours of a point t after the second."""
    a = -0.75

    def near(x: float) -> float:
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x: float) -> float:
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


def weights_1d(old: int, new: int) -> torch.Tensor:
    """[new, old] weights of bicubic resampling along one side, pixel centres at half steps, the border repeated."""
    out = torch.zeros(new, old, dtype=torch.float64)
    for position in range(new):
        centre = (position + 0.5) * old / new - 0.5
        first = int(centre // 1)
        for offset, weight in zip(range(-1, 3), cubic(centre - first)):
            out[position, min(max(first + offset, 0), old - 1)] += weight
    return out


@pytest.mark.parametrize("size", [8, 24, 40])
def test_another_size_has_interpolated_positions(build_parts, size):
    parts = build_parts("causal")
    before = {name: tensor.clone() for name, tensor in parts.core.state_dict().items()}
    settings = ModelSettings(arch="emovit_test", pretrained="x", image_size=size, num_query_token=3)
    model = EmoVIT(parts, settings).eval()
    image = torch.randn(2, 3, size, size)
    given = model.encode_images(image)

    vision = model.core.vision_model
    grid = size // 8
    resample = weights_1d(2, grid).float()
    old = vision.embeddings.position_embedding
    patches = torch.einsum("yi,xj,ijd->yxd", resample, resample, old[0, 1:].view(2, 2, -1)).flatten(0, 1)
    embeds = vision.embeddings.patch_embedding(image).flatten(2).transpose(1, 2)
    embeds = torch.cat([vision.embeddings.class_embedding.expand(2, -1, -1), embeds], dim=1)
    embeds = embeds + torch.cat([old[0, :1], patches])
    expected = vision.post_layernorm(vision.encoder(inputs_embeds=embeds).last_hidden_state)
    assert given.shape[1] == grid**2 + 1
    torch.testing.assert_close(given, expected, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.core.state_dict().items())
    batch = {"image": image, "text_input": ["What?"] * 2, "text_output": ["awe"] * 2}
    model.train()(batch)["loss"].backward()
    with pytest.raises(ValueError, match=rf"\[2, 3, 16, 16\], expected \[B, 3, {size}, {size}\]"):
        model.encode_images(torch.zeros(2, 3, 16, 16))


def test_sizes_that_are_not_multiples_of_patches_are_rejected(build_parts, tmp_path):
    parts = build_parts("causal")
    parts.core.save_pretrained(tmp_path)
    parts.llm_tokenizer.save_pretrained(tmp_path)
    parts.qformer_tokenizer.save_pretrained(tmp_path / "qformer_tokenizer")
    settings = {"arch": "emovit_test", "pretrained": str(tmp_path), "num_query_token": 3}
    with pytest.raises(WeightsError, match=r"model.image_size is 20, no multiple of the patches' 8 pixels"):
        load_parts(ModelSettings(**settings, image_size=20))
    assert load_parts(ModelSettings(**settings, image_size=32)).core.config.vision_config.image_size == 16


def test_a_clip_is_its_frames_in_a_row(model, clips):
    embeds = model.encode_images(clips["image"])
    frames = [model.encode_images(clips["image"][:, :, frame]) for frame in range(4)]
    torch.testing.assert_close(embeds, torch.stack(frames, dim=1), atol=1e-5, rtol=1e-4)
    given = model.query_images(embeds, clips["image_index"], clips["text_input"])
    by_hand = torch.cat(
        [model.query_images(frame, clips["image_index"], clips["text_input"]) for frame in frames], dim=1
    )
    assert given.shape[1] == 4 * 3
    torch.testing.assert_close(given, by_hand, atol=1e-5, rtol=1e-4)

    # The language model reads the same tokens in all three uses.
    loss = model(clips)["loss_sum"]
    scores = model.score_candidates(clips, ["awe", "sadness"])
    answers = model.generate(clips, max_length=4)
    model._visual_prefix = lambda samples, questions: by_hand
    torch.testing.assert_close(loss, model(clips)["loss_sum"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scores, model.score_candidates(clips, ["awe", "sadness"]), atol=1e-4, rtol=1e-4)
    assert answers == model.generate(clips, max_length=4)


def test_a_clip_of_one_frame_is_an_image(model, clips):
    still, clip = ({**clips, "image": clips["image"][:, :, where]} for where in (0, slice(0, 1)))
    assert torch.equal(model(still)["loss_sum"], model(clip)["loss_sum"])
    assert torch.equal(model.score_candidates(still, ["awe", "fear"]), model.score_candidates(clip, ["awe", "fear"]))
    assert model.generate(still, max_length=4) == model.generate(clip, max_length=4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinite_pixels_are_rejected(build_parts, value):
    settings = ModelSettings(arch="emovit_test", pretrained="x", image_size=16, num_query_token=3)
    model = EmoVIT(build_parts("causal"), settings).eval()
    image = torch.zeros(4, 3, 16, 16)
    image[2, 1, 3, 5] = image[3, 0, 0, 0] = value
    with pytest.raises(DataError, match=r"NaN or infinite \(image 2, 3 of the batch, counted from 0\)"):
        model.score_candidates({"image": image, "text_input": ["Which?"] * 4}, ["awe", "fear"])
    assert model.train().encode_images(image).isfinite().all(dim=(1, 2)).tolist() == [True, True, False, False]
