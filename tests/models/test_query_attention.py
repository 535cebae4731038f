"""Where query tokens look: the weights are those of transformers' plain attention, on the grid of patches."""

from __future__ import annotations

from copy import copy

import pytest
import torch
from eager_attention import eager_weights
from lavis.models import load_model
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from lavis_emovit.models.instructblip.attention import share_keys_and_values
from lavis_emovit.models.recompute import recompute_layers


def test_attention_is_that_of_transformers(model, batch):
    one = {"image": batch["image"][:1], "prompt": "Which emotion is it?"}
    given = model.query_attention(one)
    rows = eager_weights(model, lambda: model.generate(one, max_length=1))
    torch.testing.assert_close(given.flatten(), rows[1:])
    size = model.settings.image_size // model.core.config.vision_config.patch_size
    assert given.shape == (size, size) and 0 < given.sum() < 1
    with pytest.raises(ValueError, match="one question, not 2"):
        model.query_attention({"image": batch["image"][:1], "prompt": ["a", "b"], "image_index": torch.tensor([0, 0])})


def test_keys_and_values_are_computed_once_an_image(model, batch):
    """Four questions about one image and one about another: the rows of key and value, and the same answers' losses."""
    image = batch["image"][:2]
    questions = [f"Which emotion is it, {number}?" for number in range(5)]
    asked = {"image": image, "image_index": torch.tensor([0, 0, 1, 0, 0]), "text_input": questions}
    rows: list[int] = []
    for name, module in model.core.qformer.named_modules():
        if name.endswith("crossattention.attention"):
            for layer in (module.key, module.value):
                layer.register_forward_hook(lambda layer, inputs, found: rows.append(len(inputs[0])))
    together = model.query_images(model.encode_images(image), asked["image_index"], questions)
    assert rows and set(rows) == {2}
    for row, number, question in zip(together, asked["image_index"].tolist(), questions):
        alone = model.query_images(model.encode_images(image[number][None]), torch.tensor([0]), [question])
        torch.testing.assert_close(row, alone[0], atol=1e-5, rtol=1e-5)


def test_the_attention_that_is_shared_finds_its_own_name(monkeypatch):
    """Flash attention looks for its kernels by the name in the module's configuration."""
    model, seen = load_model("emovit_tiny").eval(), []

    def named(module, *args, **kwargs):
        seen.append((module.config._attn_implementation, module.is_causal, hasattr(module, "layer_idx")))
        return sdpa_attention_forward(module, *args, **kwargs)

    AttentionInterface.register("named_by_a_test", named)
    for name, module in model.core.qformer.named_modules():
        if name.endswith("crossattention.attention"):
            module.config = copy(module.plain_config)
            module.config._attn_implementation = "named_by_a_test"
    image, question = torch.zeros(1, 3, 96, 96), ["Which emotion is it?"]
    embeds = model.encode_images(image)
    plain = load_model("emovit_tiny").eval().query_images(embeds, torch.tensor([0]), question)
    share_keys_and_values(model.core.qformer)
    torch.testing.assert_close(model.query_images(embeds, torch.tensor([0]), question), plain)
    assert seen and set(seen) == {("named_by_a_test", False, False)}


def test_recomputed_layers_read_the_same_images(model, batch):
    """The backward pass computes the layers again, outside of the block that said which image a row reads."""
    asked = {
        "image": batch["image"][:2], "image_index": torch.tensor([1, 0, 1]), "text_input": ["Why?"] * 3,
        "text_output": ["A dog.", "No.", "It is dark."],
    }  # fmt: skip
    weight = next(p for name, p in model.core.qformer.named_parameters() if "crossattention.attention.key" in name)
    gradients = []
    for again in (False, True):
        if again:
            recompute_layers(model.core.qformer)
        model.zero_grad(set_to_none=True)
        model.answer_loss(asked).loss_sum.backward()
        gradients.append(weight.grad.clone())
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 0
