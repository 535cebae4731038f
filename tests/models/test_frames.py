"""Time in clips, `model.frames`.

Properties:
- untrained, it changes no token, for images and for clips, and its initial values depend on its seed alone;
- an embedding is added to the query tokens of its frame, before the projection; clips with more frames are refused;
- a layer is a gated convolution over time of each query token by itself, without the clip's mean; it sees the order, a
  mean does not, and it adds the same to all clips in which nothing changes;
- pooled clips take as many positions of the language model as an image;
- it is trained, saved, loaded and counted with the Q-Former; weights tuned on images load, with a note; other formats
  refuse it by name, and settings without an effect are refused.
"""

from __future__ import annotations

import logging

import pytest
import torch
from torch.nn import functional as F

from lavis_emovit.errors import ConfigError, WeightsError
from lavis_emovit.models.instructblip.convert import read_convertible
from lavis_emovit.models.instructblip.model import EmoVIT
from lavis_emovit.models.instructblip.settings import ModelSettings
from lavis_emovit.settings import valid_settings


def settings_with(frames: dict | None, **values) -> ModelSettings:
    sizes = {"arch": "emovit_test", "pretrained": "none", "image_size": 16, "num_query_token": 3}
    return valid_settings(ModelSettings, {**sizes, "frames": frames, **values}, "model", "a test")


@pytest.fixture
def build(build_parts):
    """Function (frames node, kind) -> a model."""

    def make(frames: dict | None, kind: str = "causal", **values) -> EmoVIT:
        return EmoVIT(build_parts(kind), settings_with(frames, **values)).eval()

    return make


def prefix_of(model: EmoVIT, clips: dict) -> torch.Tensor:
    with torch.no_grad():
        return model._visual_prefix(clips, clips["text_input"])


