"""Properties of the sources of weights.

- the environment variable takes precedence over the YAML, and each kind of source is recognised;
- errors about missing weights tell what to download and where to put it, also offline;
- a transformers folder and a LAVIS-format file of the same weights give the same model;
- weights of other sizes are rejected by name;
- all problems of a configuration are reported together; large models fail with advice, not with a traceback.
"""

from __future__ import annotations

import re

import pytest
import torch
from lavis.common.registry import registry

from lavis_emovit.errors import ConfigError, WeightsError
from lavis_emovit.models.instructblip.lavis_format import from_lavis
from lavis_emovit.models.instructblip.loading import load_parts
from lavis_emovit.models.instructblip.model import EmoVIT
from lavis_emovit.models.instructblip.settings import ModelSettings
from lavis_emovit.models.instructblip.weights import check_weights, find_weights

NAMES = ["emovit_tiny", "emovit_vicuna7b", "emovit_vicuna13b", "emovit_flant5xl", "emovit_flant5xxl"]


def settings_for(location, **changes) -> ModelSettings:
    return ModelSettings(
        **{"arch": "emovit_test", "pretrained": str(location), "image_size": 16, "num_query_token": 3, **changes}
    )


@pytest.fixture
def folder(build_parts, tmp_path):
    parts = build_parts("causal")
    path = tmp_path / "weights"
    parts.core.save_pretrained(path)
    parts.llm_tokenizer.save_pretrained(path)
    parts.qformer_tokenizer.save_pretrained(path / "qformer_tokenizer")
    return path


