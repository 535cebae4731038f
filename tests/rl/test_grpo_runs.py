"""Properties of whole runs of reinforcement learning, on random weights and the drawn sample set.

- a recipe trains each family; log, report and validation have its rewards, and groups of answers;
- stopped and started again, with a divergence and replaced groups, a run ends bit for bit the same;
- images whose groups were dead are dropped for the later epochs;
- two processes of plain torch, and of DeepSpeed with ZeRO stages 2 and 3, train alike, also if both are killed and
  started again, and if accelerate's launcher asks for the stage; stage 3 refuses some settings;
- two stages of one recipe: the second starts from the best weights of the first, and both resume;
- a judge that is down ends the run, which resumes from the step before.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jobs import finish, load_deepspeed, logs, start_ranks, stop_before
from small_folder import IMAGE_PX, NUM_QUERIES, write_folder
from tiny_models import make_llava

from lavis_emovit.errors import ConfigError, UserError
from lavis_emovit.paths import list_checkpoints
from lavis_emovit.rewards import Question, Reward, known_rewards, register_reward
from lavis_emovit.rewards import registry as reward_registry
from lavis_emovit.runners.logs import read_log
from lavis_emovit.tasks.base import StepRefusedError
from lavis_emovit.tasks.emotion_grpo import EmotionGrpoTask
from lavis_emovit.train import main as train_main
from lavis_emovit.train import run_recipe

pytestmark = pytest.mark.xdist_group("grpo_runs")  # one worker loads TRL and draws the data

BUILD = {"images": {"storage": "small"}, "prepare": {"draw": {"images_per_class": 10, "size_px": 64}}}
RUN = {
    "max_epoch": 1, "max_steps": 4, "global_batch_size": 3, "batch_size_eval": 16, "init_lr": 1e-3,
    "lr_sched": "constant_lr", "device": "cpu", "num_threads": 1, "seed": 3, "num_report_answers": 1,
    "tensorboard": False, "report": False, "keep_last": 9, "valid_splits": [], "test_splits": [],
    "evaluate_before": False, "save_every_steps": 1,
}  # fmt: skip
# Answers of random models differ in their length alone.
TASK = {
    "name": "emotion_grpo", "rewards": {"length": {"most": 1, "fade": 4}}, "num_generations": 4,
    "max_answer_tokens": 8, "temperature": 2.0, "log_answers_steps": 2,
}  # fmt: skip
# A reward that all answers of some groups have.
RARE = {"rewards": {"length": {"most": 2, "fade": 1}}, "num_generations": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("grpo_runs")


@pytest.fixture(scope="module")
def models(root: Path) -> dict[str, dict[str, Any]]:
    return {
        "small": {
            "arch": "emovit_small", "model_type": "small", "pretrained": str(write_folder(root / "small")),
            "image_size": IMAGE_PX, "num_query_token": NUM_QUERIES, "max_txt_len": 128, "reading_epochs": 0,
        },
        "llava": {
            "arch": "emovit_image_text", "path": str(make_llava(root / "llava")), "frozen_precision": "fp32",
            "trained_parts": ["projector"], "lora": {"parts": ["language_model"], "rank": 2, "alpha": 4},
        },
        "tiny": {"arch": "emovit_tiny"},
    }  # fmt: skip


@pytest.fixture
def recipe(
    root: Path, models: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Writes a recipe; the working directory is the test's own folder, the data are shared."""
    monkeypatch.setenv("EMOVIT_DATA", str(root / "data"))
    monkeypatch.chdir(tmp_path)

    def write(name: str, family: str = "small", task: dict[str, Any] | None = None, **run: Any) -> Path:
        dataset: dict[str, Any] = {"build_info": BUILD}
        if family == "small":
            kinds = (("train", "emovit_image_train"), ("eval", "emovit_image_eval"))
            dataset["vis_processor"] = {split: {"name": kind, "image_size": IMAGE_PX} for split, kind in kinds}
        values = {
            "model": models[family],
            "datasets": {"emoset_sketch": dataset},
            "run": {**RUN, "output_dir": name, "task": {**TASK, **(task or {})}, **run},
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def train(path: Path) -> int:
    return train_main(["--cfg-path", str(path)])


def steps(run: Path, *names: str) -> list[list[Any]]:
    return [[row[name] for name in names] for row in read_log(run / "log.jsonl") if row["event"] == "step"]


@pytest.mark.parametrize("family", ["small", "llava", "tiny"])
def test_a_recipe_trains_each_family(family: str, recipe: Callable[..., Path], tmp_path: Path) -> None:
    splits = {"valid_splits": ["val"], "test_splits": ["test"], "report": family == "llava"}
    run_recipe(recipe(family, family, {"kl": 0.1, "template": "think_answer"}, max_steps=3, **splits))
    rows = read_log(tmp_path / family / "log.jsonl")
    for row in (row for row in rows if row["event"] == "step"):
        assert row["num_answers"] == 12 and row["num_groups"] == 3 and 0 <= row["dead_groups"] <= 1
        assert 0 <= row["reward"] == row["reward.length"] <= 1 and 0 < row["answer_tokens"] <= 8
        assert row["entropy"] > 0 and row["kl"] >= 0 and 0 <= row["cut_answers"] <= 1
    assert steps(tmp_path / family, "kl")[0] == [0.0] and steps(tmp_path / family, "kl")[-1] > [0.0]
    assert any(row["grad_norm"] > 0 for row in rows if row["event"] == "step")
    groups = [row for row in rows if row["event"] == "answers"]
    assert [group["step"] for group in groups] == [1, 3]
    for group in groups:
        assert len(group["answers"]) == 4 and "<think>" in group["question"] and group["label"]
        assert sum(answer["advantage"] for answer in group["answers"]) == pytest.approx(0, abs=1e-4)
    evaluations = [row for row in rows if row["event"] == "eval"]
    assert [row["stage"] for row in evaluations] == ["during", "after"]
    for row in evaluations:
        assert row["metrics"]["num_samples"] > 0
        assert 0 <= row["metrics"]["reward"] == row["metrics"]["reward.length"] <= 1
    if family == "llava":
        page = (tmp_path / family / "report.html").read_text()
        for title in ("Rewards", "Divergence from the first weights", "Groups of equal rewards", "Groups of answers"):
            assert title in page, title
        # Marks of templates, and whatever a model writes, are text.
        assert "&lt;think&gt;" in page and "<think>" not in page
        assert page.count(">Advantage<") == 2


def test_stopped_and_started_again_ends_the_same(recipe: Callable[..., Path], tmp_path: Path) -> None:
    task = {"kl": 0.1, "max_replacements": 2, **RARE}
    assert train(recipe("straight", task=task)) == 0
    path = recipe("stopped", task=task)
    stop_before(3, lambda: run_recipe(path))
    assert train(path) == 0
    names = ("step", "loss", "reward", "kl", "entropy", "answer_tokens", "dead_groups", "replaced_groups", "grad_norm")
    straight = steps(tmp_path / "straight", *names)
    assert steps(tmp_path / "stopped", *names) == straight and len(straight) == 4
    assert sum(row[names.index("replaced_groups")] for row in straight) > 0
    last, other = (list_checkpoints(tmp_path / name / "checkpoints")[-1] for name in ("straight", "stopped"))
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert (last / file).read_bytes() == (other / file).read_bytes(), file
    answers = [
        [r for r in read_log(tmp_path / n / "log.jsonl") if r["event"] == "answers"] for n in ("straight", "stopped")
    ]
    assert answers[0] == answers[1] and len(answers[0]) == 2


def test_images_of_dead_groups_are_dropped(recipe: Callable[..., Path], tmp_path: Path) -> None:
    rules = {"at_most": 0, "visits": 1, "max_share": 0.9}
    ratios = {"train_dataset_ratios": {"emoset_sketch": 1}, "epoch_size": 6, "max_epoch": 2}
    assert train(recipe("dropped", task=RARE, drop_samples=rules, **ratios)) == 0
    # Two steps of three images are an epoch, and no image comes twice in it.
    num_dead = sum(
        round(share * groups) for share, groups in steps(tmp_path / "dropped", "dead_groups", "num_groups")[:2]
    )
    rows = [json.loads(line) for line in (tmp_path / "dropped" / "dropped.jsonl").read_text().splitlines()]
    assert len(rows) == len({row["id"] for row in rows}) == num_dead > 0
    assert all(row["reason"] == "equal_rewards" and row["highest"] == [0.0] for row in rows)
    (event,) = [row for row in read_log(tmp_path / "dropped" / "log.jsonl") if row["event"] == "dropped"]
    assert event["num_new"] == num_dead and event["num_measured"] == 6


def killed_in_step_3(path: Path) -> int:
    real, done = EmotionGrpoTask.prepare_step, list[int]()

    def ends(self: EmotionGrpoTask, *arguments: Any) -> Any:
        done.append(1)
        if len(done) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, *arguments)

    EmotionGrpoTask.prepare_step = ends  # type: ignore[method-assign]  # in this process alone
    return train(path)


