"""Adapters of peft, and what is found before any weight is loaded.

- an adapter that peft wrote elsewhere computes what peft computes with it: chosen by names or by a pattern, with other
  ranks and factors for some layers, with whole modules beside it, and with the names of earlier versions;
- adapters of `model.lora` are on the layers of their parts alone, the projector's too;
- another base, unknown names, things that are no linear layers, kinds that are not supported, damaged folders, a
  missing template, an unknown image token and images that are too large are refused by name, all at once, without
  weights.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_batches import NEEDED, batch_of

from lavis_emovit.errors import UserError
from lavis_emovit.models.image_text import weights
from lavis_emovit.models.image_text.model import ImageText
from lavis_emovit.models.image_text.settings import ModelSettings
from lavis_emovit.settings import valid_settings

LANGUAGE = r"model\.language_model\..*\.(q_proj|v_proj)"
CONFIGS: dict[str, dict[str, Any]] = {
    "names": {"target_modules": ["q_proj", "down_proj"], "r": 2, "lora_alpha": 6},
    "pattern": {"target_modules": LANGUAGE, "r": 4, "lora_alpha": 4, "use_rslora": True},
    "ranks": {
        "target_modules": LANGUAGE, "r": 2, "lora_alpha": 2,
        "rank_pattern": {"layers.1.self_attn.q_proj": 5}, "alpha_pattern": {"v_proj": 9},
    },
    "modules": {"target_modules": LANGUAGE, "r": 2, "modules_to_save": ["multi_modal_projector"]},
}  # fmt: skip


def plain(folder: Path) -> Any:
    return transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()


def write(base: Path, folder: Path, **config: Any) -> Any:
    """Write an adapter with random values as peft does elsewhere; returns peft's model."""
    model = peft.get_peft_model(plain(base), peft.LoraConfig(**config)).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def made(folder_of, tmp_path_factory) -> Any:
    """Name of a config -> base, adapter folder and peft's model."""
    done: dict[str, Any] = {}
    root = tmp_path_factory.mktemp("adapters")

    def make(name: str, family: str = "llava15") -> Any:
        key = f"{family}-{name}"
        if key not in done:
            base = folder_of(family)
            done[key] = base, root / key, write(base, root / key, **CONFIGS[name])
        return done[key]

    return make


def logits(model: Any, ours: ImageText) -> torch.Tensor:
    batch = batch_of(ours)
    with torch.no_grad():
        return model(**ours.inputs.padded(batch["image"], ours._read_pairs(batch)[0]).inputs).logits


@pytest.mark.parametrize("name", list(CONFIGS))
def test_an_adapter_of_peft_computes_the_same(build, made, name):
    _, folder, theirs = made(name)
    ours = build("llava15", adapter=str(folder)).eval()
    expected = logits(theirs, ours)
    torch.testing.assert_close(logits(ours.core, ours), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits(build("llava15").core, ours), expected, atol=1e-2)
    trained = [name for name in ours.trained_parameter_names() if "lora_" in name]
    assert len(trained) == 2 * len([key for key, _ in theirs.named_modules() if key.endswith("lora_A.default")])
    # It is trained on: all of it has a gradient.
    ours.answer_loss(batch_of(ours)).loss_sum.backward()
    parameters = dict(ours.core.named_parameters())
    read = [name for name in trained if "vision_tower.encoder.layers.1" not in name and "vision_tower" not in name]
    assert read and all(parameters[name].grad.abs().sum() > 0 for name in read)


