"""Properties of a step of reinforcement learning, on models whose tokens are whole answers.

- each preset trains, and its reward rises;
- the gradient is that of the published objective, computed by hand, for each kind of mean; the divergence is the
  estimator of DeepSeekMath between the weights at the start and now, with an unbiased gradient;
- a step has the same loss however it is cut;
- groups of equal rewards are counted, and replaced in at most so many rounds by groups of other images;
- a reward that fails and a judge that is down name what they can and stop before the weights change;
- the model answers the questions of rewards, with the image and without it; what records lack is refused by name.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from canned import Training, canned_model, record

from lavis_emovit.emotion.templates import get_template
from lavis_emovit.errors import ConfigError, UserError
from lavis_emovit.models.instructblip.model import EmoVIT
from lavis_emovit.rewards import Question, Reward, register_reward
from lavis_emovit.rewards import registry as reward_registry
from lavis_emovit.rewards.presets import load_preset, preset_files
from lavis_emovit.tasks.base import StepRefusedError

WORDS = ["awe", "fear", "sadness", "the sea", "no", "yes"]


# ---- Training ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", preset_files())
def test_the_reward_of_each_preset_rises(name: str) -> None:
    preset = load_preset(name)
    template = get_template(preset.template)
    label, other, fields = "awe", "fear", {"action_units": {1: 1.0, 4: 1.0}}
    if name == "esj":
        label, other, fields = "correct", "incorrect", {"emotion": "correct", "label_set": "labels: correct, incorrect"}
    reasoning = dict.fromkeys(template.part_names, f"{label.capitalize()}: AU1 and AU4")
    right = template.write({**reasoning, "answer": label} | ({"confidence": "0.9"} if name == "emocaliber" else {}))
    wrong = template.write({**reasoning, "answer": other} | ({"confidence": "0.9"} if name == "emocaliber" else {}))
    model = canned_model([*dict.fromkeys([right, wrong, label, "the sea", "yes", "no"])])
    torch.manual_seed(0)
    training = Training(model, [record(number, **fields) for number in range(2)], preset=name, num_generations=8)
    rewards = [training.step()["reward"] for _ in range(20)]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.25, rewards
    schedule = preset.schedule
    assert training.task.settings.kl == (schedule.kl or 0.0)
    assert training.task.settings.scale_rewards is (schedule.scale_rewards is not False)


# ---- The objective ----------------------------------------------------------------------------------------------


def log_probs_by_hand(model: EmoVIT, rollouts: Any, temperature: float) -> torch.Tensor:
    """Log-probability of each answer's tokens [M, T], from whole logits of the language model."""
    index = rollouts.batch["image_index"]
    prefix = model._visual_prefix(rollouts.batch, rollouts.batch["text_input"])
    prompts = model._whole_prompts(rollouts.batch["text_input"])
    rows = []
    for question, ids in zip(rollouts.tensors["prompt_ids"][:, 0].tolist(), rollouts.tensors["completion_ids"]):
        text = model.core.get_input_embeddings()(torch.cat([torch.tensor(prompts[question]), ids]))
        inputs = torch.cat([prefix[question], text])[None]
        logits = model.core.language_model(inputs_embeds=inputs).logits[0] / temperature
        rows.append(logits[-len(ids) - 1 : -1].log_softmax(-1).gather(1, ids[:, None])[:, 0])
    assert len(index) == len(prompts)
    return torch.stack(rows)


def gradient(model: EmoVIT) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad and p.grad is not None])


@pytest.mark.parametrize("loss", ["dapo", "bnpo", "grpo", "dr_grpo"])
def test_the_gradient_is_that_of_the_objective(loss: str) -> None:
    model = canned_model(WORDS)
    training = Training(
        model, [record(0), record(1)], rewards={"label_exact": {}, "length": {"weight": 0.5, "most": 2, "fade": 2}},
        loss=loss, kl=0.3, temperature=0.7, max_answer_tokens=4,
    )  # fmt: skip
    names = model.trained_parameter_names()
    start = {name: tensor.clone() for name, tensor in model.trained_state_dict().items()}
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
    moved = {name: tensor.clone() for name, tensor in model.trained_state_dict().items()}
    (batch,) = training.engine.prepare([training.batch])
    (rollouts,) = batch["rollouts"]
    result = training.task.step_loss(model, batch)
    (result.loss_sum / result.weight).backward()
    found, value = gradient(model), result.loss_sum.item() / result.weight
    model.zero_grad()

    model.load_trained_state_dict(start)
    with torch.no_grad():
        reference = log_probs_by_hand(model, rollouts, 0.7)
    model.load_trained_state_dict(moved)
    now, mask = log_probs_by_hand(model, rollouts, 0.7), rollouts.tensors["completion_mask"].float()
    rewards = torch.tensor([score.total for score in rollouts.scores]).view(2, 8)
    advantages = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    assert (rewards.std(1) > 0).all() and 0 < mask.sum() < mask.numel()
    difference = reference - now
    divergence = difference.exp() - difference - 1
    # The ratio is 1, but its gradient makes that of the divergence unbiased (DeepSeek-V3.2, arXiv 2512.02556).
    ratio = (now - now.detach()).exp()
    per_token = ratio * (0.3 * divergence - advantages.flatten()[:, None])
    expected = {
        "dapo": (per_token * mask).sum() / mask.sum(),
        "bnpo": (per_token * mask).sum() / mask.sum(),
        "grpo": ((per_token * mask).sum(1) / mask.sum(1)).mean(),
        "dr_grpo": (per_token * mask).sum() / (16 * 4),
    }[loss]
    expected.backward()
    assert value == pytest.approx(expected.item(), abs=1e-5)
    assert torch.allclose(found, gradient(model), atol=1e-5, rtol=1e-3) and found.norm() > 1e-3
    columns = training.task.step_columns(result.measures)
    assert columns["kl"] == pytest.approx(((divergence * mask).sum() / mask.sum()).item(), rel=1e-3)
    assert columns["reward"] == pytest.approx(rewards.mean().item())
    assert columns["num_tokens"] == mask.sum() and columns["num_answers"] == 16
    assert names == model.trained_parameter_names()