def test_two_processes_and_every_engine_train_alike(
    recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every step one of the processes has an image less."""
    pytest.importorskip("deepspeed")
    import lavis_emovit.tasks.grpo_trainer  # noqa: F401  loads TRL before the processes are forked

    load_deepspeed()
    zero3 = {"engine": "deepspeed", "deepspeed_config": "projects/emovit/deepspeed/zero3.json"}
    asked = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}
    found = {}
    for name, changes, variables in (("torch", {}, {}), ("zero2", {}, asked), ("zero3", zero3, {})):
        task = {} if name == "zero3" else {"max_replacements": 1}
        path = recipe(name, task=task, **changes)
        with monkeypatch.context() as patched:
            for variable, value in variables.items():
                patched.setenv(variable, value)
            if name != "torch":
                ranks = start_ranks(2, killed_in_step_3, [path], tmp_path / f"{name}_killed")
                assert finish(ranks) == [-9, -9], logs(tmp_path / f"{name}_killed")[-4000:]
            ranks = start_ranks(2, train, [path], tmp_path / f"{name}_logs")
            assert finish(ranks) == [0, 0], logs(tmp_path / f"{name}_logs")[-4000:]
        found[name] = steps(tmp_path / name, "loss", "grad_norm", "reward", "num_answers", "num_tokens")
    assert yaml.safe_load((tmp_path / "zero2" / "config.yaml").read_text())["run"]["engine"] == "deepspeed"
    assert len(found["torch"]) == 4 and all(row[3] >= 12 for row in found["torch"])
    for name in ("zero2", "zero3"):
        for row, expected in zip(found[name], found["torch"], strict=True):
            assert row == pytest.approx(expected, rel=1e-3, abs=1e-5), name
    path = recipe("refused", task={"kl": 0.1, "max_replacements": 1}, **zero3)
    assert finish(start_ranks(2, train, [path], tmp_path / "refused_logs")) == [2, 2]
    assert "run.task: kl, max_replacements cannot be used with ZeRO stage 3" in logs(tmp_path / "refused_logs")


def test_a_judge_that_is_down_leaves_a_run_to_resume(
    recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lavis_emovit.tasks import emotion_grpo

    asked: list[int] = []

    def judge(settings: Any, ledger: Path) -> Callable[..., list[str]]:
        assert ledger == Path("judged", "judge-0.ledger") and settings.model == "big"

        def ask(questions: Any) -> list[str]:
            asked.append(len(questions))
            if len(asked) == 3:
                raise UserError("the judge big did not answer 1 of 12 questions")
            return ["4"] * len(questions)

        return ask

    known_rewards()
    monkeypatch.setattr(reward_registry, "_REWARDS", dict(reward_registry._REWARDS))
    register_reward(
        Reward(
            "judged", lambda answer, record, settings, reply: int(reply) / 5, needs=frozenset({"judge"}),
            question=lambda answer, record, settings: Question(answer, record, with_image=False),
        )
    )  # fmt: skip
    monkeypatch.setattr(emotion_grpo, "chat_judge", judge)
    path = recipe("judged", task={"rewards": {"judged": {}}, "judge": {"model": "big"}}, save_every_steps=None)
    with pytest.raises(StepRefusedError, match=r"step 3: the judge big.*\n.*ckpt-00000002; start it again to resume"):
        run_recipe(path)
    run_recipe(path)
    assert [row[0] for row in steps(tmp_path / "judged", "step")] == [1, 2, 3, 4] and asked == [12] * 5


def test_two_stages_of_one_recipe(recipe: Callable[..., Path], tmp_path: Path) -> None:
    """The second run starts, and measures its divergence, from the best weights of the first; both resume."""
    path = recipe("second", task={"kl": 0.1}, max_steps=2, test_splits=["test"], evaluate_before=True)
    values = yaml.safe_load(path.read_text())
    first = {"max_steps": 3, "valid_splits": ["val"], "eval_every_steps": 1, "global_batch_size": 5}
    path.write_text(yaml.safe_dump({**values, "first_run": {"run": first}}))
    stop_before(5, lambda: run_recipe(path))
    assert len(steps(tmp_path / "second-first", "step")) == 3 and len(steps(tmp_path / "second", "step")) == 1
    run_recipe(path)
    rows = read_log(tmp_path / "second" / "log.jsonl")
    assert [row["step"] for row in rows if row["event"] == "step"] == [1, 2]
    config = yaml.safe_load((tmp_path / "second" / "config.yaml").read_text())
    metrics = json.loads((tmp_path / "second-first" / "metrics.json").read_text())
    assert config["model"]["load_finetuned"] is True and "first_run" not in config
    assert Path(config["model"]["finetuned"]).name == f"ckpt-{metrics['best']['step']:08d}"
    assert "kl" in rows[-2] and "num_answers" not in read_log(tmp_path / "second-first" / "log.jsonl")[0]

    before = [row["kl"] for row in rows if row["event"] == "step"]
    assert before[0] == 0.0, "the first answers are those of the starting weights"
    values["first_run"] = {"run": {"max_step": 3}, "mode": 1}
    values["run"]["init_rl"] = 1
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError) as refused:
        run_recipe(path)
    text = str(refused.value)
    assert "first_run: run.max_step: unknown key (did you mean 'max_steps'?)" in text
    assert "first_run: mode: unknown key" in text and "- run.init_rl: unknown key" in text


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"rewards": {}}, r"run\.task: rewards: names no reward"),
        ({"rewards": {"lenght": {}}}, r"rewards\.lenght: unknown reward \(did you mean 'length'\?\)"),
        ({"preset": "emo_r4"}, r"unknown preset of rewards 'emo_r4' \(did you mean 'emo_r3'\?\)"),
        ({"template": "think"}, r"run\.task\.template: unknown answer template 'think'"),
        ({"num_generation": 4}, r"run\.task\.num_generation: unknown key \(did you mean 'num_generations'\?\)"),
        ({"preset": "grpo_plain", "leave_out": ["label"]}, r"label: no reward of the preset"),
    ],
)
def test_wrong_settings_are_refused_by_name(task: dict[str, Any], message: str, recipe: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError) as refused:
        run_recipe(recipe("wrong", task=task))
    assert re.search(message, str(refused.value)), refused.value