def test_names_of_earlier_versions_are_understood(build, made, tmp_path):
    """Versions before 5 had `language_model.model.layers` where there is `model.language_model.layers` now."""
    _, folder, theirs = made("ranks")
    old = tmp_path / "old"
    shutil.copytree(folder, old)
    tensors = load_file(folder / "adapter_model.safetensors")
    renamed = {name.replace("model.language_model.", "language_model.model.", 1) for name in tensors}
    assert not renamed & set(tensors)
    save_file(
        {
            name.replace("base_model.model.model.language_model.", "base_model.model.language_model.model."): value
            for name, value in tensors.items()
        },
        old / "adapter_model.safetensors",
    )
    ours = build("llava15", adapter=str(old)).eval()
    torch.testing.assert_close(logits(ours.core, ours), logits(theirs, ours), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llava15", "qwen25vl", "qwen3vl", "smolvlm", "blip2_opt"])
def test_adapters_are_on_the_layers_of_their_parts(build, family):
    """Qwen's projector is inside its image encoder; that of BLIP-2 is a single layer and a Q-Former."""
    layers = {}
    for part in ("vision_encoder", "projector", "language_model"):
        model = build(family, trained_parts="none", lora={"parts": [part], "rank": 2})
        layers[part] = {name.split(".lora_")[0] for name in model.trained_parameter_names()}
        assert layers[part]
    together = build(family, trained_parts="none", lora={"parts": list(layers), "rank": 2})
    names = {name.split(".lora_")[0] for name in together.trained_parameter_names()}
    assert names == set().union(*layers.values()) and len(names) == sum(map(len, layers.values()))
    linear = {name for name, module in build(family).core.named_modules() if type(module) is torch.nn.Linear}
    assert names == linear - {"lm_head", "language_model.lm_head"}
    assert together.answer_loss(batch_of(together)).loss_sum.isfinite()


def refusal(folder: Path, **settings: Any) -> str:
    """The error of a check, which must come without a weight."""
    values = {"arch": "emovit_image_text", "path": str(folder), **NEEDED.get(folder.name, {}), **settings}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(weights, "load_core", lambda *arguments: pytest.fail("weights were loaded"))
        with pytest.raises(UserError) as caught:
            ImageText.check_weights(valid_settings(ModelSettings, values, "model", "the recipe"))
    return str(caught.value)


def changed(folder: Path, target: Path, **config: Any) -> Path:
    shutil.copytree(folder, target)
    content = json.loads((target / "adapter_config.json").read_text())
    (target / "adapter_config.json").write_text(json.dumps({**content, **config}))
    return target


def test_nothing_is_wrong_with_what_can_be_used(folder_of, made):
    _, adapter, _ = made("modules")
    for settings in ({"adapter": str(adapter)}, {"lora": {"parts": ["language_model"], "target_modules": ["q_proj"]}}):
        values = {"arch": "emovit_image_text", "path": str(folder_of("llava15")), **settings}
        assert ImageText.check_weights(valid_settings(ModelSettings, values, "model", "the recipe")) is None


def test_lora_names_are_checked_without_weights(folder_of):
    lora = {"parts": ["language_model", "vision_encoder"], "target_modules": ["nothing", "embed_tokens", "q_proj"]}
    message = refusal(folder_of("llava15"), lora=lora)
    assert "no linear layer 'nothing' in language_model; it has down_proj, gate_proj" in message
    assert "no linear layer 'embed_tokens' in language_model; 'embed_tokens' is Embedding" in message
    assert "no linear layer 'nothing' in vision_encoder" in message


def test_an_adapter_of_another_base_is_refused(folder_of, made, tmp_path):
    _, adapter, _ = made("names")
    message = refusal(folder_of("qwen25vl"), adapter=str(adapter))
    assert f"its base is {folder_of('llava15')}, not {folder_of('qwen25vl')}" in message
    assert "it adapts what this model does not have: model.vision_tower.encoder" in message
    hub = changed(adapter, tmp_path / "hub", base_model_name_or_path="someone/llava")
    values = {"arch": "emovit_image_text", "path": str(folder_of("llava15")), "adapter": str(hub)}
    assert ImageText.check_weights(valid_settings(ModelSettings, values, "model", "the recipe")) is None  # a copy of it
    wider = tmp_path / "wider"
    tensors = load_file(adapter / "adapter_model.safetensors")
    shutil.copytree(hub, wider)
    save_file(
        {name: torch.cat([value, value], 1) for name, value in tensors.items()}, wider / "adapter_model.safetensors"
    )
    assert "it belongs to a base of other sizes: model.language_model.layers.0" in refusal(
        folder_of("llava15"), adapter=str(wider)
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"use_dora": True}, "this one has DoRA"),
        ({"peft_type": "IA3"}, "this one has the type IA3"),
        ({"bias": "all", "layer_replication": [[0, 2]]}, "replicated layers, trained biases of the base"),
        ({"init_lora_weights": "pissa_niter_4"}, "a base changed by pissa_niter_4"),
    ],
)
def test_other_kinds_of_adapters_are_refused(folder_of, made, tmp_path, config, message):
    folder = changed(made("names")[1], tmp_path / "other", **config)
    assert message in refusal(folder_of("llava15"), adapter=str(folder))