@pytest.mark.parametrize("loss", ["dapo", "bnpo", "grpo", "dr_grpo"])
def test_a_step_has_the_same_loss_however_it_is_cut(loss: str) -> None:
    model = canned_model(WORDS)
    training = Training(
        model, [record(n) for n in range(3)], rewards={"label_exact": {}, "length": {"weight": 0.5, "least": 2}},
        loss=loss, max_answer_tokens=4,
    )  # fmt: skip
    torch.manual_seed(1)
    (batch,) = training.engine.prepare([training.batch])
    (rollouts,) = batch["rollouts"]
    whole = training.task.step_loss(model, batch)
    parts = [rollouts.without([place for place in range(3) if place != kept]) for kept in range(3)]
    cut = [training.task.step_loss(model, {**batch, "rollouts": [part]}) for part in parts]
    assert sum(part.weight for part in cut) == whole.weight
    assert sum(part.loss_sum.item() for part in cut) == pytest.approx(whole.loss_sum.item(), abs=1e-4)
    for name in ("entropy", "num_tokens"):
        assert sum(part.measures[name] for part in cut) == pytest.approx(whole.measures[name], rel=1e-4)


def test_the_records_own_questions_have_a_group_each() -> None:
    training = Training(
        canned_model(WORDS), [record(0), record(1)], rewards={"label_exact": {}}, question="instruction",
        template="answer_confidence", questions=("Which?", "Why?"),
    )  # fmt: skip
    (batch,) = training.engine.prepare([training.batch])
    (rollouts,) = batch["rollouts"]
    instruction = get_template("answer_confidence").instruction()
    assert rollouts.batch["text_input"] == [f"{one}\n{instruction}" for one in ("Which?", "Why?")] * 2
    assert rollouts.batch["image_index"].tolist() == [0, 0, 1, 1] and len(rollouts.texts) == 32
    assert training.task.step_loss(training.model, batch).weight == 32


def test_answers_that_are_cut_do_not_count_if_masked() -> None:
    """No answer of one token has its end token, so that the step changes nothing."""
    training = Training(canned_model(WORDS), [record(0)], rewards={"label_exact": {}}, mask_cut_answers=True)
    ends = training.model._end_ids()
    before = {name: tensor.clone() for name, tensor in training.model.trained_state_dict().items()}
    training.model.sample_answers = lambda batch, count, **options: [[6 + number % 3] for number in range(count)]
    columns = training.step()
    assert 6 not in ends and columns["cut_answers"] == 1.0 and columns["num_tokens"] == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in training.model.trained_state_dict().items())


# ---- Dead groups ------------------------------------------------------------------------------------------------


