"""Properties of adapters on the Q-Former and the language model.

- a model with new adapters has the same answers and the same fingerprint as one without;
- only the adapters are trained, r * (in + out) parameters per layer, and each of them has a gradient;
- the state dict has adapters only and can be saved and loaded; a run that resumes from it ends like one without a stop;
- merged into the weights, they give the same answers in a plain model;
- wrong targets are rejected by name.
"""

from __future__ import annotations

import sys

import pytest
import torch

from lavis_emovit.checkpoints.checkpoint import CheckpointFacts, save_checkpoint, verify_checkpoint
from lavis_emovit.checkpoints.training_state import Position, TrainingState, read_state, writers_of
from lavis_emovit.errors import ConfigError, WeightsError
from lavis_emovit.models import lora
from lavis_emovit.models.instructblip.model import EmoVIT
from lavis_emovit.models.instructblip.settings import ModelSettings
from lavis_emovit.runners.engines.torch_engine import TorchEngine
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.settings import parse_settings
from lavis_emovit.tasks.emotion_instruction import EmotionInstructionTask

pytest.importorskip("peft", reason="needs peft: pip install 'lavis-emovit[lora]'")

WORDS = ["awe", "sadness", "it is dark"]


def settings_for(parts="language_model", trained="query_tokens", **changes) -> ModelSettings:
    rest = {key: changes.pop(key) for key in ("rank", "alpha", "dropout", "target_modules") if key in changes}
    return ModelSettings(
        arch="emovit_test",
        pretrained="x",
        image_size=16,
        num_query_token=3,
        trained_parts=trained,
        lora={"parts": parts, "rank": 4, **rest} if parts else None,
        **changes,
    )


@pytest.fixture
def disturb():
    """Function that gives adapters values as after training: B starts at zero."""

    def act(model: EmoVIT) -> EmoVIT:
        generator = torch.Generator().manual_seed(4)
        with torch.no_grad():
            for name, parameter in model.core.named_parameters():
                if ".lora_B." in name:
                    parameter.normal_(std=0.2, generator=generator)
        return model

    return act


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
@pytest.mark.parametrize("parts", ["language_model", "qformer", "qformer, language_model"])
def test_only_adapters_are_trained(build_parts, batch, kind, parts, disturb):
    plain = EmoVIT(build_parts(kind), settings_for(None)).eval()
    model = EmoVIT(build_parts(kind), settings_for(parts)).eval()
    scores = plain.score_candidates(batch, WORDS)
    torch.testing.assert_close(model.score_candidates(batch, WORDS), scores, atol=1e-6, rtol=1e-6)
    assert model.frozen_fingerprint() == plain.frozen_fingerprint()
    names = model.trained_parameter_names()
    assert set(names) == {"query_tokens", *(name for name in names if ".lora_" in name)}
    assert set(model.trained_state_dict()) == set(names)
    assert {name.split(".")[0] for name in names} == {"query_tokens", *parts.split(", ")}

    # Every linear layer except the head and the Q-Former's last feed-forward for text; r numbers per row and column.
    expected = 3 * 32
    for name, module in plain.core.named_modules():
        if isinstance(module, torch.nn.Linear) and name.split(".")[0] in parts and not name.endswith("lm_head"):
            unread = name in ("qformer.encoder.layer.1.intermediate.dense", "qformer.encoder.layer.1.output.dense")
            expected += 0 if unread else 4 * (module.in_features + module.out_features)
    assert model.parameter_counts()["trained"] == expected
    assert model.parameter_counts()["total"] == plain.parameter_counts()["total"] + expected - 3 * 32

    disturb(model).train()
    training = {name for name, module in model.core.language_model.named_modules() if module.training}
    assert all(".lora_dropout" in name for name in training)
    model(batch)["loss"].backward()
    for name, parameter in model.core.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) == parameter.requires_grad, name
    assert (model.eval().score_candidates(batch, WORDS) - scores).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_merged_adapters_give_the_same_answers(build_parts, batch, kind, disturb):
    model = disturb(EmoVIT(build_parts(kind), settings_for("qformer, language_model")).eval())
    scores, answers = model.score_candidates(batch, WORDS), model.generate(batch, max_length=6)
    names = set(build_parts(kind).core.state_dict())
    assert len(lora.merge(model.core)) > 10
    assert set(model.core.state_dict()) == names
    torch.testing.assert_close(model.score_candidates(batch, WORDS), scores, atol=1e-5 * scores.abs().max(), rtol=1e-5)
    assert model.generate(batch, max_length=6) == answers
    assert lora.merge(model.core) == []


def test_merging_into_half_precision_can_keep_the_sum(build_parts, batch, disturb):
    make = lambda: disturb(EmoVIT(build_parts("causal"), settings_for(frozen_precision="bf16")).eval())  # noqa: E731
    layer = "language_model.model.layers.0.self_attn.q_proj"
    adapted = make().core.get_submodule(layer)
    a, b = adapted.lora_A["default"].weight, adapted.lora_B["default"].weight
    exact = adapted.base_layer.weight.float() + 16.0 / 4 * (b @ a)
    for dtype, tolerance in ((torch.float32, 1e-6), (None, 1e-2)):
        model = make()
        lora.merge(model.core, dtype)
        weight = model.core.get_submodule(layer).weight
        assert weight.dtype == (dtype or torch.bfloat16)
        torch.testing.assert_close(weight.float(), exact, atol=tolerance, rtol=tolerance)