def test_damaged_adapters_are_refused(folder_of, made, tmp_path):
    base, adapter, _ = made("names")
    assert "no adapter of peft, it has no adapter_config.json" in refusal(base, adapter=str(tmp_path / "none"))
    folder = changed(adapter, tmp_path / "half")
    tensors = load_file(adapter / "adapter_model.safetensors")
    lost = next(iter(tensors))
    whole = {name: value for name, value in tensors.items() if name != lost}
    save_file(whole, folder / "adapter_model.safetensors")
    assert "has no whole adapter of" in refusal(base, adapter=str(folder))
    save_file({**tensors, "base_model.model.model.extra": torch.ones(2)}, folder / "adapter_model.safetensors")
    assert "what this model does not have: model.extra" in refusal(base, adapter=str(folder))
    embedding = "base_model.model.model.language_model.embed_tokens.lora_{}.weight"
    pair = {embedding.format("A"): torch.ones(2, 4), embedding.format("B"): torch.ones(4, 2)}
    save_file({**tensors, **pair}, folder / "adapter_model.safetensors")
    assert "no linear layer: model.language_model.embed_tokens (Embedding)" in refusal(base, adapter=str(folder))
    (folder / "adapter_model.safetensors").unlink()
    assert "has no adapter_model.safetensors" in refusal(base, adapter=str(folder))
    (folder / "adapter_config.json").write_text("{")
    assert "is damaged" in refusal(base, adapter=str(folder))


def test_adapted_parts_must_be_frozen(folder_of, made):
    message = refusal(folder_of("llava15"), adapter=str(made("pattern")[1]), trained_parts="projector,language_model")
    assert "adapts language_model, whose weights must be frozen; set model.trained_parts=projector" in message


def test_processors_and_images_are_checked_without_weights(folder_of, made, tmp_path):
    base = tmp_path / "llava"
    shutil.copytree(folder_of("llava15"), base)
    (base / "chat_template.jinja").unlink()
    message = refusal(base, lora={"parts": ["language_model"], "target_modules": ["nothing"]})
    assert "has no chat template" in message and "model.template" in message
    assert "no linear layer 'nothing'" in message
    config = json.loads((base / "config.json").read_text())
    shutil.copy(folder_of("llava15") / "chat_template.jinja", base)
    (base / "config.json").write_text(json.dumps({**config, "image_token_index": 100000, "image_token_id": 100000}))
    assert "token 100000 stands for an image, but its tokenizer has" in refusal(base)
    qwen = tmp_path / "qwen"
    shutil.copytree(folder_of("qwen25vl"), qwen)
    config = json.loads((qwen / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 200
    (qwen / "config.json").write_text(json.dumps(config))
    message = refusal(qwen, max_side_px=256)
    assert "an image of 256 x 256 pixels" in message and "the language model's context is 200" in message
    values = {"arch": "emovit_image_text", "path": str(qwen), "max_side_px": 64}
    assert ImageText.check_weights(valid_settings(ModelSettings, values, "model", "the recipe")) is None