def fill(model: EmoVIT) -> None:
    """Give the frames' weights the size of trained ones."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.core.qformer.frames.parameters():
            parameter.normal_(std=0.3)


BOTH = {"convolution_layers": 2}


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
@pytest.mark.parametrize("frames", [{}, BOTH, {**BOTH, "embedding": "none"}])
def test_untrained_it_changes_no_token(build, clips, batch, kind, frames):
    plain, timed = build(None, kind), build(frames, kind)
    for samples in (clips, batch):
        torch.testing.assert_close(prefix_of(timed, samples), prefix_of(plain, samples), atol=1e-6, rtol=1e-5)
        assert timed.num_prompt_tokens(samples) == plain.num_prompt_tokens(samples)
    again = build(frames, kind)
    for name, value in again.core.qformer.frames.state_dict().items():
        assert torch.equal(value, timed.core.qformer.frames.state_dict()[name])


def test_embeddings_are_added_before_the_projection(build, clips):
    plain, timed = build(None), build({"max_frames": 4})
    fill(timed)
    weight = timed.core.language_projection.weight
    added_FD = timed.core.qformer.frames.embedding.weight @ weight.T
    given = (prefix_of(timed, clips) - prefix_of(plain, clips)).unflatten(1, (4, 3))
    torch.testing.assert_close(given, added_FD[:, None].expand(3, 4, 3, -1), atol=1e-4, rtol=1e-4)
    longer = {**clips, "image": clips["image"].repeat(1, 1, 2, 1, 1)}
    with pytest.raises(ValueError, match=r"clips of 8 frames, model\.frames\.max_frames is 4"):
        timed(longer)


def test_a_layer_sees_the_same_token_in_other_frames(build):
    reader = build({"convolution_layers": 1, "embedding": "none"}).core.qformer.frames
    for parameter in reader.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    read = torch.randn(1, 5, 3, 32)
    other = read.clone()
    other[0, 3, 1] += torch.randn(32)
    with torch.no_grad():
        moved = (reader(other) - reader(read)).view(5, 3, 32).abs().amax(dim=-1) > 1e-5
    assert moved.tolist() == [[False, True, False]] * 5
    still = torch.randn(2, 1, 3, 32).expand(2, 5, 3, 32)
    with torch.no_grad():
        added = reader(still).view(2, 5, 3, 32) - still
    torch.testing.assert_close(added, added[:1, :, :1].expand_as(added), atol=1e-4, rtol=1e-4)


def test_a_layer_by_hand(build):
    model = build({"convolution_layers": 1, "embedding": "none", "pooling": "mean"})
    fill(model)
    layer, read = model.core.qformer.frames.layers[0], torch.randn(1, 4, 3, 32)
    with torch.no_grad():
        given = model.core.qformer.frames(read)
        normed = F.layer_norm(read, (32,), layer.norm.weight, layer.norm.bias, layer.norm.eps)
        padded = F.pad(normed - normed.sum(dim=1, keepdim=True) / 4, (0, 0, 0, 0, 1, 1))
        taps = [padded[:, place : place + 4] @ layer.convolution.weight[:, :, place].T for place in range(3)]
        value, gate = (sum(taps) + layer.convolution.bias).chunk(2, dim=-1)
        by_hand = read + layer.projection(value * gate)
    torch.testing.assert_close(given, by_hand.mean(dim=1), atol=1e-4, rtol=1e-4)


def test_layers_see_the_order_and_a_mean_does_not(build, clips):
    backwards = {**clips, "image": clips["image"].flip(2)}
    for layers, sees in ((0, False), (1, True)):
        model = build({"embedding": "none", "convolution_layers": layers, "pooling": "mean"})
        fill(model)
        same = torch.allclose(prefix_of(model, clips), prefix_of(model, backwards), atol=1e-4)
        assert same != sees


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_pooled_clips_are_as_long_as_images(build, clips, kind):
    plain, pooled = build(None, kind), build({"embedding": "none", "pooling": "mean"}, kind)
    frames = prefix_of(plain, clips).unflatten(1, (4, 3))
    torch.testing.assert_close(prefix_of(pooled, clips), frames.mean(dim=1), atol=1e-5, rtol=1e-4)
    still = {**clips, "image": clips["image"][:, :, 0]}
    assert pooled.num_prompt_tokens(clips) == plain.num_prompt_tokens(still)
    assert len(pooled.generate(clips, max_length=3)) == 3
    scores = pooled.score_candidates(clips, ["awe", "sadness"])
    alone = pooled.answer_log_probs({**clips, "text_output": ["awe"] * 3})
    # An answer's log-probability includes its end token, a candidate's only with an encoder.
    assert scores.shape == (3, 2) and (alone <= scores[:, 0] + 1e-4).all()


@pytest.mark.parametrize("samples", ["clips", "batch"])
def test_it_is_trained_saved_and_loaded_with_the_qformer(build, request, samples, caplog):
    model = build(BOTH).train()
    fill(model)
    model(request.getfixturevalue(samples))["loss"].backward()
    own = [name for name in model.trained_parameter_names() if name.startswith("qformer.frames.")]
    assert len(own) == 1 + 2 * 6  # the embedding, and two layers with six tensors
    # Also in a batch of images, so that data-parallel training has no unused parameters.
    assert all(model.core.get_parameter(name).grad is not None for name in own)

    other = build(BOTH)
    other.load_trained_state_dict(model.trained_state_dict())
    for name, value in other.trained_state_dict().items():
        assert torch.equal(value, model.trained_state_dict()[name])
    assert other.frozen_fingerprint() == build(None).frozen_fingerprint()

    of_images = {name: value for name, value in model.trained_state_dict().items() if name not in own}
    fresh = build(BOTH)
    with caplog.at_level(logging.INFO):
        fresh.load_trained_state_dict(of_images, "ckpt-3")
    assert "ckpt-3 has no values for model.frames" in caplog.text
    assert not fresh.core.qformer.frames.embedding.weight.any()
    with pytest.raises(WeightsError, match=r"missing: qformer\.frames\.embedding\.weight"):
        fresh.load_trained_state_dict({**of_images, own[1]: torch.zeros(32)})
    with pytest.raises(WeightsError, match=r"unknown: qformer\.frames"):
        build(None).load_trained_state_dict(model.trained_state_dict())


def test_other_formats_refuse_it(build, tmp_path):
    from safetensors.torch import save_file

    file = tmp_path / "model.safetensors"
    save_file({name: value.contiguous() for name, value in build({}).trained_state_dict().items()}, str(file))
    with pytest.raises(WeightsError, match=r"was tuned with model\.frames, which neither LAVIS nor transformers has"):
        read_convertible(file)


def test_it_is_part_of_the_identity(build):
    assert "frames" not in build(None).identity()
    assert build({"max_frames": 4}).identity()["frames"]["max_frames"] == 4


@pytest.mark.parametrize(
    ("frames", "values", "text"),
    [
        ({"pooling": "mean"}, {}, "adds the same to all clips"),
        ({"embedding": "none"}, {}, "without convolution layers change nothing"),
        ({}, {"trained_parts": "language_projection"}, "add qformer to model.trained_parts"),
        ({"layers": 1}, {}, "convolution_layers"),
    ],
)
def test_settings_without_an_effect_are_refused(frames, values, text):
    with pytest.raises(ConfigError, match=text):
        settings_with(frames, **values)
    # Nothing is to be trained without weights.
    assert settings_with({"embedding": "none", "pooling": "mean"}, trained_parts="none").frames is not None