def test_half_precision_weights_with_float32_adapters(build_parts, batch):
    model = EmoVIT(build_parts("causal"), settings_for("qformer, language_model", frozen_precision="bf16")).train()
    assert {p.dtype for p in model.core.parameters() if p.requires_grad} == {torch.float32}
    for amp in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
            model(batch)["loss"].backward()
            model.score_candidates(batch, WORDS)


def test_dropout_acts_on_adapters_only(build_parts, batch, disturb):
    model = disturb(EmoVIT(build_parts("seq2seq"), settings_for(dropout=0.5)))
    model.train()
    torch.manual_seed(0)
    one, other = model(batch)["loss"], model(batch)["loss"]
    assert one != other, "the adapters' dropout acts in training"
    silent = EmoVIT(build_parts("seq2seq"), settings_for()).train()
    assert silent(batch)["loss"] == silent(batch)["loss"], "that of the frozen T5 never does"
    model.eval()
    assert model(batch)["loss"] == model(batch)["loss"]


def test_a_resumed_run_ends_the_same(build_parts, batch, tmp_path):
    samples = {**batch, "instance_id": ["a", "b", "c"], "record_id": ["a", "b"]}
    run = RunSettings(output_dir="x", max_epoch=1, global_batch_size=2, init_lr=1e-2, device="cpu")
    engines = []

    def start() -> TorchEngine:
        torch.manual_seed(len(engines))  # adapters start equal for any state of the generators
        model = EmoVIT(build_parts("causal"), settings_for("qformer, language_model")).train()
        engines.append(TorchEngine(model, EmotionInstructionTask(), run))
        return engines[-1]

    straight, stopped = start(), start()
    losses = [straight.train_step([samples], 1e-2).loss for _ in range(4)]
    assert losses[-1] < losses[0]
    for _ in range(2):
        stopped.train_step([samples], 1e-2)
    model = stopped.model
    state = TrainingState(model.trained_state_dict(), stopped.state(), Position(step=2), "model: {}\n")
    path = save_checkpoint(
        tmp_path,
        CheckpointFacts("i", "c", model.frozen_fingerprint(), {}),
        step=2,
        epoch=0,
        writers=writers_of(state),
    )
    again = start()
    assert verify_checkpoint(path).frozen_fingerprint == again.model.frozen_fingerprint()
    back = read_state(path)
    again.model.load_trained_state_dict(back.trained)
    again.load_state(back.engine)
    assert [again.train_step([samples], 1e-2).loss for _ in range(2)] == losses[2:]
    for name, tensor in straight.model.trained_state_dict().items():
        assert torch.equal(tensor, again.model.trained_state_dict()[name]), name
    loaded = EmoVIT(build_parts("causal"), settings_for("qformer, language_model"))
    loaded.load_checkpoint(str(path))
    assert torch.equal(loaded.trained_state_dict()["query_tokens"], back.trained["query_tokens"])
    with pytest.raises(WeightsError, match=r"unknown: (.|\n)*model\.lora"):
        EmoVIT(build_parts("causal"), settings_for(None)).load_trained_state_dict(back.trained)


def test_targets_by_name(build_parts):
    model = EmoVIT(build_parts("causal"), settings_for(target_modules="q_proj, v_proj", trained="none"))
    layers = {name.split(".lora_")[0].rpartition(".")[2] for name in model.trained_parameter_names()}
    assert layers == {"q_proj", "v_proj"}
    assert model.parameter_counts()["trained"] == 2 * 2 * 4 * (32 + 32)
    with pytest.raises(ConfigError, match=r"no linear layer 'q_prog' in language_model; it has down_proj, .*q_proj"):
        EmoVIT(build_parts("causal"), settings_for(target_modules=["q_prog"]))


def test_contradictions_are_rejected_by_name():
    values = {"arch": "x", "pretrained": "y"}
    _, problems = parse_settings(ModelSettings, {**values, "lora": {"parts": ["qformer"]}}, "model")
    assert problems == [
        "model: model.lora adapts qformer, so the weights of the part itself must be frozen; "
        "set model.trained_parts=query_tokens,language_projection,vision_layernorm"
    ]
    for wrong, message in (
        ({"parts": "qformer, eyes"}, "model.lora.parts.1: Input should be 'qformer' or 'language_model'"),
        ({"parts": []}, "model.lora.parts: "),
        ({"parts": "qformer", "rang": 4}, "model.lora.rang: unknown key (did you mean 'rank'?)"),
        ({"parts": "qformer", "rank": 0}, "model.lora.rank: "),
    ):
        _, problems = parse_settings(ModelSettings, {**values, "trained_parts": "none", "lora": wrong}, "model")
        assert len(problems) == 1 and problems[0].startswith(message), problems


def test_without_peft_the_install_line_is_named(build_parts, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"model\.lora: needs the package peft: pip install"):
        EmoVIT(build_parts("causal"), settings_for())
