"""`emovit doctor --recipe`: what a recipe needs, and its memory and speed on GPUs that are not here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from itertools import chain
from typing import Any

from lavis_emovit.cli.recipe_needs import images_of_epoch, recipe_needs
from lavis_emovit.errors import UserError
from lavis_emovit.models.step_memory import StepLoad
from lavis_emovit.plugin import activate
from lavis_emovit.progress import progress
from lavis_emovit.runners.config import Config
from lavis_emovit.runners.estimate import GB, TORCH, Assumptions, Partition, StepModel, Usage, estimate
from lavis_emovit.runners.gpus import Gpu, find_gpu
from lavis_emovit.runners.plan import Plan
from lavis_emovit.shards.order import num_steps

ZERO_FILES = ("zero1", "zero2", "zero2_offload", "zero3", "zero3_offload")
RECIPE = "as in the recipe"
LORA = {"lora": {"parts": ("language_model",)}}
RECOMPUTE = {"use_grad_checkpoint": True}
# Changes of the `model:` node that are estimated beside the recipe, and the options that make them.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "recompute": RECOMPUTE,
    "int8": {"frozen_precision": "int8"},
    "nf4": {"frozen_precision": "nf4"},
    "LoRA": LORA,
    "LoRA, recompute": {**LORA, **RECOMPUTE},
    "nf4, LoRA, recompute": {"frozen_precision": "nf4", **LORA, **RECOMPUTE},
}
# Dry runs with these numbers of images; all counts in between and beyond are linear.
DRY_RUN_IMAGES = (1, 8)


@dataclass(frozen=True)
class Request:
    """What the command line asks for; None: the recipe's."""

    gpus: tuple[int, ...] = (1, 4, 8)
    question_tokens: int | None = None
    answer_tokens: int | None = None
    pairs_per_image: int = 1
    num_images: int | None = None
    assumed: Assumptions = field(default_factory=Assumptions)


@dataclass(frozen=True)
class Row:
    """One way to run the recipe."""

    variant: str
    partition: str
    num_gpus: int
    usage: Usage
    steps: int | None  # of the whole run

    @property
    def hours(self) -> float | None:
        return None if self.steps is None else self.steps * self.usage.step_s / 3600

    def to_dict(self) -> dict[str, Any]:
        usage = self.usage
        return {
            "variant": self.variant,
            "partition": self.partition,
            "num_gpus": self.num_gpus,
            "bytes": {**usage.parts, "total": usage.total, "host": usage.host},
            "fits": usage.fits,
            "micro_batch": usage.micro_batch,
            "max_micro_batch": usage.max_micro_batch,
            "steps_per_hour": round(3600 / usage.step_s, 1),
            "hours": None if self.hours is None else round(self.hours, 2),
        }