def test_dead_groups_are_counted_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images 0 and 1 always have the same reward; half of the answers about the others are right."""
    model = canned_model(WORDS)
    training = Training(model, [record(number) for number in range(6)], rewards={"label_exact": {}}, max_replacements=2)
    drawn = []

    def sample(batch: dict[str, Any], num_answers: int, **options: Any) -> list[list[int]]:
        drawn.append(list(batch["record_id"]))
        awe, fear = (model.llm_tokenizer.convert_tokens_to_ids(word) for word in ("awe", "fear"))
        living = [int(name.rpartition("/")[2]) > 1 for name in batch["record_id"]]
        return [[awe if alive and place % 2 else fear] for alive in living for place in range(num_answers)]

    monkeypatch.setattr(model, "sample_answers", sample)
    torch.manual_seed(3)
    (batch,) = training.engine.prepare([training.batch])
    assert len(drawn) > 1 and drawn[0] == [f"set/{number}" for number in range(6)]
    assert len(drawn) <= 3 and len(drawn[1]) == 2
    measures = batch["measures"]
    num_dead = sum(name in ("set/0", "set/1") for names in drawn for name in names)
    kept_dead = sum(name in ("set/0", "set/1") for name in drawn[-1]) if len(drawn) == 3 else 0
    assert measures["num_groups"] == sum(map(len, drawn)) and measures["dead_groups"] == num_dead
    assert measures["replaced_groups"] == num_dead - kept_dead == sum(map(len, drawn[1:]))
    # As many groups are trained on as there are questions.
    assert sum(len(rollouts.groups) for rollouts in batch["rollouts"]) == 6
    for rollouts in batch["rollouts"]:
        advantages = rollouts.tensors["advantages"].view(len(rollouts.groups), 8)
        assert (advantages != 0).any(dim=1).sum() == len(rollouts.groups) - len(
            [group for group in rollouts.groups if rollouts.batch["record_id"][group] in ("set/0", "set/1")]
        )
    columns = training.task.step_columns(measures)
    assert columns["dead_groups"] == pytest.approx(num_dead / sum(map(len, drawn)))
    loss = training.task.step_loss(model, batch)
    assert loss.weight == 48 and torch.isfinite(loss.loss_sum)


# ---- Bad input --------------------------------------------------------------------------------------------------


@pytest.fixture
def own_reward(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Function that registers a reward for one test."""
    reward_registry.known_rewards()
    monkeypatch.setattr(reward_registry, "_REWARDS", dict(reward_registry._REWARDS))
    return lambda *arguments, **keys: register_reward(Reward(*arguments, **keys))


def test_a_group_that_is_dead_but_for_rounding_has_the_value_zero(own_reward: Any) -> None:
    own_reward("rounded", lambda answer, record, settings: 0.1 + 0.2 if answer in WORDS[:3] else 0.3)
    training = Training(canned_model(WORDS), [record(0)], rewards={"rounded": {}})
    training.task.needs_pair_values = True
    torch.manual_seed(0)
    (batch,) = training.engine.prepare([{**training.batch, "number": [0]}])
    (rollouts,) = batch["rollouts"]
    assert len({score.total for score in rollouts.scores}) == 2
    assert batch["pair_values"].values.tolist() == [0.0]


def test_a_reward_that_is_nan_names_record_and_answer(own_reward: Any) -> None:
    own_reward("broken", lambda answer, record, settings: float("nan") if answer == "the sea" else 0.0)
    training = Training(canned_model(WORDS), [record(0), record(1)], rewards={"broken": {}}, max_answer_tokens=1)
    torch.manual_seed(0)
    before = {name: tensor.clone() for name, tensor in training.model.trained_state_dict().items()}
    with pytest.raises(StepRefusedError, match=r"reward 'broken' for record 'set/\d' and answer 'the sea'.*nan"):
        for _ in range(20):
            training.step(rate=0.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in training.model.trained_state_dict().items())


@pytest.mark.parametrize("error", [UserError("the judge x did not answer"), ConnectionError("the judge x is down")])
def test_a_judge_that_is_down_ends_the_step(error: Exception) -> None:
    training = Training(canned_model(WORDS), [record(0)], rewards={"label_exact": {}})

    def score(*_: Any) -> Any:
        raise error

    training.task.rewards.score = score  # type: ignore[method-assign]
    with pytest.raises(StepRefusedError, match="the judge x"):
        training.step()


def test_what_records_lack_is_refused_before_training() -> None:
    lacking = {"distribution": "votes", "au_f1": "action units", "statement": "judge"}
    with pytest.raises(ConfigError) as refused:
        Training(canned_model(WORDS), [record(7), record(8)], rewards={name: {} for name in lacking})
    for name, words in lacking.items():
        assert any(f"'{name}'" in line and words in line for line in refused.value.problems), name
    assert "record" in str(refused.value) and "'set/7', 'set/8'" in str(refused.value)


def test_the_model_answers_questions_of_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    model = canned_model(WORDS)
    training = Training(model, [record(0), record(1)], rewards={"label_exact": {}})
    training.step()
    seen = []

    def generate(samples: dict[str, Any], **settings: Any) -> list[str]:
        seen.append((samples["image"][samples["image_index"]], samples["prompt"], settings))
        return [f"reply to {text}" for text in samples["prompt"]]

    monkeypatch.setattr(model, "generate", generate)
    first, second = training.data.records
    questions = [Question("a", second, True), Question("b", first, False), Question("c", first, True)]
    assert training.task.rewards.asked.model(questions) == ["reply to a", "reply to b", "reply to c"]
    (shown, prompts, settings), (blank, others, _) = seen
    assert prompts == ["a", "c"] and torch.equal(shown, training.batch["image"][[1, 0]])
    assert others == ["b"] and not blank.any() and settings["use_nucleus_sampling"] is False
