"""Reinforcement learning by group relative policy optimization: answers are sampled, rewarded and compared in groups.

In a step, every question of the global batch gets a group of answers. TRL turns their rewards into advantages and the
loss; the engine does the rest, as in instruction tuning. Dropout is off, so the answers come from the distribution
that is trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import torch
from lavis.common.registry import registry

from lavis_emovit.datasets.eval_dataset import EvaluatedSamples
from lavis_emovit.distributed import processes
from lavis_emovit.emotion.labels import get_label_set, subject_of
from lavis_emovit.emotion.questions import templated_wording
from lavis_emovit.emotion.templates import get_template
from lavis_emovit.errors import ConfigError, UserError
from lavis_emovit.evaluation.benchmarks import RunBenchmarkSettings, record_subject
from lavis_emovit.evaluation.metrics.registry import MeasuredRows
from lavis_emovit.evaluation.prompt_settings import PromptSettings
from lavis_emovit.models.protocol import Batch, EmotionModel
from lavis_emovit.models.trained_parts import values_in_place
from lavis_emovit.records import EmotionRecord
from lavis_emovit.rewards import Asked, Question, RewardSum, get_reward
from lavis_emovit.rewards.judge import chat_judge
from lavis_emovit.shards.reader import SampleFaultError
from lavis_emovit.tasks.base import EmotionTask, PairValues, StepLoss, StepRefusedError
from lavis_emovit.tasks.grpo_rollouts import Rollouts, blank_rollouts, sample_groups
from lavis_emovit.tasks.settings import EmotionGrpoSettings

# Of the replies of the model to questions of rewards, which are one word.
_REPLY_TOKENS = 16
# What the log counts, and what it has a mean of: over answers and over tokens.
_COUNTS = ("num_answers", "num_groups", "replaced_groups", "num_tokens")
_OF_ANSWERS = ("answer_tokens", "cut_answers")
_OF_TOKENS = ("entropy", "kl")


@registry.register_task("emotion_grpo")
class EmotionGrpoTask(EmotionTask):
    """Trains on rewards of sampled answers; evaluates the question that it trains on by written answers.

    Args:
        ledger: file of the replies of the judge.
    """

    settings_class = EmotionGrpoSettings
    settings: EmotionGrpoSettings
    prepares_steps = True
    needs_records = True
    learns_answers = False
    pair_value = "reward_deviation"

    def __init__(self, settings: EmotionGrpoSettings | None = None, ledger: Path | None = None):
        super().__init__(settings)
        judge = self.settings.judge
        ask_judge = chat_judge(judge, ledger) if judge is not None and ledger is not None else None
        rewards, _ = self.settings.reward_settings()
        self.rewards = RewardSum(rewards, Asked(model=self._ask_model, judge=ask_judge))
        self.template = get_template(self.settings.template)
        self.measure_names = (
            *_COUNTS, "dead_groups", "reward", *(f"reward.{name}" for name in rewards), *_OF_ANSWERS, *_OF_TOKENS,
        )  # fmt: skip
        self._shown: dict[str, Any] | None = None
        self._evaluated: dict[tuple[str, str], EvaluatedSamples] = {}

    @classmethod
    def setup_task(cls, cfg: Any = None, **kwargs: Any) -> EmotionGrpoTask:
        task = super().setup_task(cfg, **kwargs)
        ledger = Path(cfg.run_cfg["output_dir"], f"judge-{processes.rank()}.ledger")
        return cls(task.settings, ledger)  # type: ignore[arg-type]

    # Before training

    def begin(self, model: EmotionModel, dataset: Any) -> None:
        from lavis_emovit.tasks.grpo_trainer import EmotionGrpoTrainer  # loads TRL, which takes seconds

        self._check(model)
        processes.on_main(lambda: self.rewards.check(_records_of(dataset)))
        own = model.trained_state_dict() if self.settings.kl else {}
        start = {name: tensor.clone() for name, tensor in own.items()}
        self._model: Any = model
        self._dataset = dataset
        self._trainer = EmotionGrpoTrainer(model, self.settings, self.rewards, lambda: values_in_place(own, start))

    def end(self) -> None:
        self._trainer.end()

    def _check(self, model: Any) -> None:
        if not hasattr(model, "sample_answers"):
            raise ConfigError(["run.task: this model has no `sample_answers`, so emotion_grpo cannot train it"])
        if all(tensor.numel() for tensor in model.trained_state_dict().values()):
            return
        # Spread over the processes, which an empty tensor stands for.
        asks = [name for name in self.rewards.settings if "model" in get_reward(name).needs]
        wanted = {"kl": self.settings.kl, "max_replacements": self.settings.max_replacements}
        wanted |= {"vllm": int(self.settings.vllm is not None)} | dict.fromkeys(asks, 1)
        if problems := [name for name, value in wanted.items() if value]:
            raise ConfigError([
                f"run.task: {', '.join(problems)} cannot be used with ZeRO stage 3, where no process has all weights; "
                "use projects/emovit/deepspeed/zero2.json"
            ])  # fmt: skip

    # A step

    def prepare_step(self, model: EmotionModel, micro_batches: Sequence[Batch]) -> Sequence[Batch]:
        """Sample and reward answers. StepRefusedError, on all processes, if rewards cannot be computed on one."""
        model.train(False)  # type: ignore[call-arg]
        self._shown = None
        prepared: list[Batch] = []
        problem = None
        try:
            self._trainer.begin_step()
            prepared = [self._with_rollouts(batch) for batch in micro_batches]
        except (UserError, OSError) as error:
            problem = str(error)
        problems = [one for one in processes.gather_objects(problem) if one is not None]
        if problems:
            raise StepRefusedError(problems[0])
        return prepared

    def _with_rollouts(self, batch: Batch) -> Batch:
        if not batch.get("record_id", True):
            if self._model.in_step:
                self._trainer.sample_blank(self._model.blank_batch())
            return batch
        rounds = self.settings.max_replacements
        asked = self._asked(batch)
        groups = list(sample_groups(self._trainer.sample, asked, rounds, self._draw))
        if self._shown is None:
            self._shown = self._group_row(groups[0][0])
        measures = dict.fromkeys(self.measure_names, 0.0)
        for sampled, learned in groups:
            measures["num_answers"] += len(sampled.texts)
            measures["num_groups"] += len(sampled.groups)
            measures["dead_groups"] += len(sampled.dead())
            measures["replaced_groups"] += len(sampled.groups) - (len(learned.groups) if learned is not None else 0)
            measures["answer_tokens"] += sampled.num_sampled_tokens
            measures["cut_answers"] += sampled.num_cut
            for score in sampled.scores:
                measures["reward"] += score.total
                for name, value in score.parts.items():
                    measures[f"reward.{name}"] += value
        learned_groups = [learned for _, learned in groups if learned is not None]
        prepared = {**batch, "rollouts": learned_groups, "measures": measures}
        if not self.needs_pair_values:
            return prepared
        own = groups[0][0]  # those of later rounds are of other images
        deviations = [pstdev(score.total for score in own.scores_of(group)) for group in own.groups]
        for place in own.dead():
            deviations[place] = 0.0  # equal but for the rounding of a sum
        images = batch["number"], batch["record_id"], asked["image_index"]
        return {**prepared, "pair_values": PairValues(*images, torch.tensor(deviations))}

    def step_weight(self, model: EmotionModel, batch: Batch) -> int:
        return sum(self._weight(rollouts) for rollouts in batch["rollouts"])

    def _weight(self, rollouts: Rollouts) -> int:
        """What the mean of TRL's loss is over."""
        # All answers may be cut and masked; such a step changes nothing.
        return max(1, rollouts.num_tokens) if self.settings.loss in ("dapo", "bnpo") else rollouts.num_answers

    def step_loss(self, model: EmotionModel, batch: Batch) -> StepLoss:
        """TRL's loss, multiplied by what it is a mean over, so that a step has the same loss however it is cut."""
        loss_sum: Any = 0.0
        measures = dict(batch["measures"])
        for rollouts in batch["rollouts"]:
            loss, found = self._trainer.loss(rollouts)
            loss_sum = loss_sum + loss * self._weight(rollouts)
            measures["num_tokens"] += rollouts.num_tokens
            for name in _OF_TOKENS:
                measures[name] += found.get(name, 0.0) * rollouts.num_tokens
        values = batch.get("pair_values")
        return StepLoss(loss_sum, self.step_weight(model, batch), measures=measures, pair_values=values)

    def blank_batch(self, model: EmotionModel) -> Batch:
        batch = model.blank_batch()
        blank = blank_rollouts(batch, self._trainer.eos_token_ids[0], model.device)
        return {**batch, "rollouts": [blank], "measures": dict.fromkeys(self.measure_names, 0.0)}

    # Questions

    def _asked(self, batch: Batch) -> Batch:
        """The batch with the questions that answers are sampled for."""
        if self.settings.question == "instruction":
            instruction = self.template.instruction()
            questions = [f"{text}\n{instruction}" if instruction else text for text in batch["text_input"]]
            return {**batch, "text_input": questions}
        questions = [self._question_of(record) for record in batch["records"]]
        return {**batch, "text_input": questions, "image_index": torch.arange(len(questions))}

    def _question_of(self, record: EmotionRecord) -> str:
        labels = get_label_set(record.label_set or "").labels
        text = templated_wording(self.template, self.settings.wording, record_subject(record, None))
        return text.replace("{options}", ", ".join(labels))

    def _draw(self, count: int) -> Batch:
        """Other images, chosen by the random numbers of this step and process."""
        kept = getattr(self._dataset, "kept", None)  # datasets of other packages may not have it
        numbers = torch.randint(self._dataset.num_samples if kept is None else len(kept), (count,)).tolist()
        numbers = numbers if kept is None else kept[numbers].tolist()
        items = [self._dataset[0, number] for number in numbers]
        for item in items:
            if "fault" in item:
                self._dataset.fault_log.add(item["fault"])
        batch = self._dataset.collater([{**item, "pairs": item["pairs"][:1]} for item in items])
        return self._asked({**batch, "image": batch["image"].to(self._model.device)})

    def _ask_model(self, questions: Sequence[Question]) -> list[str]:
        """The model's own replies, for rewards that ask it; without the image it sees one without content."""
        batch, replies = self._trainer.batch, [""] * len(questions)
        images = {record.id: number for number, record in enumerate(batch["records"])}
        for with_image in (True, False):
            chosen = [number for number, question in enumerate(questions) if question.with_image == with_image]
            if not chosen:
                continue
            samples = {
                "image": batch["image"] if with_image else self._model._blank_images(batch),
                "image_index": torch.tensor([images[questions[one].record.id] * with_image for one in chosen]),
                "prompt": [questions[one].text for one in chosen],
            }
            written = self._model.generate(
                samples, use_nucleus_sampling=False, num_beams=1, num_captions=1, min_length=1, max_length=_REPLY_TOKENS
            )
            for number, text in zip(chosen, written):
                replies[number] = text
        return replies

    # The log

    def step_columns(self, measures: Mapping[str, float]) -> dict[str, float]:
        """Means over answers and tokens, the share of dead groups, and counts."""
        columns = {name: int(measures[name]) for name in _COUNTS}
        answers, tokens = measures["num_answers"] or 1, measures["num_tokens"] or 1
        means = {name: measures[name] / answers for name in measures if name.startswith("reward")}
        means |= {name: measures[name] / answers for name in _OF_ANSWERS}
        means |= {name: measures[name] / tokens for name in _OF_TOKENS if name != "kl" or self.settings.kl}
        return {**columns, **means, "dead_groups": measures["dead_groups"] / (measures["num_groups"] or 1)}

    def log_rows(self, step: int) -> list[dict[str, Any]]:
        if self._shown is None or (step - 1) % self.settings.log_answers_steps:
            return []
        return [{"event": "answers", **self._shown}]

    def _group_row(self, rollouts: Rollouts) -> dict[str, Any]:
        """The first group of a step for the log."""
        batch, size = rollouts.batch, rollouts.size
        record = batch["records"][int(batch["image_index"][0])]
        advantages = rollouts.tensors["advantages"][:size].tolist()
        return {
            "record_id": record.id,
            "question": batch["text_input"][0],
            "label": record.emotion or ", ".join(record.labels or ()) or None,
            "answers": [
                {"text": text, "reward": score.total, "rewards": dict(score.parts), "advantage": advantage}
                for text, score, advantage in zip(rollouts.texts, rollouts.scores[:size], advantages)
            ],
        }

    # Evaluation

    def benchmark(self, dataset: str, split: str, samples: EvaluatedSamples) -> RunBenchmarkSettings:
        """The question that is trained on, or for `question: instruction` that for the emotion, answered in writing."""
        self._evaluated[dataset, split] = samples
        shared: dict[str, Any] = {
            "dataset": dataset,
            "split": split,
            "method": "generation",
            "max_new_tokens": self.settings.max_answer_tokens,
        }
        if not self.template.instruction():
            return RunBenchmarkSettings(**shared, wordings=(self.settings.wording,))
        text = templated_wording(self.template, self.settings.wording, subject_of(samples.label_set.name))
        return RunBenchmarkSettings(
            **shared, prompt=PromptSettings(text=text, name=self.template.name, reading="result")
        )

    def metrics(self, measured: MeasuredRows) -> dict[str, Any]:
        """Those of every task; for named splits also the mean rewards of the answers, but for rewards that ask."""
        found = super().metrics(measured)
        samples = self._evaluated.get((measured.settings.dataset, measured.settings.split))
        answers = {row.record_id: row.answer for row in measured.rows if row.answer is not None}
        quiet = {name: one for name, one in self.rewards.settings.items() if get_reward(name).question is None}
        if samples is None or not answers or not quiet:
            return found
        records = [record for record in _records_of(samples) if record.id in answers]
        scores = RewardSum(quiet).score([answers[record.id] for record in records], records)
        means = {f"reward.{name}": fmean(score.parts[name] for score in scores) for name in quiet}
        return {**found, "reward": fmean(score.total for score in scores), **means}


def _records_of(dataset: Any) -> Iterator[EmotionRecord]:
    """The training records; faulty ones are left out, because training reports them itself."""
    for part in getattr(dataset, "datasets", [dataset]):
        for number in range(len(part)):
            with suppress(SampleFaultError):
                yield part.reader.read_record(int(part.samples[number]))