def lavis_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """transformers' names -> LAVIS's, written here by hand as the other half of the check."""
    out = {}
    for name, tensor in state.items():
        if match := re.fullmatch(r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.qkv\.bias", name):
            query, _, value = tensor.chunk(3)
            out[f"visual_encoder.blocks.{match[1]}.attn.q_bias"] = query
            out[f"visual_encoder.blocks.{match[1]}.attn.v_bias"] = value
            continue
        for old, new in (
            ("vision_model.embeddings.class_embedding", "visual_encoder.cls_token"),
            ("vision_model.embeddings.position_embedding", "visual_encoder.pos_embed"),
            ("vision_model.embeddings.patch_embedding", "visual_encoder.patch_embed.proj"),
            ("vision_model.encoder.layers", "visual_encoder.blocks"),
            ("vision_model.post_layernorm", "ln_vision"),
            ("self_attn.qkv", "attn.qkv"),
            ("self_attn.projection", "attn.proj"),
            ("layer_norm1", "norm1"),
            ("layer_norm2", "norm2"),
            ("qformer.embeddings.layernorm", "Qformer.bert.embeddings.LayerNorm"),
            ("attention.attention", "attention.self"),
            ("qformer.", "Qformer.bert."),
            ("language_projection", "llm_proj"),
            ("language_model", "llm_model"),
        ):
            if not name.startswith("Qformer") or new == "attention.self":
                name = name.replace(old, new)
        out[name] = tensor
    return out


def same_answers(first: EmoVIT, second: EmoVIT, batch: dict) -> None:
    candidates = ["awe", "anger", "sadness"]
    torch.testing.assert_close(
        first.score_candidates(batch, candidates), second.score_candidates(batch, candidates), atol=1e-4, rtol=1e-5
    )


def test_environment_takes_precedence_and_kinds_are_recognised(tmp_path, monkeypatch):
    monkeypatch.delenv("EMOVIT_WEIGHTS_TEST", raising=False)
    assert find_weights(settings_for("owner/name")).kind == "hub"
    assert find_weights(settings_for(tmp_path / "a.pth")).kind == "lavis_file"
    assert find_weights(settings_for("package:nothing")).kind == "folder"
    assert not find_weights(settings_for("package:nothing")).present
    monkeypatch.setenv("EMOVIT_WEIGHTS_TEST", str(tmp_path))
    source = find_weights(settings_for("owner/name"))
    assert (source.kind, source.location, source.named_by) == ("folder", str(tmp_path), "EMOVIT_WEIGHTS_TEST")


def test_folder_gives_the_same_model(folder, build_parts, batch):
    loaded = EmoVIT(load_parts(settings_for(folder)), settings_for(folder)).eval()
    original = EmoVIT(build_parts("causal"), settings_for(folder)).eval()
    same_answers(loaded, original, batch)


def test_lavis_file_gives_the_same_model(folder, build_parts, batch, tmp_path):
    parts = build_parts("causal")
    with torch.no_grad():
        # EVA has no key bias, so it is zero in a file in LAVIS's format.
        for layer in parts.core.vision_model.encoder.layers:
            layer.self_attn.qkv.bias.chunk(3)[1].zero_()
    state = lavis_names(parts.core.state_dict())
    assert not any(name.startswith(("vision_model", "qformer", "language")) for name in state)
    state["Qformer.bert.embeddings.position_ids"] = torch.arange(4)
    translated = from_lavis(state)
    back = translated.state
    assert translated.left_out == ["Qformer.bert.embeddings.position_ids (a buffer that every model computes)"]
    assert set(back) == set(parts.core.state_dict())
    for name, tensor in parts.core.state_dict().items():
        assert torch.equal(back[name], tensor), name

    # The language model's folder, as if it was downloaded separately.
    llm = tmp_path / "llm"
    parts.core.language_model.save_pretrained(llm)
    parts.llm_tokenizer.save_pretrained(llm)
    for name, content in (("full.pth", {"model": state}), ("trimmed.pth", without_language_model(state))):
        torch.save(content, tmp_path / name)
        settings = settings_for(
            tmp_path / name,
            llm_model=str(llm),
            vision_heads=4,
            qformer_heads=4,
            qformer_tokenizer=str(folder / "qformer_tokenizer"),
        )
        loaded = load_parts(settings)
        for key, tensor in parts.core.state_dict().items():
            if key.startswith(("vision_model", "query", "language_projection")):
                assert torch.equal(loaded.core.state_dict()[key], tensor), key


def without_language_model(state):
    return {name: tensor for name, tensor in state.items() if not name.startswith("llm_model.")}


@pytest.mark.parametrize(
    ("location", "reason"),
    [("package:nothing", "does not exist"), ("./weights/absent", "does not exist"), ("absent.pth", "does not exist")],
)
def test_missing_weights_come_with_advice(location, reason, monkeypatch):
    monkeypatch.delenv("EMOVIT_WEIGHTS_TEST", raising=False)
    with pytest.raises(WeightsError) as error:
        load_parts(settings_for(location))
    for part in (reason, "hf download", "EMOVIT_WEIGHTS_TEST", "emovit_tiny"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("variable", "part"),
    [("./elsewhere", "unset EMOVIT_WEIGHTS_TINY"), ("owner/absent", "unset EMOVIT_WEIGHTS_TINY"), (None, "reinstall")],
)
def test_missing_shipped_weights_are_not_to_be_downloaded(variable, part, tmp_path, monkeypatch):
    monkeypatch.setenv("EMOVIT_OFFLINE", "1")
    monkeypatch.delenv("EMOVIT_WEIGHTS_TINY", raising=False)
    if variable is None:
        monkeypatch.setattr("lavis_emovit.models.instructblip.weights.PACKAGE_ROOT", tmp_path)
    else:
        monkeypatch.setenv("EMOVIT_WEIGHTS_TINY", variable)
    with pytest.raises(WeightsError) as error:
        check_weights(settings_for("package:emovit_tiny", arch="emovit_tiny"))
    assert part in str(error.value) and "hf download" not in str(error.value)


@pytest.mark.parametrize("name", NAMES[1:])
def test_large_models_are_registered_and_fail_with_advice(name, monkeypatch):
    monkeypatch.setenv("EMOVIT_OFFLINE", "1")
    monkeypatch.delenv("EMOVIT_WEIGHTS_" + name.removeprefix("emovit_").upper(), raising=False)
    model_class = registry.get_model_class(name)
    with pytest.raises(WeightsError, match=r"hf download Salesforce/instructblip"):
        model_class.from_pretrained(model_class.DEFAULT_MODEL_TYPE)


def test_weights_are_checked_before_anything_is_loaded(folder, monkeypatch):
    for name in ("EMOVIT_OFFLINE", "HF_HUB_OFFLINE", "EMOVIT_WEIGHTS_TEST"):
        monkeypatch.delenv(name, raising=False)
    assert check_weights(settings_for(folder)) is None
    assert "owner/name of emovit_test are not on this machine" in check_weights(settings_for("owner/name"))
    monkeypatch.setenv("EMOVIT_OFFLINE", "1")
    for location in ("owner/name", "./absent"):
        with pytest.raises(WeightsError, match="hf download"):
            check_weights(settings_for(location))


def test_weights_of_other_sizes_are_rejected(folder):
    with pytest.raises(WeightsError, match=r"image_size is 20, no multiple of.*8 pixels.*3 query.*token is 5"):
        load_parts(settings_for(folder, image_size=20, num_query_token=5))


def test_all_configuration_problems_are_reported_together():
    with pytest.raises(ConfigError) as error:
        EmoVIT.from_config({"arch": "emovit_tiny", "pretrained": "x", "image_sise": 3, "trained_parts": "qfomer"})
    assert "image_sise: unknown key (did you mean 'image_size'?)" in str(error.value)
    assert "unknown part 'qfomer'" in str(error.value)


@pytest.mark.parametrize("value", [5, None, [1], {"qformer": True}])
def test_trained_parts_of_a_wrong_type_are_reported_too(value):
    with pytest.raises(ConfigError, match=r"2 problems(.|\n)*model\.trained_parts: should be a list of names"):
        EmoVIT.from_config({"arch": "emovit_tiny", "pretrained": "x", "image_size": "big", "trained_parts": value})
