"""The image encoder of a model by itself.

- Its features are those of the whole model, bit for bit, in every precision, for trained and frozen parts, for images
  of another size than that of the weights, and from both formats.
- It has no tensor of the rest, and files without tensors of the encoder are neither read nor downloaded.
- A tuned model gives the encoder with its tuned layer norm; a family that cannot load it alone loads the whole model,
  and one without an encoder has none, which a probe reports.
"""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
import torch
from lavis.common.registry import registry
from safetensors.torch import load_file, save_file

from lavis_emovit.errors import UserError, WeightsError
from lavis_emovit.evaluation.adapters.probe import ProbeSettings, plugin_encoder
from lavis_emovit.files import load_json
from lavis_emovit.models.base import BaseEmotionModel
from lavis_emovit.models.instructblip.convert import convert
from lavis_emovit.models.instructblip.model import EmoVIT


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A random model in transformers' layout, in files of a few tensors, with values that no precision rounds away."""
    from tiny_instructblip import make_parts

    path, parts = tmp_path_factory.mktemp("weights"), make_parts("causal")
    with torch.no_grad():
        for parameter in parts.core.parameters():
            parameter.normal_(std=0.3)
    parts.core.save_pretrained(path, max_shard_size="20KB")
    parts.llm_tokenizer.save_pretrained(path)
    parts.qformer_tokenizer.save_pretrained(path / "qformer_tokenizer")
    # A LAVIS file needs the configuration of its language model.
    parts.core.config.text_config.save_pretrained(path / "llm")
    parts.llm_tokenizer.save_pretrained(path / "llm")
    return path


def cfg(folder: Path | str, **changes) -> dict:
    return {
        "arch": "emovit_test", "pretrained": str(folder), "image_size": 16, "num_query_token": 3,
        "frozen_precision": "fp32", **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"frozen_precision": "bf16"},
        {"frozen_precision": "bf16", "trained_parts": "none"},
        {"frozen_precision": "fp16", "trained_parts": ["vision_encoder"]},
        {"image_size": 24},
    ],
)
def test_features_are_those_of_the_whole_model(folder, changes):
    torch.manual_seed(0)
    size = changes.get("image_size", 16)
    images = torch.randn(3, 3, size, size)
    encoder, model = EmoVIT.image_encoder(cfg(folder, **changes)), EmoVIT.from_config(cfg(folder, **changes)).eval()
    assert torch.equal(encoder.encode_images(images), model.encode_images(images))
    assert encoder.encode_images(images).dtype == model.encode_images(images).dtype
    own = dict(encoder.core.named_parameters())
    assert own.keys() == {name for name, _ in model.core.named_parameters() if name.startswith("vision_model.")}
    assert not any(parameter.requires_grad for parameter in own.values())
    clips = torch.randn(2, 3, 4, size, size)
    assert torch.equal(encoder.encode_images(clips), model.encode_images(clips))
    with pytest.raises(ValueError, match="image"):
        encoder.encode_images(torch.zeros(2, 3, 8, 8))


def test_both_formats_give_the_same(folder, tmp_path):
    convert(str(folder), tmp_path / "weights.pth")
    beside = {"llm_model": str(folder / "llm"), "qformer_tokenizer": str(folder / "qformer_tokenizer")}
    config = load_json((folder / "config.json").read_bytes())
    heads = {f"{part}_heads": config[f"{part}_config"]["num_attention_heads"] for part in ("vision", "qformer")}
    encoder = EmoVIT.image_encoder(cfg(tmp_path / "weights.pth", **beside, **heads))
    images = torch.randn(2, 3, 16, 16)
    whole = EmoVIT.from_config(cfg(tmp_path / "weights.pth", **beside, **heads)).eval()
    assert torch.equal(encoder.encode_images(images), whole.encode_images(images))


def test_other_files_are_neither_read_nor_downloaded(folder, tmp_path, monkeypatch):
    index = load_json((folder / "model.safetensors.index.json").read_bytes())["weight_map"]
    needed = {file for name, file in index.items() if name.startswith("vision_model.")}
    others = set(index.values()) - needed
    assert needed and others
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in others:
            target = tmp_path / path.relative_to(folder)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    images = torch.randn(2, 3, 16, 16)
    expected = EmoVIT.image_encoder(cfg(folder)).encode_images(images)
    assert torch.equal(EmoVIT.image_encoder(cfg(tmp_path)).encode_images(images), expected)
    with pytest.raises(WeightsError, match=f"has no ({'|'.join(map(str, others))})"):
        EmoVIT.from_config(cfg(tmp_path))
    fetched = []

    def snapshot_download(repository, allow_patterns, local_files_only):
        fetched.append((repository, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert torch.equal(EmoVIT.image_encoder(cfg("some/weights")).encode_images(images), expected)
    assert all(repository == "some/weights" for repository, _ in fetched)
    files = {pattern for _, patterns in fetched for pattern in patterns if pattern.endswith(".safetensors")}
    assert files == needed
    # A file of which a tensor is gone.
    file = sorted(needed)[-1]
    kept = load_file(tmp_path / file)
    gone = next(name for name in kept if name.startswith("vision_model."))
    save_file({name: tensor.clone() for name, tensor in kept.items() if name != gone}, tmp_path / file)
    with pytest.raises(WeightsError, match=f"missing: {gone}"):
        EmoVIT.image_encoder(cfg(tmp_path))


def test_tuned_weights_belong_to_the_encoder(folder, tmp_path):
    model = EmoVIT.from_config(cfg(folder)).eval()
    state = {name: tensor.clone() for name, tensor in model.trained_state_dict().items()}
    state["vision_model.post_layernorm.bias"] += 1
    save_file(state, tmp_path / "tuned.safetensors")
    tuned = EmoVIT.image_encoder(cfg(folder, load_finetuned=True, finetuned=str(tmp_path / "tuned.safetensors")))
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(tuned.encode_images(images), model.encode_images(images) + 1)


def test_families_that_load_the_whole_model_or_have_no_encoder(folder, monkeypatch):
    class Whole(EmoVIT):
        def encode_images(self, image):
            return super().encode_images(image)

    whole, images = Whole.image_encoder(cfg(folder)), torch.randn(2, 3, 16, 16)
    assert isinstance(whole, Whole) and not whole.training
    assert torch.equal(whole.encode_images(images), EmoVIT.image_encoder(cfg(folder)).encode_images(images))
    assert BaseEmotionModel.image_encoder(cfg(folder)) is None
    monkeypatch.setitem(registry.mapping["model_name_mapping"], "emovit_tiny", BaseEmotionModel)
    with pytest.raises(UserError, match=r"suite.models.p: 'emovit_tiny' encodes no images by themselves; use `path`"):
        plugin_encoder(ProbeSettings(adapter="probe", arch="emovit_tiny", device="cpu"), "suite.models.p")


def test_a_probe_says_whose_encoder_it_has():
    encoder = plugin_encoder(ProbeSettings(adapter="probe", arch="emovit_tiny", device="cpu"), "suite.models.p")
    assert encoder.identity["arch"] == "emovit_tiny" and len(encoder.identity["image_encoder"]) == 64
