"""The interface of every emotion model: all that tasks, runner and evaluation use.

Legend: `B` images, `N` image-question pairs, `C` candidates.

A *batch* is a mapping with `image` (B images as the model's processor stacks them), `image_index` long [N] (the image
of each pair), `text_input` or `prompt` (N questions) and, for training, `text_output` (N answers). Model families
implement `EmotionModel` by inheriting from `lavis_emovit.models.base`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import nn

from lavis_emovit.models.lengths import PassSizes
from lavis_emovit.models.step_memory import StepLoad, StepMemory
from lavis_emovit.settings import Settings

Batch = Mapping[str, Any]
Normalization = Literal["sum", "mean", "calibrated"]


@dataclass(frozen=True)
class AnswerLoss:
    """The loss of a batch as a sum and its weight, so that batches join without a mean of means.

    Attributes:
        loss_sum: scalar tensor, cross-entropy summed over the answers' tokens (natural log).
        num_tokens: answer tokens.
        noted: name of a count -> numbers of the pairs that it counts, for example `num_truncated_answers`.
        sizes: what the forward pass ran over, or None if the model does not measure it.
        pair_losses: mean cross-entropy of the answer of each pair, float32 [N], without gradients; None if it was not
            asked for, or if no answer was read.
    """

    loss_sum: torch.Tensor
    num_tokens: int
    noted: Mapping[str, Sequence[int]] = field(default_factory=dict)
    sizes: PassSizes | None = None
    pair_losses: torch.Tensor | None = None


class StepFlops(Protocol):
    """Floating-point operations of a training step."""

    def total(self, sizes: PassSizes) -> float:
        """Operations of a step that ran over `sizes`."""
        ...


class ImageEncoder(Protocol):
    """What reads images in a model, by itself: an `EmotionModel` that can, or a part of one."""

    def encode_images(self, image: torch.Tensor) -> torch.Tensor:
        """Features of normalised images [B, 3, H, W]: float [B, P, D]."""
        ...

    def pool(self, embeds: torch.Tensor) -> torch.Tensor:
        """A vector for each image, from what `encode_images` returned for images: float [B, D of the vector]."""
        ...

    def processors(self) -> tuple[Any, Any]: ...

    def identity(self) -> dict[str, Any]:
        """What determines the features."""
        ...

    def to(self, device: Any) -> Any: ...


@runtime_checkable
class EmotionModel(Protocol):
    """An emotion model; an `nn.Module` that LAVIS's registry builds with `from_config`.

    Attributes:
        settings: the parsed `model:` node of the recipe.
        settings_class: the type of `settings`, which recipes are checked against before any weight is loaded.
        PART_NAMES: names of the parts that `model.trained_parts` and `compile_targets` accept.
        device: where the weights are.
        training: whether the trained parts are in train mode.
    """

    settings_class: ClassVar[type[Settings]]
    PART_NAMES: ClassVar[tuple[str, ...]]
    training: bool

    @property
    def settings(self) -> Settings: ...

    @property
    def device(self) -> torch.device: ...

    # Training

    def answer_loss(self, batch: Batch, by_pair: bool = False) -> AnswerLoss:
        """The loss of the answers of a batch, with `pair_losses` if `by_pair`."""
        ...

    def num_answer_tokens(self, batch: Batch) -> int:
        """`AnswerLoss.num_tokens` of a batch, without a forward pass."""
        ...

    def answer_log_probs(self, batch: Batch) -> torch.Tensor:
        """Summed log-probability of each pair's own answer with its end token, float32 [N], with gradients."""
        ...

    def blank_batch(self) -> dict[str, Any]:
        """A batch of one blank image with a question and an answer, for a process without samples."""
        ...

    def call_in_step(self, enabled: bool) -> None:
        """Call every module equally often on all processes, because each call gathers weights from all of them."""
        ...

    # Answers

    def score_candidates(
        self, batch: Batch, candidates: Sequence[str], answer_prefix: str = "", normalize: Normalization = "sum"
    ) -> torch.Tensor:
        """Log-likelihood of every candidate answer, float32 [N, C]."""
        ...

    def candidate_lengths(self, candidates: Sequence[str], answer_prefix: str = "") -> torch.Tensor:
        """Scored tokens of each candidate, float32 [C]: `sum` scores divided by them are `mean` scores."""
        ...

    def generate(self, batch: Batch, **settings: Any) -> list[str]:
        """Written answers, one for each pair."""
        ...

    def generate_stream(self, batch: Batch, **settings: Any) -> Iterator[str]:
        """The written answer to one question in pieces, without beam search."""
        ...

    def query_attention(self, batch: Batch) -> torch.Tensor | None:
        """How much the query tokens attend to each patch of one image, with one question: float32 [rows, columns].

        The sum is at most 1. None: the model has no Q-Former.
        """
        ...

    # Weights

    @classmethod
    def check_weights(cls, settings: Any) -> str | None:
        """Look for the weights before anything expensive is done.

        Returns:
            a sentence on what will be downloaded, or None if everything is on this machine.

        Raises:
            WeightsError: the weights are not on this machine and cannot be downloaded.
        """
        ...

    @classmethod
    def image_encoder(cls, cfg: Mapping[str, Any]) -> ImageEncoder | None:
        """The frozen image encoder of the model that `from_config` builds, if possible without loading the rest.

        None if the model encodes no images by themselves.
        """
        ...

    @classmethod
    def step_memory(cls, settings: Any, load: StepLoad, amp: str) -> StepMemory | None:
        """Bytes of the weights and of a training step, without any weight; None if the model cannot count them.

        Args:
            settings: the parsed `model:` node.
            load: what a micro-batch consists of.
            amp: as in `run.amp`.

        Raises:
            ConfigError: the sizes of the model are unknown.
        """
        ...

    def trained_parameter_names(self) -> list[str]:
        """Names of the trained tensors, in the order of the module."""
        ...

    def trained_parameter_parts(self) -> list[str]:
        """The part of each of `trained_parameter_names`, as recipes name it."""
        ...

    def rest(self, parts: Collection[str]) -> None:
        """Let these trained parts compute as frozen ones do, without gradients and dropout, until the next call."""
        ...

    def trained_state_dict(self) -> dict[str, torch.Tensor]:
        """The trained tensors by name: all that a checkpoint of the model needs."""
        ...

    def load_trained_state_dict(self, state: Mapping[str, torch.Tensor], source: str = ...) -> None:
        """Load what `trained_state_dict` returned; names and shapes must match."""
        ...

    def frozen_fingerprint(self) -> str:
        """Identifies the frozen weights; trained tensors only work with those that they were trained with."""
        ...

    def parameter_counts(self) -> dict[str, int]:
        """Numbers of parameters, `trained` and `total`."""
        ...

    def dead_parameters(self) -> list[str]:
        """Names of trained tensors whose gradient is zero for any data."""
        ...

    # Description

    def identity(self) -> dict[str, Any]:
        """What determines the answers besides the trained tensors: architecture, frozen weights, settings."""
        ...

    def processors(self) -> tuple[Any, Any]:
        """The image processor of evaluation and the text processor that the model expects."""
        ...

    def compile_targets(self, part: str) -> list[tuple[str, nn.Module]]:
        """Names and modules that `torch.compile` translates for a part; empty if the part cannot be compiled."""
        ...

    def step_flops(self) -> StepFlops | None:
        """Operations of a training step, or None if the model does not count them."""
        ...

    # The parts of `nn.Module` that runner and evaluation use

    def train(self, mode: bool = True) -> Any: ...

    def eval(self) -> Any: ...

    def to(self, device: Any) -> Any: ...

    @property
    def named_parameters(self) -> Callable[..., Any]: ...

    @property
    def parameters(self) -> Callable[..., Any]: ...
