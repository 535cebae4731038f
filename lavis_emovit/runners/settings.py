"""The `run:` node of a recipe. Settings that LAVIS has too keep LAVIS's names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from lavis_emovit.evaluation.benchmarks import Kind, RunBenchmarkSettings, check_file_names, without_nulls
from lavis_emovit.models.settings import as_list
from lavis_emovit.records import INSTRUCTION_KINDS, InstructionKind
from lavis_emovit.settings import EachOnce, Settings, added_field, nearest_name
from lavis_emovit.tasks.settings import AnswerSettings, TaskSettings

# Keys of LAVIS's runner that have another meaning here or follow from the launch -> what to write instead.
LAVIS_RUN_KEYS = {
    "batch_size_train": "LAVIS counts it per process; set run.global_batch_size (images of one optimizer step, all "
    "processes together) and, if memory is short, run.micro_batch_size",
    "accum_grad_iters": "it follows from run.global_batch_size and run.micro_batch_size; remove it",
    "resume_ckpt_path": "set run.resume (auto, never or a checkpoint folder)",
    "log_freq": "set run.log_every_steps",
    "max_iters": "LAVIS counts micro-batches; set run.max_steps, which counts optimizer steps",
    "iters_per_inner_epoch": "set run.eval_every_steps, which counts optimizer steps",
    "lr_decay_rate": "set run.lr_step_decay, for run.lr_sched=linear_warmup_step_lr",
    **dict.fromkeys(
        ("distributed", "world_size", "dist_url", "dist_backend", "use_dist_eval_sampler"),
        "it follows from the launch of the command; remove it",
    ),
}

# Settings that change where and how fast a run is computed and what it logs, but not its results. A run may be resumed
# with other values of these; a change of any other setting is refused.
FREE_RUN_KEYS = frozenset(
    "output_dir resume overwrite allow_changed micro_batch_size batch_size_eval num_workers num_threads device engine "
    "deepspeed_config timeout_s compile save_every_steps async_save keep_last log_every_steps tensorboard wandb "
    "wandb_project loss_spike_mads peak_tflops report num_report_answers cut_texts".split()
)

# Above it, steps and the decay of weights would not fit into float32.
_MAX_RATE = 1e6

# Settings that a training recipe must set; an evaluation does not need them.
TRAINING_KEYS = ("max_epoch", "global_batch_size", "init_lr")


class Stage(Settings):
    """Epochs in which some of the trained parts learn and the others rest."""

    epochs: int = Field(ge=1)
    parts: dict[str, Annotated[float, Field(gt=0, le=_MAX_RATE)]] = Field(
        min_length=1, description="parts that learn, each with its highest learning rate"
    )
    warmup_steps: int | None = Field(None, ge=0, description="empty: run.warmup_steps")


Ratio = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class CurriculumStage(Settings):
    """Epochs with the same ratios of the datasets."""

    epochs: int = Field(ge=1)
    ratios: dict[str, Ratio | dict[InstructionKind, Ratio]] = Field(
        min_length=1, description="share of each dataset, or of each kind of its instructions; others have none"
    )
    change: Literal["at_once", "linear"] = Field(
        "at_once", description="linear: from those of the stage before, in equal steps to the last epoch of this one"
    )

    @field_validator("ratios", mode="before")
    @classmethod
    def _one_problem_each(cls, value: Any) -> Any:
        """pydantic would report both types of a wrong ratio."""
        for name, ratio in value.items() if isinstance(value, Mapping) else ():
            of_kinds = ratio if isinstance(ratio, Mapping) else {None: ratio}
            for kind, one in of_kinds.items():
                place = name if kind is None else f"{name}.{kind}"
                if kind is not None and kind not in INSTRUCTION_KINDS:
                    raise ValueError(f"{place}: no such kind{nearest_name(str(kind), list(INSTRUCTION_KINDS))}")
                if isinstance(one, bool) or not isinstance(one, int | float) or not 0 <= one < math.inf:
                    raise ValueError(f"{place}: expected a number from 0, or kinds with their numbers (got {one!r})")
        return value

    @model_validator(mode="after")
    def _trains_on_something(self) -> CurriculumStage:
        if not any(self.shares().values()):
            raise ValueError("ratios: give at least one dataset a share above 0")
        return self

    def shares(self) -> dict[tuple[str, str | None], float]:
        """(dataset, kind of its instructions or None for all) -> share."""
        found: dict[tuple[str, str | None], float] = {}
        for name, ratio in self.ratios.items():
            found |= (
                {(name, kind): one for kind, one in ratio.items()} if isinstance(ratio, dict) else {(name, None): ratio}
            )
        return found


class DropSettings(Settings):
    """Which images training no longer draws, because they teach nothing.

    The value of a pair is its task's: for `emotion_instruction` the mean loss of the answer's tokens (natural log), for
    `emotion_grpo` the standard deviation of the rewards of its group.
    """

    at_most: float | None = Field(None, ge=0, description="drop images whose values are all at most this")
    at_least: float | None = Field(None, gt=0, description="drop images whose values are all at least this")
    visits: int = Field(3, ge=1, description="last times an image was trained on that decide")
    max_share: float = Field(0.5, gt=0, lt=1, description="most that may be dropped of each dataset")

    @model_validator(mode="after")
    def _has_a_limit(self) -> DropSettings:
        if self.at_most is None and self.at_least is None:
            raise ValueError("give at_most, at_least or both; without them no image is dropped")
        if self.at_most is not None and self.at_least is not None and self.at_least <= self.at_most:
            raise ValueError(f"at_least ({self.at_least:g}) must be above at_most ({self.at_most:g})")
        return self


class RunSettings(AnswerSettings):
    """How to train and evaluate.

    A global batch is counted in images; each image brings all its question-answer pairs. The loss of a step is the mean
    over all answer tokens of the global batch, no matter how it is split into micro-batches.
    """

    runner: Literal["runner_emovit"] = "runner_emovit"
    task: str = Field("emotion_instruction", description="name of a task, or a mapping of its `name` and its settings")
    task_settings: dict[str, Any] = Field({}, description="settings of the task that are not keys of run")
    engine: Literal["torch", "deepspeed"] = "torch"
    deepspeed_config: str = Field(
        "projects/emovit/deepspeed/zero2.json", min_length=1, description="ZeRO stage and its tuning, for deepspeed"
    )

    # Output, and what to do with an earlier run in it.
    output_dir: str = Field(min_length=1, description="relative paths start at the working directory")
    resume: str = Field("auto", min_length=1, description="auto, never, or the folder of one checkpoint")
    overwrite: bool = Field(False, description="with resume=never: delete the earlier run in output_dir first")
    allow_changed: tuple[str, ...] = Field(
        (), description="settings that may differ from those of the resumed run, such as run.init_lr"
    )

    # Length and batches.
    max_epoch: int = Field(1, ge=1)
    max_steps: int | None = Field(None, ge=1, description="optimizer steps after which the run ends; empty: max_epoch")
    global_batch_size: int = Field(1, ge=1, description="images of one optimizer step, all processes together")
    micro_batch_size: int | None = Field(None, ge=1, description="images of one forward pass; empty: all at once")
    batch_size_eval: int = Field(16, ge=1)
    num_workers: int = Field(0, ge=0, description="processes that read and prepare images")
    train_dataset_ratios: dict[str, Annotated[float, Field(ge=0)]] | None = Field(
        None, description="share of each dataset in training, 0 to evaluate it only; empty: every sample once an epoch"
    )
    curriculum: tuple[CurriculumStage, ...] = Field(
        (), description="stages of ratios, one after another, instead of train_dataset_ratios"
    )
    drop_samples: DropSettings | None = added_field(
        None, description="which images are no longer drawn because they teach nothing; empty: none"
    )
    epoch_size: int | None = Field(
        None, ge=1, description="with ratios, images of an epoch; empty: as many as there are"
    )

    # Optimizer (AdamW) and schedule.
    lr_sched: Literal["linear_warmup_cosine_lr", "linear_warmup_linear_lr", "linear_warmup_step_lr", "constant_lr"] = (
        "linear_warmup_cosine_lr"
    )
    init_lr: float = Field(1e-5, gt=0, le=_MAX_RATE)
    min_lr: float = Field(0.0, ge=0)
    lr_step_decay: float = Field(1.0, gt=0, le=1, description="linear_warmup_step_lr: factor of each epoch")
    warmup_lr: float = Field(1e-8, ge=0, le=_MAX_RATE)
    warmup_steps: int = Field(0, ge=0)
    part_lr: dict[str, Annotated[float, Field(gt=0, le=_MAX_RATE)]] = Field(
        {}, description="highest learning rate of a part, instead of init_lr"
    )
    stages: tuple[Stage, ...] = Field(
        (), description="one after another, each with its own schedule; empty: all trained parts learn in all epochs"
    )
    weight_decay: float = Field(0.05, ge=0, le=_MAX_RATE)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    adam_epsilon: float = Field(1e-8, gt=0, le=_MAX_RATE)
    max_grad_norm: float | None = Field(None, gt=0, description="gradients are clipped to this norm; empty: never")
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="keep a moving average of the weights, evaluate it and save it; empty: none"
    )

    # Machine.
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    amp: Literal["off", "bf16", "fp16"] = "off"
    seed: int = Field(42, ge=0)
    num_threads: int | None = Field(None, ge=1, description="CPU threads of torch; empty: a fair share of the cores")
    timeout_s: float = Field(1800.0, gt=0, description="the run ends if the others wait this long for a process")
    compile: tuple[Literal["vision_encoder", "qformer", "language_model"], ...] = Field(
        (), description="parts to compile with torch.compile; the first steps then take minutes"
    )

    # Evaluation.
    train_splits: Annotated[tuple[str, ...], EachOnce] = ("train",)
    valid_splits: Annotated[tuple[str, ...], EachOnce] = ("val",)
    test_splits: Annotated[tuple[str, ...], EachOnce] = ("test",)
    valid_benchmarks: dict[str, RunBenchmarkSettings] = Field(
        {}, description="name -> benchmark, as in suites; instead of valid_splits, the first chooses the best"
    )
    test_benchmarks: dict[str, RunBenchmarkSettings] = Field({}, description="the same instead of test_splits")
    evaluate: bool = Field(False, description="evaluate the test splits and train nothing")
    evaluate_before: bool = Field(True, description="evaluate the test splits before tuning as well")
    checkpoint: str | None = Field(None, description="evaluation: a checkpoint folder, or a run's folder for its best")
    eval_every_steps: int | None = Field(None, ge=1, description="optimizer steps between two validations")
    eval_every_epochs: int | None = Field(
        None, ge=1, description="epochs between two; empty: 1, or none if eval_every_steps is set"
    )
    best_metric: str = Field(
        "accuracy", min_length=1, description="any number of a validation, such as calibration.ece or mean_ccc"
    )
    best_mode: Literal["auto", "max", "min"] = Field(
        "auto",
        description="auto: the lowest for numbers in `less_is_better` of their metric, the highest for others",
    )
    early_stop_patience: int | None = Field(
        None, ge=1, description="the run ends after this many validations without a better value; empty: never"
    )
    best_dataset: str | None = Field(
        None, description="its validation selects the best checkpoint; empty: the first dataset"
    )
    report: bool = True
    cut_texts: Literal["warn", "refuse"] = Field(
        "warn",
        description="training questions longer than model.max_txt_len, answers longer than model.max_output_txt_len",
    )

    # Saving and logging.
    save_every_steps: int | None = Field(
        None, ge=1, description="in addition to each validation and the end of each epoch; empty: only there"
    )
    async_save: bool = Field(True, description="write checkpoints in the background, from a copy in host memory")
    keep_last: int = Field(2, ge=1, description="newest checkpoints to keep, in addition to the best one")
    log_every_steps: int = Field(10, ge=1, description="plain progress lines; log.jsonl has every step")
    tensorboard: bool = True
    wandb: bool = Field(False, description="also log to Weights & Biases; WANDB_MODE=offline keeps the logs on disk")
    wandb_project: str = Field("lavis-emovit", min_length=1)
    loss_spike_mads: float | None = Field(
        8.0, gt=0, description="a loss this many deviations above the median of the last steps is flagged; empty: none"
    )
    peak_tflops: float | None = Field(
        None, gt=0, description="of one device, for the MFU in the log; empty: by the GPU's name"
    )

    @model_validator(mode="before")
    @classmethod
    def _task_as_a_node(cls, values: Any) -> Any:
        """Split a mapping into name and settings: LAVIS expects a name. Keys that `run` has too are moved there."""
        node = values.get("task") if isinstance(values, Mapping) else None
        if not isinstance(node, Mapping):
            return values
        name = node.get("name")
        settings_class = TaskSettings.by_task.get(name, TaskSettings) if isinstance(name, str) else TaskSettings
        own, of_run = settings_class.expand({key: value for key, value in node.items() if key != "name"})
        flat = {key: own.pop(key) for key in AnswerSettings.model_fields if key in own}
        for key, value in flat.items():
            if values.get(key, value) != value:
                raise ValueError(f"run.{key} and run.task.{key} differ; keep one of them")
        if "name" not in node:
            raise ValueError("run.task needs a `name`, such as emotion_instruction")
        return {**of_run, **values, **flat, "task": name, "task_settings": own}

    @field_validator("amp", mode="before")
    @classmethod
    def _amp_from_yaml(cls, value: Any) -> Any:
        # YAML reads a bare `off` as false, and LAVIS's recipes say `amp: True`.
        return {False: "off", True: "bf16"}.get(value, value) if isinstance(value, bool) else value

    @field_validator("compile", "allow_changed", mode="before")
    @classmethod
    def _one_name_is_a_list(cls, value: Any) -> Any:
        return () if value is None else as_list(value)

    @field_validator("train_splits", "valid_splits", "test_splits", mode="before")
    @classmethod
    def _one_split_is_a_list(cls, value: Any) -> Any:
        return () if value is None else (value,) if isinstance(value, str) else value

    @field_validator("valid_benchmarks", "test_benchmarks", mode="before")
    @classmethod
    def _null_removes(cls, value: Any) -> Any:
        return without_nulls(value) or {}

    @field_validator("valid_benchmarks", "test_benchmarks")
    @classmethod
    def _names_are_file_names(cls, value: dict[str, Any]) -> dict[str, Any]:
        return check_file_names(value)

    @model_validator(mode="after")
    def _check_together(self) -> RunSettings:
        missing = [key for key in TRAINING_KEYS if key not in self.model_fields_set]
        if missing and not self.evaluate:
            raise ValueError(f"training needs {', '.join(f'run.{key}' for key in missing)}")
        if self.overwrite and self.resume != "never":
            raise ValueError("run.overwrite deletes the earlier run, so it needs run.resume=never")
        if not self.evaluate and len(self.train_splits) != 1:
            raise ValueError("run.train_splits needs exactly one split to train on")
        if self.train_dataset_ratios is not None and not any(self.train_dataset_ratios.values()):
            raise ValueError("run.train_dataset_ratios: give at least one dataset a share above 0")
        if self.epoch_size is not None and self.train_dataset_ratios is None and not self.curriculum:
            raise ValueError(
                "run.epoch_size needs run.train_dataset_ratios (with one dataset: its name and 1) or run.curriculum; "
                "without ratios an epoch is every sample once"
            )
        self._check_curriculum()
        if self.drop_samples is not None and not self.ratio_stages:
            raise ValueError(
                "run.drop_samples needs run.train_dataset_ratios (with one dataset: its name and 1) or run.curriculum; "
                "other images then take the place of dropped ones, so that an epoch keeps its length"
            )
        if self.evaluate and not (self.test_splits or self.test_benchmarks):
            raise ValueError("run.test_splits is empty, so there is nothing to evaluate")
        if not self.evaluate and not self.is_validated:
            needless = [key for key in ("early_stop_patience", "eval_every_steps") if getattr(self, key) is not None]
            if needless:
                raise ValueError(f"run.{needless[0]} needs a split in run.valid_splits")
        if self.lr_step_decay != 1.0 and self.lr_sched != "linear_warmup_step_lr":
            raise ValueError(f"run.lr_step_decay has no effect with run.lr_sched={self.lr_sched}; remove it")
        if self.part_lr and self.stages:
            raise ValueError("run.part_lr: each stage of run.stages has the learning rates of its parts; remove it")
        num_epochs = sum(stage.epochs for stage in self.stages)
        if self.stages and num_epochs != self.max_epoch and not self.evaluate:
            raise ValueError(f"run.stages: they have {num_epochs} epochs, so set run.max_epoch={num_epochs}")
        if self.min_lr > self.init_lr:
            raise ValueError(f"run.min_lr ({self.min_lr:g}) is above run.init_lr ({self.init_lr:g})")
        return self

    def _check_curriculum(self) -> None:
        if not self.curriculum:
            return
        if self.train_dataset_ratios is not None:
            raise ValueError("run.train_dataset_ratios: each stage of run.curriculum has its own ratios; remove it")
        if self.epoch_size is None:
            raise ValueError("run.curriculum needs run.epoch_size, the images of an epoch")
        if self.curriculum[0].change == "linear":
            raise ValueError("run.curriculum: there is no stage before the first one that it could change from")
        num_epochs = sum(stage.epochs for stage in self.curriculum)
        if num_epochs != self.max_epoch and not self.evaluate:
            raise ValueError(f"run.curriculum: its stages have {num_epochs} epochs, so set run.max_epoch={num_epochs}")

    @property
    def ratio_stages(self) -> tuple[CurriculumStage, ...]:
        """The stages of ratios: one for `train_dataset_ratios`, none without ratios."""
        if self.train_dataset_ratios is None:
            return self.curriculum
        return (CurriculumStage(epochs=self.max_epoch, ratios=dict(self.train_dataset_ratios), change="at_once"),)

    def trains_on(self, dataset: str) -> bool:
        """Whether a dataset of the recipe has a share in training."""
        stages = self.ratio_stages
        return not stages or any(
            name == dataset for stage in stages for (name, _), share in stage.shares().items() if share
        )

    @property
    def is_validated(self) -> bool:
        """Whether anything is evaluated during training."""
        return not self.evaluate and bool(self.valid_splits or self.valid_benchmarks)

    @property
    def validation_kind(self) -> Kind:
        """Kind of the benchmark that chooses the best checkpoint."""
        benchmarks = sorted(self.valid_benchmarks.values(), key=lambda one: one.dataset != self.best_dataset)
        return benchmarks[0].kind if benchmarks else "emotion"

    @property
    def micro_batch(self) -> int:
        """Images of one forward pass."""
        return min(self.micro_batch_size or self.global_batch_size, self.global_batch_size)
