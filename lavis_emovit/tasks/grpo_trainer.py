"""TRL's GRPOTrainer over an emotion model: what TRL asks of its model, and what it is told about answers.

TRL computes advantages and loss. Sampling and log-probabilities are the model's own, so an image is encoded once for a
group. Optimizer, processes and checkpoints are those of the runner: TRL never trains by itself and knows one process
only, which is right because a group is never spread over processes.

Legend: `N` questions of a micro-batch, `G` answers to each, `M = N * G`, `T` tokens of the longest answer.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from torch.nn import functional as F
from transformers import GenerationConfig, PretrainedConfig
from transformers.utils import logging
from trl import GRPOConfig, GRPOTrainer

from lavis_emovit.distributed.environment import environment
from lavis_emovit.models.protocol import Batch
from lavis_emovit.rewards import RewardSum
from lavis_emovit.tasks.grpo_rollouts import Rollouts
from lavis_emovit.tasks.settings import EmotionGrpoSettings
from lavis_emovit.tasks.vllm_sampler import VllmSampler

# From which accelerate, which TRL is built on, sees that a launcher started several processes. Its own launcher's
# variables would also let it set up DeepSpeed for TRL.
_RANK_VARIABLES = ("LOCAL_RANK", "WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
# Stands for the model before training, where TRL expects another model.
_REFERENCE: Any = object()


class EmotionGrpoTrainer(GRPOTrainer):
    """GRPO of a micro-batch.

    Args:
        model: an `EmotionModel` that samples answers.
        at_start: a context in which the trained weights are those before training; only used with `kl`.

    Attributes:
        batch: what TRL works on.
    """

    def __init__(
        self,
        model: Any,
        settings: EmotionGrpoSettings,
        rewards: RewardSum,
        at_start: Callable[[], AbstractContextManager[None]],
    ):
        self._policy, self._settings, self._rewards, self._at_start = model, settings, rewards, at_start
        self._sampler = VllmSampler(model, settings.vllm) if settings.vllm is not None else None
        self._size, self._ids = settings.num_generations, list[list[int]]()
        self.batch: Batch = {}
        names, stand = list(rewards.settings), _Stand()
        with _alone():
            super().__init__(
                model=stand,  # type: ignore[arg-type]
                args=_arguments(settings, [rewards.settings[name].weight for name in names]),
                reward_funcs=[_named(name) for name in names],
                train_dataset=Dataset.from_dict({"prompt": [""]}),
                processing_class=model.llm_tokenizer,
            )
        self.eos_token_ids = model._end_ids()
        self.current_gradient_accumulation_steps = 1
        if settings.kl:
            # Only now: TRL would load a second model from the Hub.
            self.beta, self.ref_model = settings.kl, _REFERENCE

    def begin_step(self) -> None:
        """Called before the answers of a step are sampled."""
        if self._sampler is not None:
            self._sampler.refresh()

    def end(self) -> None:
        """Free what sampling needed."""
        if self._sampler is not None:
            self._sampler.close()

    def sample(self, batch: Batch) -> Rollouts:
        """A group of answers to each question of a batch, with rewards and advantages."""
        self.batch = batch
        questions, index = batch["text_input"], batch["image_index"].tolist()
        numbers = [number for number in range(len(questions)) for _ in range(self._size)]
        inputs = [{"prompt": questions[number], "record": batch["records"][index[number]]} for number in numbers]
        made = self._generate_and_score_completions(inputs)
        del made["num_items_in_batch"]
        tensors = {name: tensor.to(self._policy.device) for name, tensor in made.items()}
        ends = set(self.eos_token_ids)
        return Rollouts(
            batch,
            tensors,
            range(len(questions)),
            self._texts,
            self._scores,
            num_cut=sum(row[-1] not in ends for row in self._ids),
            num_sampled_tokens=sum(map(len, self._ids)),
        )

    def sample_blank(self, batch: Batch) -> None:
        """Take part in the sampling of other processes."""
        self.batch = batch
        self._generate_single_turn([], None, {}, self._size)

    def loss(self, rollouts: Rollouts) -> tuple[torch.Tensor, dict[str, float]]:
        """TRL's loss of sampled answers, a mean over answers or tokens, and what it measured."""
        self.batch = rollouts.batch
        self._metrics["train"].clear()
        # The normalizer of TRL's `dapo`; the engine divides by the tokens of the whole step.
        num_tokens = rollouts.tensors["completion_mask"].sum()
        loss = self._compute_loss(self._policy, {**rollouts.tensors, "num_items_in_batch": num_tokens})
        return loss, {name: values[-1] for name, values in self._metrics["train"].items()}

    # What TRL asks

    def _send_telemetry(self) -> None:
        pass

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        # The number of the question stands for its tokens, which only the model knows.
        return [[number // self._size] for number in range(len(prompts))], None, {}

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], images: Any, fields: Any, num_generations: int, *_: Any
    ) -> tuple[list[list[int]], None]:
        settings = self._settings
        sample = self._policy.sample_answers if self._sampler is None else self._sampler.sample
        self._ids = sample(
            self.batch,
            num_generations,
            max_new_tokens=settings.max_answer_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
        )
        return self._ids, None

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: list[str], completions: list[str], ids: list[list[int]]
    ) -> torch.Tensor:
        self._texts = [text.strip() for text in completions]
        self._scores = self._rewards.score(self._texts, [one["record"] for one in inputs])
        parts = [[score.parts[name] for name in self.reward_func_names] for score in self._scores]
        return torch.tensor(parts, dtype=torch.float32, device=self.accelerator.device)

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        if model is _REFERENCE:
            with self._at_start():
                return self._log_probs(input_ids, attention_mask)
        return self._log_probs(input_ids, attention_mask)

    def _log_probs(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        questions, ids_MT = input_ids[:, 0].tolist(), input_ids[:, 1:]
        lengths = attention_mask[:, 1:].sum(dim=1).tolist()
        # An answer that TRL masks, because it was cut, still needs a row.
        answers = [row[: max(1, length)] for row, length in zip(ids_MT.tolist(), lengths)]
        found = self._policy.written_log_probs(self.batch, answers, questions, self._settings.temperature)
        missing = (0, ids_MT.shape[1] - found[0].shape[1])
        log_probs, entropies = (F.pad(values, missing).to(input_ids.device) for values in found)
        return log_probs, entropies, None


class _Stand(nn.Module):
    """What TRL reads of a model. The model itself stays with the engine."""

    is_gradient_checkpointing = False

    def __init__(self) -> None:
        super().__init__()
        self.config, self.generation_config = PretrainedConfig(), GenerationConfig()

    def add_model_tags(self, tags: Sequence[str]) -> None:
        """TRL's name on a model card; there is none."""


def _arguments(settings: EmotionGrpoSettings, weights: list[float]) -> GRPOConfig:
    return GRPOConfig(
        output_dir=tempfile.gettempdir(),  # nothing is written
        per_device_train_batch_size=settings.num_generations,
        num_generations=settings.num_generations,
        max_completion_length=settings.max_answer_tokens,
        temperature=settings.temperature,
        reward_weights=weights,
        scale_rewards="group" if settings.scale_rewards else "none",
        loss_type=settings.loss,
        mask_truncated_completions=settings.mask_cut_answers,
        beta=0.0,
        use_cpu=True,  # so that it leaves the devices alone; tensors go where the model is
        bf16=False,
        gradient_checkpointing=False,
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
    )


def _named(name: str) -> Callable[..., Any]:
    """A function whose name TRL reads; `_calculate_rewards` computes all rewards at once."""

    def reward(*_: Any, **__: Any) -> Any:
        raise AssertionError("TRL is given all rewards by _calculate_rewards")

    reward.__name__ = name
    return reward


@contextmanager
def _alone() -> Iterator[None]:
    """Inside the block, accelerate does not see the launch of several processes, nobody warns of that, and random
    numbers are as before afterwards."""
    names = (*_RANK_VARIABLES, *(name for name in os.environ if name.startswith("ACCELERATE_")))
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    with environment(dict.fromkeys(names)), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
