"""Properties of the EmoVIT model, decoder-only and encoder-decoder alike.

- an image is encoded once for all its questions, with the same result as encoding it for each of them;
- the loss covers the answers' tokens and their end tokens;
- only trained parts get gradients, frozen parts stay in eval mode, trained tensors can be saved and loaded;
- the identity has the keys and values of earlier versions;
- invalid input is rejected by name.
"""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from lavis_emovit.errors import WeightsError
from lavis_emovit.models.instructblip.model import EmoVIT
from lavis_emovit.models.instructblip.settings import ModelSettings


def test_images_are_encoded_once(model, batch, monkeypatch):
    seen = []
    original = model.core.vision_model.encoder.forward
    monkeypatch.setattr(
        model.core.vision_model.encoder,
        "forward",
        lambda **inputs: seen.append(len(inputs["inputs_embeds"])) or original(**inputs),
    )
    once = model(batch)
    repeated = model({**batch, "image": batch["image"][batch["image_index"]], "image_index": None})
    assert seen == [2, 3]
    torch.testing.assert_close(once["loss_sum"], repeated["loss_sum"], atol=1e-4, rtol=1e-5)


def test_loss_covers_answers_and_their_end(model, batch, naive_score):
    total = model(batch)
    expected = 0.0
    for pair in range(3):
        answer = model.llm_tokenizer(batch["text_output"][pair], add_special_tokens=False)["input_ids"] + [2]
        image = batch["image"][batch["image_index"][pair]]
        expected -= naive_score(model, image, batch["text_input"][pair], answer, 0)
    assert total["loss_sum"].item() == pytest.approx(expected, rel=1e-4)
    counts = [
        len(model.llm_tokenizer(text, add_special_tokens=False)["input_ids"]) + 1 for text in batch["text_output"]
    ]
    assert total["num_tokens"] == sum(counts)
    assert total["loss"].item() == pytest.approx(expected / sum(counts), rel=1e-4)


def test_long_answers_are_truncated_and_counted(build_parts):
    settings = ModelSettings(
        arch="emovit_test", pretrained="none", image_size=16, num_query_token=3, max_output_txt_len=4
    )
    short = EmoVIT(build_parts("causal"), settings).eval()
    loss = short.answer_loss(
        {"image": torch.zeros(1, 3, 16, 16), "text_input": ["What?"], "text_output": ["It is dark, says the girl."]}
    )
    assert (loss.num_tokens, loss.noted["num_truncated_answers"]) == (4, [0])


@pytest.mark.parametrize(
    ("parts", "prefixes"),
    [
        ("qformer", ("qformer.",)),
        ("emovit", ("qformer.", "query_tokens", "language_projection.", "vision_model.post_layernorm.")),
        ("all", ("",)),
    ],
)
def test_gradients_reach_the_trained_parts_only(build_parts, batch, parts, prefixes):
    settings = ModelSettings(
        arch="emovit_test", pretrained="none", image_size=16, num_query_token=3, trained_parts=parts
    )
    trained = EmoVIT(build_parts("causal"), settings).train()
    trained(batch)["loss"].backward()
    for name, parameter in trained.core.named_parameters():
        assert parameter.requires_grad == name.startswith(prefixes), name
        # Nothing reads the Q-Former's last feed-forward layer for text, in the original code too.
        dead = name.startswith(("qformer.encoder.layer.1.intermediate.", "qformer.encoder.layer.1.output."))
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if parameter.requires_grad and not dead:
            # A key's bias adds the same to all scores of a query; its gradient is rounding.
            assert parameter.grad.abs().max() > 0 or name.endswith("key.bias"), name
    assert trained.trained_parameter_names() == [n for n, p in trained.core.named_parameters() if p.requires_grad]
    assert trained.parameter_counts()["trained"] == sum(p.numel() for p in trained.parameters() if p.requires_grad)


