"""What a task is: it owns the training step and decides which benchmarks a run evaluates.

Engines and runner call the methods of `EmotionTask` and nothing else of a task. A new task is a subclass in its own
file, registered in LAVIS under its name; docs/runs.md has an example.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from lavis.common.registry import registry
from lavis.tasks.base_task import BaseTask
from omegaconf import OmegaConf

from lavis_emovit.datasets.eval_dataset import EvaluatedSamples
from lavis_emovit.errors import ConfigError, DataError, UserError
from lavis_emovit.evaluation.benchmarks import RunBenchmarkSettings
from lavis_emovit.evaluation.metrics.registry import MeasuredRows, headline_of
from lavis_emovit.evaluation.summaries import result_of
from lavis_emovit.models.lengths import PassSizes
from lavis_emovit.models.protocol import Batch, EmotionModel
from lavis_emovit.tasks.settings import TaskSettings, parse_task_settings


@dataclass(frozen=True)
class PairValues:
    """A number for each pair of a batch, by which `run.drop_samples` finds images that teach nothing.

    Attributes:
        samples: numbers of the B images in the training data.
        record_ids: of these images.
        image_index: long [N], the image of each pair.
        values: float32 [N], without gradients.
    """

    samples: Sequence[int]
    record_ids: Sequence[str]
    image_index: torch.Tensor
    values: torch.Tensor

    def by_sample(self) -> list[tuple[int, str, float, float]]:
        """Number and record id of each image, the lowest and the highest value of its pairs."""
        of_images: dict[int, list[float]] = {}
        for image, value in zip(self.image_index.tolist(), self.values.tolist()):
            of_images.setdefault(image, []).append(value)
        return [
            (self.samples[image], self.record_ids[image], min(values), max(values))
            for image, values in sorted(of_images.items())
        ]


@dataclass(frozen=True)
class StepLoss:
    """The loss of a batch as a sum and its weight, so that batches join without a mean of means.

    Attributes:
        loss_sum: scalar tensor, summed over what `weight` counts.
        weight: what the summed loss of a step is divided by, such as the answer tokens of the batch.
        noted: name of a count -> instance ids of the pairs that it counts, such as `num_truncated_answers`.
        sizes: what the forward pass ran over, or None if the model does not measure it.
        measures: a number for each of the task's `measure_names`, summed over what `weight` counts; its sum over the
            global batch is logged.
        pair_values: the task's `pair_value` of each pair, if it is needed and was computed.
    """

    loss_sum: torch.Tensor
    weight: int
    noted: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sizes: PassSizes | None = None
    measures: Mapping[str, float] = field(default_factory=dict)
    pair_values: PairValues | None = None


class StepRefusedError(UserError):
    """A step that cannot be prepared, raised on all processes. The run saves the weights before it, and ends."""


class EmotionTask(BaseTask):
    """Base of the tasks that `runner_emovit` runs.

    Attributes:
        prepares_steps: whether `prepare_step` does anything; if not, it is not called.
        needs_records: whether batches have a key `records`, the B records of their images. Without it they travel
            lighter from the processes that read them.
        learns_answers: whether the loss is that of the answers in the data, whose lengths are then checked.
        measure_names: the keys of `StepLoss.measures`, the same on all processes.
        pair_value: what `StepLoss.pair_values` has; None: the task has no values of single pairs.
        needs_pair_values: whether the run needs them, which `SampleDrops` sets.
    """

    settings_class: ClassVar[type[TaskSettings]]
    settings: TaskSettings
    prepares_steps: ClassVar[bool] = False
    needs_records: ClassVar[bool] = False
    learns_answers: ClassVar[bool] = True
    measure_names: tuple[str, ...] = ()
    pair_value: ClassVar[Literal["loss", "reward_deviation"] | None] = None
    needs_pair_values: bool = False

    def __init__(self, settings: TaskSettings | None = None):
        super().__init__()
        self.settings = settings if settings is not None else self.settings_class()

    @classmethod
    def setup_task(cls, cfg: Any = None, **kwargs: Any) -> EmotionTask:
        """The task of a config with `run_cfg`, as LAVIS makes tasks."""
        run: Any = cfg.run_cfg
        if OmegaConf.is_config(run):
            run = OmegaConf.to_container(run, resolve=True)
        settings, problems = parse_task_settings(cls.settings_class, run)
        if settings is None:
            raise ConfigError(problems)
        return cls(settings)

    def build_datasets(self, cfg: Any) -> dict[str, Any]:
        """Dataset name -> split -> dataset, with records in their batches if the task needs them.

        Raises:
            DataError: datasets cannot be built; names the faults of all of them.
        """
        datasets: dict[str, Any] = {}
        problems = []
        for name in cfg.datasets_cfg:
            try:
                datasets[name] = registry.get_builder_class(name)(cfg.datasets_cfg[name]).build_datasets()
            except DataError as error:
                problems.append(str(error))
        if problems:
            raise DataError("\n".join(problems))
        if self.needs_records:
            for splits in datasets.values():
                for dataset in splits.values():
                    dataset.include_records()
        return datasets

    # The training step

    def begin(self, model: EmotionModel, dataset: Any) -> None:
        """Called by all processes before training, with the model on its device and the training data.

        Raises:
            UserError: the data or the model lack what the task needs.
        """

    def end(self) -> None:
        """Called by all processes when training has ended, also by an error; evaluation may follow."""

    def prepare_step(self, model: EmotionModel, micro_batches: Sequence[Batch]) -> Sequence[Batch]:
        """Turn the micro-batches of a step, on the device, into as many that `step_loss` gets.

        Called by all processes before the first forward pass of a step, without gradients.
        """
        return micro_batches

    def step_weight(self, model: EmotionModel, batch: Batch) -> int:
        """`StepLoss.weight` of a batch, without a forward pass."""
        raise NotImplementedError

    def step_loss(self, model: EmotionModel, batch: Batch) -> StepLoss:
        """The loss of a micro-batch, with gradients."""
        raise NotImplementedError

    def blank_batch(self, model: EmotionModel) -> Batch:
        """A batch for a process that takes part in a step without samples; its loss counts nothing."""
        return model.blank_batch()

    def step_columns(self, measures: Mapping[str, float]) -> Mapping[str, float]:
        """The columns of the log from the measures of a step, summed over the global batch."""
        return measures

    def log_rows(self, step: int) -> Sequence[Mapping[str, Any]]:
        """Further rows of the log after a step, with an `event` each; those of rank 0 are written."""
        return ()

    # Evaluation

    def benchmark(self, dataset: str, split: str, samples: EvaluatedSamples) -> RunBenchmarkSettings:
        """The benchmark of a split that the recipe names in `run.valid_splits` or `run.test_splits`."""
        raise NotImplementedError

    def metrics(self, measured: MeasuredRows) -> dict[str, Any]:
        """The metrics of a benchmark as plain values, in the form that `run.best_metric` names them.

        Numbers of the headline metric come first, other metrics under their names, and `agg_metrics`, LAVIS's name for
        the number that compares models.
        """
        result, found = result_of(measured), headline_of(measured.settings.kind)
        if found is None:
            return {name: result[name] for name in ("num_samples", "num_invalid")}
        others = dict(result["metrics"])
        return {**others.pop(found[0].name), **others, "agg_metrics": result["headline"]["value"]}

    def log_line(self, kind: str, metrics: Mapping[str, Any]) -> str:
        """A line about the metrics of a benchmark of a kind, for people."""
        found = headline_of(kind)
        if found is None:
            return f"{metrics['num_samples']} answers, {metrics['num_invalid']} of them empty"
        title, name = found[1].title, found[1].field
        if metrics[name] is None:
            return f"{title} is not defined"
        line, interval = f"{title} {metrics[name]:.3f}", metrics.get(f"{name}_interval")
        if interval is not None:
            line += f" ({interval['low']:.3f} to {interval['high']:.3f})"
        if "macro_f1" in metrics:
            line += (
                f", macro F1 {metrics['macro_f1']:.3f} on {metrics['num_samples']} images; chance "
                f"{metrics['chance']:.3f}, largest class {metrics['majority_baseline']:.3f}"
            )
        return line
