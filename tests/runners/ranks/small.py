"""A model, a task and data for jobs of several ranks: quick to train, with all that makes sharding hard.

A parameter that is used outside the module that owns it, modules that are called twice, frozen weights between learning
ones, sizes that no number of ranks divides, questions and pictures of different numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lavis_emovit.datasets.batching import GlobalBatchSampler
from lavis_emovit.datasets.collate import collate
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.shards.order import EpochOrder
from lavis_emovit.tasks.base import EmotionTask, StepLoss
from lavis_emovit.tasks.settings import TaskSettings

NUM_SAMPLES = 22
GLOBAL_BATCH = 7  # three full steps an epoch and one with a single sample, which leaves ranks without any
WIDTH = 9


class SmallModel(nn.Module):
    """A frozen encoder, queries, a block that learns, a frozen head behind it; the loss counts tokens."""

    in_step = False

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(11)
            self.encoder = nn.Sequential(nn.Linear(6, WIDTH), nn.Tanh()).requires_grad_(False)
            self.queries = nn.Parameter(torch.randn(3, WIDTH))
            self.norm = nn.LayerNorm(WIDTH)
            self.block = nn.Sequential(nn.Linear(WIDTH, 13), nn.GELU(), nn.Linear(13, WIDTH))
            self.head = nn.Linear(WIDTH, 5).requires_grad_(False)

    def logits(self, image: torch.Tensor) -> torch.Tensor:
        encoded = self.encoder(image.flatten(1)[:, :6])
        read = self.norm(encoded[:, None] + self.queries)
        return self.head(self.block(read) + self.block(read.roll(1, 1))).sum(1)

    def forward(self, samples: Mapping[str, Any]) -> dict[str, Any]:
        logits = self.logits(samples["image"])[samples["image_index"]]
        targets = torch.tensor([len(answer) % 5 for answer in samples["text_output"]], device=logits.device)
        per_pair = nn.functional.cross_entropy(logits, targets, reduction="none")
        weights = torch.tensor([float(len(answer)) for answer in samples["text_output"]], device=logits.device)
        factor = torch.tensor([samples.get("factor", 1.0)], device=logits.device)
        return {"loss_sum": (per_pair * weights).sum() * factor.sum(), "num_tokens": self.num_answer_tokens(samples)}

    def num_answer_tokens(self, samples: Mapping[str, Any]) -> int:
        return sum(len(answer) for answer in samples["text_output"])

    def blank_batch(self) -> dict[str, Any]:
        return {
            "image": torch.zeros(1, 3, 2, 2),
            "image_index": torch.zeros(1, dtype=torch.long),
            "text_output": ["x"],
            "instance_id": ["blank"],
            "record_id": ["blank"],
        }

    def call_in_step(self, enabled: bool) -> None:
        pass

    def trained_parameter_names(self) -> list[str]:
        return [name for name, parameter in self.named_parameters() if parameter.requires_grad]

    def trained_state_dict(self) -> dict[str, torch.Tensor]:
        return {name: value.detach() for name, value in self.named_parameters() if value.requires_grad}

    def load_trained_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        own = dict(self.named_parameters())
        assert set(state) == set(self.trained_parameter_names())
        with torch.no_grad():
            for name, value in state.items():
                assert own[name].shape == value.shape, (name, own[name].shape, value.shape)
                own[name].copy_(value)


class SmallTask(EmotionTask):
    """Counts the letters of the answers, as a measure also by their step's own `prepare_step`."""

    settings_class = TaskSettings
    prepares_steps = True
    measure_names = ("num_letters", "num_prepared")

    def prepare_step(self, model: SmallModel, micro_batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        assert not torch.is_grad_enabled()
        return [{**batch, "is_prepared": True} for batch in micro_batches]

    def step_weight(self, model: SmallModel, batch: Mapping[str, Any]) -> int:
        return model.num_answer_tokens(batch)

    def step_loss(self, model: SmallModel, batch: Mapping[str, Any]) -> StepLoss:
        output = model(batch)
        noted = {"num_long": [name for name, text in zip(batch["instance_id"], batch["text_output"]) if len(text) > 5]}
        measures = {"num_letters": 1.0 * output["num_tokens"], "num_prepared": float(batch.get("is_prepared", False))}
        return StepLoss(output["loss_sum"], output["num_tokens"], noted, measures=measures)


class SmallData:
    """Item (epoch, number) is a pure function of both."""

    def __len__(self) -> int:
        return NUM_SAMPLES

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, number = key
        generator = torch.Generator().manual_seed(100 * epoch + number)
        pairs = [("?", "a" * (1 + (number * 3 + pair) % 7), f"{number}#{pair}", None) for pair in range(1 + number % 2)]
        return {
            "image": torch.randn(3, 2, 2, generator=generator),
            "pairs": pairs,
            "record_id": str(number),
        }


def steps(first: int, last: int, rank: int, world_size: int) -> Iterator[list[dict[str, Any]]]:
    """A rank's micro-batches of each step from `first` up to, not including, `last`."""
    data, per_epoch = SmallData(), -(-NUM_SAMPLES // GLOBAL_BATCH)
    for step in range(first, last):
        order = EpochOrder("0" * 64, 5, step // per_epoch, [NUM_SAMPLES])
        sampler = GlobalBatchSampler(order, GLOBAL_BATCH, rank, world_size, 2, step % per_epoch)
        batches = iter(sampler)
        count = sampler.micro_batches_in_step(step % per_epoch)
        yield [collate([data[key] for key in next(batches)]) for _ in range(count)]


def settings(**changes: Any) -> RunSettings:
    values = {
        "output_dir": "unused",
        "max_epoch": 1,
        "global_batch_size": GLOBAL_BATCH,
        "init_lr": 0.01,
        "weight_decay": 0.1,
        "max_grad_norm": 0.7,
        "device": "cpu",
    }
    return RunSettings(**{**values, **changes})


def learning_rate(step: int) -> float:
    return 0.01 * (1 + step % 3)