class RecipeEstimate:
    """The estimate of a recipe on one kind of GPU.

    UserError if the recipe trains nothing or its model cannot be counted.
    """

    def __init__(self, cfg: Config, gpu: Gpu, request: Request, num_images: int | None):
        from lavis.common.registry import registry

        if cfg.run.evaluate:
            raise UserError(f"{cfg.source} only evaluates (run.evaluate), so there is no training to estimate")
        self.cfg, self.gpu, self.request = cfg, gpu, request
        settings: Any = cfg.model
        processors = [getattr(getattr(of, "vis_processor", None), "train", None) for of in cfg.datasets.values()]
        self._model_class: Any = registry.get_model_class(settings.arch)
        self._counted: dict[str, StepModel] = {}
        self.load = StepLoad(
            1,
            request.pairs_per_image,
            request.question_tokens or settings.max_txt_len,
            request.answer_tokens or settings.max_output_txt_len,
            max((getattr(one, "num_frames", 1) for one in processors), default=1),
        )
        self.num_images = request.num_images or cfg.run.epoch_size or num_images
        self.rows = list(self._rows())

    @property
    def recipe_model(self) -> StepModel:
        return self._count(self.cfg.model)

    @property
    def steps(self) -> int | None:
        """Optimizer steps of the whole run; None if the number of images is unknown."""
        if self.num_images is None:
            return self.cfg.run.max_steps
        return Plan(self.cfg.run, num_steps(self.num_images, self.cfg.run.global_batch_size)).total_steps

    def _count(self, settings: Any) -> StepModel:
        """Dry runs of a model; quantised layers have the activations of those in bfloat16."""
        key = settings.model_dump_json()
        if key not in self._counted:
            counts = [
                self._model_class.step_memory(settings, replace(self.load, num_images=images), self.cfg.run.amp)
                for images in DRY_RUN_IMAGES
            ]
            if None in counts:
                raise UserError(f"{settings.arch} does not implement step_memory, so its memory cannot be estimated")
            self._counted[key] = StepModel(counts[0], counts[1], *DRY_RUN_IMAGES)
        return self._counted[key]

    def _rows(self) -> Iterator[Row]:
        run = self.cfg.run
        own = [Partition.of_file(run.deepspeed_config)] if run.engine == "deepspeed" else []
        files = [Partition.of_file(f"projects/emovit/deepspeed/{name}.json") for name in ZERO_FILES]
        partitions = [TORCH, *own, *(file for file in files if file.name not in [one.name for one in own])]
        models = {RECIPE: self.cfg.model, **dict(self._variants())}
        with progress("dry runs", len(models)) as line:
            for number, (variant, settings) in enumerate(models.items()):
                line.update(number)
                model = self._count(settings)
                for num_gpus in self.request.gpus:
                    for partition in partitions if variant == RECIPE else [TORCH]:
                        if self._makes_sense(partition, num_gpus, settings):
                            usage = estimate(model, run, partition, num_gpus, self.gpu, self.request.assumed)
                            yield Row(variant, partition.name, num_gpus, usage, self.steps)
            line.update(len(models))

    def _makes_sense(self, partition: Partition, num_gpus: int, settings: Any) -> bool:
        """Whether a partition is allowed, and changes anything on one GPU."""
        if partition.stage == 3 and (
            settings.frozen_precision in ("int8", "nf4") or self.cfg.run.ema_decay is not None
        ):
            return False
        return partition.stage == 0 or num_gpus > 1 or partition.offload_optimizer

    def _variants(self) -> Iterator[tuple[str, Any]]:
        """Variants that differ from the recipe and that its model and the installed packages allow."""
        given: Any = self.cfg.model
        for name, changes in VARIANTS.items():
            if "lora" in changes and (given.lora is not None or find_spec("peft") is None):
                continue
            try:
                settings = type(given).model_validate({**given.model_dump(), **changes})
            except ValueError:  # for example adapters on a part that is trained
                continue
            if settings != given:
                yield name, settings

    # Output

    def to_dict(self) -> dict[str, Any]:
        step = self.recipe_model.first
        return {
            "gpu": asdict(self.gpu),
            "assumptions": asdict(self.request.assumed),
            "load": asdict(self.load),
            "parameters": {"trained": step.num_trained, "total": sum(part.num_parameters for part in step.weights)},
            "weights": [asdict(part) for part in step.weights],
            "num_images": self.num_images,
            "steps": self.steps,
            "rows": [row.to_dict() for row in self.rows],
        }

    def lines(self) -> Iterator[str]:
        step, load, run = self.recipe_model.first, self.load, self.cfg.run
        total = sum(part.num_parameters for part in step.weights)
        settings: Any = self.cfg.model
        trained = f"{step.num_trained / 1e6:.1f} million of them trained"
        record = f"A record of {load.num_frames} frames or images" if load.num_frames > 1 else "An image"
        yield f"{settings.arch}: {total / 1e9:.2f} billion parameters, {trained}"
        yield (
            f"{record} brings {load.pairs_per_image} question(s) of {load.question_tokens} tokens with an "
            f"answer of {load.answer_tokens}; global batch {run.global_batch_size}, amp {run.amp}"
        )
        yield ""
        yield f"{'weights':<22}{'precision':<12}{'trained':<9}{'GB':>8}"
        for part in step.weights:
            yield (
                f"{part.part:<22}{part.precision:<12}{'yes' if part.is_trained else 'no':<9}{part.num_bytes / GB:>8.2f}"
            )
        yield ""
        first = self.rows[0]
        yield (
            f"{f'memory of one process ({first.partition}, {first.num_gpus} GPU, {first.usage.micro_batch} image)':<43}"
            f"{'GB':>8}"
        )
        for name, size in {**first.usage.parts, "total": first.usage.total}.items():
            if size:
                yield f"{name:<43}{size / GB:>8.2f}"
        yield ""
        gpu, assumed = self.gpu, self.request.assumed
        yield (
            f"{gpu.kind}: {gpu.memory_gb:g} GB, {gpu.half:g} TFLOP/s, {gpu.bandwidth_gb_s:g} GB/s, link "
            f"{gpu.link_gb_s:g} GB/s ({gpu.source})"
        )
        head = f"{'model':<22}{'engine':<15}{'GPUs':>4}{'GB each':>9}  {'fits':<5}"
        yield f"{head}{'largest micro':>13}{'steps/h':>9}{'hours':>8}"
        for row in self.rows:
            usage = row.usage
            hours = "?" if row.hours is None else f"{row.hours:,.1f}"
            yield (
                f"{row.variant:<22}{row.partition:<15}{row.num_gpus:>4}{usage.total / GB:>9.2f}  "
                f"{'yes' if usage.fits else 'NO':<5}{usage.max_micro_batch:>13}{3600 / usage.step_s:>9,.0f}{hours:>8}"
            )
        yield ""
        images = "unknown (set --images)" if self.num_images is None else f"{self.num_images:,}"
        steps = "unknown" if self.steps is None else f"{self.steps:,}"
        yield f"Images of an epoch: {images}; steps of the whole run: {steps}; evaluation and loading take extra time."
        yield (
            f"Memory is counted, with {assumed.context_gb:g} GB for CUDA and its libraries. Speed is an estimate, not "
            f"measured: {assumed.utilisation:.0%} of the peak, {assumed.operation_us:g} us an operation, "
            f"{assumed.host_gb_s:g} GB/s to the host."
        )
        if idle := [count for count in self.request.gpus if count > run.global_batch_size]:
            yield (
                f"run.global_batch_size={run.global_batch_size}, so of {max(idle)} GPUs "
                f"{max(idle) - run.global_batch_size} would be idle in every step."
            )


def report(
    recipe: str, options: Sequence[str], gpu_kind: str, request: Request
) -> tuple[dict[str, Any], Iterator[str]]:
    """What the recipe needs, and its estimate, as plain values and as lines."""
    gpu = find_gpu(gpu_kind)
    activate()
    cfg = Config.load(recipe, options, needs_packages=False)
    num_images = images_of_epoch(cfg)
    found = RecipeEstimate(cfg, gpu, request, num_images)
    needs = recipe_needs(cfg, found.recipe_model.first.num_trained)
    is_ready = all(finding.state in ("ok", "note") for finding in needs)
    values = {
        "recipe": recipe,
        "options": list(options),
        "ok": is_ready,
        "findings": [asdict(finding) for finding in needs],
        "estimate": found.to_dict(),
    }
    return values, chain((finding.as_lines() for finding in needs), [""], found.lines())