def test_trained_parameters_are_counted(build_parts):
    """By hand, from the sizes of the random model: width 32, feed-forward 48, two layers, images in the first."""
    vocabulary = len(build_parts("causal").qformer_tokenizer)
    attention, norm = 4 * (32 * 32 + 32), 2 * 32
    crossed = 2 * (32 * 32 + 32) + 2 * (24 * 32 + 32)
    feed_forward = 32 * 48 + 48 + 48 * 32 + 32 + norm
    qformer = (vocabulary + 128) * 32 + norm + 2 * (attention + norm + 2 * feed_forward) + crossed + norm
    counts = {
        "qformer": qformer,
        "query_tokens": 3 * 32,
        "language_projection": 32 * 32 + 32,
        "vision_layernorm": 2 * 24,
        "emovit": qformer + 3 * 32 + 32 * 32 + 32 + 2 * 24,
        "none": 0,
    }
    for parts, expected in counts.items():
        settings = ModelSettings(
            arch="emovit_test", pretrained="none", image_size=16, num_query_token=3, trained_parts=parts
        )
        assert EmoVIT(build_parts("causal"), settings).parameter_counts()["trained"] == expected, parts


def test_frozen_parts_stay_in_eval_mode(build_parts, batch):
    settings = ModelSettings(arch="emovit_test", pretrained="none", image_size=16, num_query_token=3)
    tuned = EmoVIT(build_parts("causal"), settings).train()
    assert tuned.core.qformer.training and tuned.core.language_projection.training
    assert not any(module.training for module in tuned.core.language_model.modules())
    assert not any(module.training for module in tuned.core.vision_model.encoder.modules())
    tuned.generate(batch, max_length=2)
    assert tuned.training and tuned.core.qformer.training, "generation must restore the mode"


def test_trained_tensors_are_saved_and_loaded(build_parts, model):
    other = EmoVIT(build_parts("seq2seq" if model.is_seq2seq else "causal", seed=5), model.settings).eval()
    state = {name: tensor.clone() for name, tensor in model.trained_state_dict().items()}
    assert all(
        name.startswith(("qformer.", "query_tokens", "language_projection.", "vision_model.post")) for name in state
    )
    other.load_trained_state_dict(state)
    for name, tensor in other.trained_state_dict().items():
        assert torch.equal(tensor, state[name])
    assert model.frozen_fingerprint() != other.frozen_fingerprint()


def test_trained_tensors_of_another_model_are_rejected_by_name(model):
    state = dict(model.trained_state_dict())
    state.pop("query_tokens")
    state["language_projection.weight"] = torch.zeros(2, 2)
    state["mystery"] = torch.zeros(1)
    with pytest.raises(WeightsError) as error:
        model.load_trained_state_dict(state, "ckpt-7")
    for part in ("ckpt-7", "missing: query_tokens", "language_projection.weight: [2, 2]", "mystery", "trained_parts"):
        assert part in str(error.value)


def test_identity_has_the_settings_that_change_answers(build_parts):
    """Keys and values of earlier versions, whose suites must resume: None for what the configuration does not name."""
    settings = ModelSettings(
        arch="emovit_test",
        model_type="t",
        pretrained="none",
        image_size=16,
        num_query_token=3,
        max_txt_len=9,
        prompt="",
    )
    model = EmoVIT(build_parts("causal"), settings)
    assert model.identity() == {
        "arch": "emovit_test",
        "model_type": "t",
        "frozen": model.frozen_fingerprint(),
        "image_size": 16,
        "max_txt_len": 9,
        "prompt": "",
        "qformer_text_input": None,
        "frozen_precision": None,
    }
    image_processor, text_processor = model.processors()
    assert image_processor(Image.new("RGB", (40, 20))).shape == (3, 16, 16)
    assert text_processor(" Why  so? ") == "Why so?"


def test_invalid_input_is_rejected_by_name(model, batch):
    with pytest.raises(ValueError, match=r"\[2, 3, 8, 8\], expected \[B, 3, 16, 16\]"):
        model.encode_images(torch.zeros(2, 3, 8, 8))
    with pytest.raises(WeightsError, match="no checkpoint at"):
        model.load_checkpoint("nowhere/ckpt-1")


def test_unknown_part_is_rejected():
    with pytest.raises(ValidationError, match="unknown part 'qformers'"):
        ModelSettings(arch="x", pretrained="y", trained_parts="qformers")
