"""A recipe: LAVIS's YAML on the surface, frozen and typed settings behind it.

Defaults of the model and of each dataset come from the files that their registered classes name, as in LAVIS. The
recipe overrides them, and `--options` override the recipe. All problems are reported together, before torch is loaded.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lavis_emovit.boxes import box_identity, shows_both
from lavis_emovit.clips.clip import FrameSettings
from lavis_emovit.errors import ConfigError
from lavis_emovit.paths import find_recipe
from lavis_emovit.recipes import (
    ROOT_KEYS,
    box_of,
    flatten,
    mapping_at,
    near,
    read_user_tree,
    resolve_datasets,
    resolve_model,
)
from lavis_emovit.runners.accelerate_launch import with_accelerate
from lavis_emovit.runners.part_rates import part_problems
from lavis_emovit.runners.settings import FREE_RUN_KEYS, LAVIS_RUN_KEYS, RunSettings
from lavis_emovit.runners.splits import recipe_problems
from lavis_emovit.settings import (
    Origins,
    Settings,
    parse_settings,
    unknown_key,
    variables_line,
    with_variables,
)
from lavis_emovit.tasks.settings import TaskSettings, parse_task_settings

# The key of a recipe under which another run comes first.
FIRST_RUN = "first_run"


class Config:
    """A validated recipe.

    `run_cfg`, `model_cfg` and `datasets_cfg` are what LAVIS's tasks, models and builders expect; `run`, `model` and
    `datasets` are the same as typed settings. `first` is the run whose best weights this one starts from, if any.
    """

    def __init__(
        self,
        tree: DictConfig,
        run: RunSettings,
        model: Settings,
        datasets: Mapping[str, Settings],
        source: str,
        origins: Origins | None = None,
    ):
        self.config, self.source, self._origins = tree, source, origins or {}
        self.run_cfg, self.model_cfg, self.datasets_cfg = tree.run, tree.model, tree.datasets
        self.run, self.model, self.datasets = run, model, dict(datasets)
        self.first: Config | None = None

    @classmethod
    def load(
        cls,
        cfg_path: str | Path,
        options: Sequence[str] = (),
        overrides: Sequence[str] = (),
        *,
        needs_packages: bool = True,
    ) -> Config:
        """Read a recipe.

        Args:
            cfg_path: the file, or `projects/emovit/...` for one that ships with the package.
            options: of the form `a.b=c` or, as in LAVIS, `a.b c`.
            overrides: of the form `a.b=c`; they override the options.
            needs_packages: whether a missing optional package is a problem.

        Raises:
            ConfigError: the recipe is wrong; lists all problems.
        """
        path = find_recipe(cfg_path)
        if path is None:
            raise ConfigError([f"{cfg_path}: no such recipe file; check the path of --cfg-path"], "the command line")
        tree, problems, origins = read_user_tree(path, options, overrides)
        first = tree.pop(FIRST_RUN, None)
        if first is None:
            return cls._parse(tree, problems, origins, str(cfg_path), path, needs_packages)
        configs: list[Config] = []
        for values, place in ((_first_tree(tree, first, problems), f"{FIRST_RUN}: "), (tree, "")):
            try:
                configs.append(cls._parse(values, [], origins, str(cfg_path), path, needs_packages))
            except ConfigError as error:
                problems += [place + problem for problem in error.problems]
        if problems:
            raise ConfigError(problems, str(cfg_path))
        earlier, config = configs
        if not config.run.evaluate:
            config.first = earlier
        return config

    @classmethod
    def _parse(
        cls,
        tree: dict[str, Any],
        problems: list[str],
        origins: Origins,
        source: str,
        path: Path,
        needs_packages: bool,
    ) -> Config:
        """A recipe without a first run; `source` is what messages call it."""
        nodes = {key: mapping_at(tree, key, problems) for key in ROOT_KEYS}
        nodes["run"] = with_accelerate(nodes["run"], os.environ, problems)
        keys = (*ROOT_KEYS, FIRST_RUN)
        problems += [unknown_key(key, keys, "run", RunSettings) for key in tree if key not in ROOT_KEYS]
        run, run_problems = parse_settings(RunSettings, nodes["run"], "run")
        problems += [_with_lavis_hint(line) for line in run_problems]
        model_tree, model = resolve_model(nodes["model"], problems, origins=origins)
        datasets_tree, datasets = resolve_datasets(nodes["datasets"], problems, origins)
        problems += _check_task(run)
        problems += part_problems(run, model) if run is not None else []
        problems += _check_image_sizes(model, datasets)
        problems += _check_frames(model, datasets)
        problems += _check_boxes(datasets) if run is not None and not run.evaluate else []
        datasets = _with_processor(model, nodes["datasets"], datasets_tree, datasets, problems)
        if run is not None and len(datasets) == len(nodes["datasets"]):
            problems += recipe_problems(run, datasets)
        problems += missing_packages(run, model) if needs_packages else []
        if problems or run is None or model is None:
            raise ConfigError(problems, source)
        merged = OmegaConf.create({"run": run.model_dump(mode="json"), "model": model_tree, "datasets": datasets_tree})
        return cls(merged, run, model, datasets, str(path), origins)

    def to_dict(self) -> dict[str, Any]:
        return OmegaConf.to_container(self.config, resolve=True)  # type: ignore[return-value]

    def to_share(self) -> dict[str, Any]:
        """As `to_dict`, but with `${oc.env:NAME}` instead of what environment variables contain."""
        return with_variables(self.to_dict(), self._origins)

    def to_yaml(self) -> str:
        """The whole recipe with every default filled in, to be read with `written_values`."""
        return OmegaConf.to_yaml(OmegaConf.create(self.to_share())) + variables_line(self._origins)

    @property
    def identity_hash(self) -> str:
        """sha256 over all settings that decide what a run computes."""
        return hashlib.sha256(json.dumps(identity_of(self.to_dict()), sort_keys=True).encode()).hexdigest()


def _first_tree(tree: Mapping[str, Any], first: Any, problems: list[str]) -> dict[str, Any]:
    """The recipe of the run before this one: the same settings but for the task, with those of `first` over them."""
    if not isinstance(first, Mapping):
        problems.append(f"{FIRST_RUN}: expected a mapping with the keys {', '.join(ROOT_KEYS)} (got {first!r})")
        first = {}
    run, model = tree.get("run"), tree.get("model")
    if isinstance(model, Mapping) and model.get("load_finetuned"):
        problems.append(f"model.load_finetuned: this run starts from the weights of {FIRST_RUN}; remove one of them")
    if not isinstance(run, Mapping):
        return {**tree, **first}
    own = {key: value for key, value in run.items() if key not in ("task", "resume", "overwrite", "checkpoint")}
    own["output_dir"] = f"{str(run.get('output_dir')).rstrip('/')}-first"
    merged = OmegaConf.merge(OmegaConf.create({**tree, "run": own}), OmegaConf.create(dict(first)))
    return OmegaConf.to_container(merged)  # type: ignore[return-value]


def identity_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide what a run computes, flat: `run.init_lr` -> value."""
    free = {f"run.{key}" for key in FREE_RUN_KEYS}
    return {key: value for key, value in flatten(values).items() if key not in free}


def _with_lavis_hint(line: str) -> str:
    """The problem of a key of LAVIS's own runner, with what to write instead."""
    key, separator, _ = line.partition(": unknown key")
    hint = LAVIS_RUN_KEYS.get(key.removeprefix("run."))
    return f"{key}: a key of LAVIS's runner, not of this one: {hint}" if separator and hint else line


def _check_task(run: RunSettings | None) -> list[str]:
    if run is None:
        return []
    settings_class = TaskSettings.by_task.get(run.task)
    if settings_class is None:
        from lavis.common.registry import registry

        task_class = registry.get_task_class(run.task)
        if task_class is None:
            return [f"run.task: no task '{run.task}' is registered{near(run.task, registry.list_tasks())}"]
        settings_class = getattr(task_class, "settings_class", None)
        if settings_class is None:
            ours = ", ".join(sorted(TaskSettings.by_task))
            return [f"run.task: runner_emovit cannot run '{run.task}', which is not an EmotionTask; use {ours}"]
    return parse_task_settings(settings_class, run.model_dump())[1]


def missing_packages(run: RunSettings | None, model: Settings | None) -> list[str]:
    """Optional packages that the settings need and that are not installed, before a model is loaded for nothing."""
    extra = "pip install 'lavis-emovit[{}]'".format
    needed = {
        "wandb": ("run.wandb", run is not None and run.wandb, "pip install wandb, or set run.wandb=false"),
        "deepspeed": ("run.engine", run is not None and run.engine == "deepspeed", extra("deepspeed")),
        "trl": ("run.task", run is not None and run.task == "emotion_grpo", extra("rl")),
        "vllm": (
            "run.task.vllm", run is not None and run.task_settings.get("vllm") is not None, "pip install vllm"
        ),
        "peft": (
            "model.lora" if getattr(model, "lora", None) is not None else "model.adapter",
            getattr(model, "lora", None) is not None or getattr(model, "adapter", None) is not None,
            extra("lora"),
        ),
        "bitsandbytes": (
            "model.frozen_precision", getattr(model, "frozen_precision", "") in ("int8", "nf4"), extra("quantize"),
        ),
    }  # fmt: skip
    return [
        f"{key}: the package {package} is not installed: {advice}"
        for package, (key, is_needed, advice) in needed.items()
        if is_needed and not _is_installed(package)
    ]


def _is_installed(package: str) -> bool:
    if package in sys.modules:
        return sys.modules[package] is not None
    return find_spec(package) is not None


def _with_processor(
    model: Settings | None,
    given: Mapping[str, Any],
    trees: dict[str, Any],
    datasets: dict[str, Settings],
    problems: list[str],
) -> dict[str, Settings]:
    """The datasets with the image processor of a model that has its own, in `trees` too; adds to `problems`."""
    make = getattr(model, "image_processor", None)
    if make is None:
        return datasets
    node = make()
    own = f"{getattr(model, 'arch', '')} reads images with the processor of its weights"
    found: dict[str, Settings] = {}
    for name in datasets:
        if _sets_the_processor((given[name] or {}).get("vis_processor")):
            advice = "remove all but `box` and `frames` (model.max_side_px and model.processor set that one)"
            problems.append(f"datasets.{name}.vis_processor: {own}; {advice}")
        buckets = getattr(datasets[name], "length_buckets", None)
        shares = getattr(model, "share_prefix", False)
        if shares and buckets is not None and buckets.max_tokens is not None and buckets.image_tokens is None:
            advice = "set it to the most tokens of an image (docs/models.md), which its questions share"
            problems.append(f"datasets.{name}.length_buckets.image_tokens: max_tokens counts images too; {advice}")
        pair: Any = datasets[name].vis_processor  # type: ignore[attr-defined]
        nodes = {split: {**node, **_shown_of(getattr(pair, split, None))} for split in ("train", "eval")}
        trees[name]["vis_processor"] = nodes
        found[name] = datasets[name].model_copy(update={"vis_processor": type(pair)(**nodes)})
    return found


def _sets_the_processor(given: Any) -> bool:
    """Whether the `vis_processor` of a recipe says more than what is shown of records with a box, and of clips."""
    parts = given.values() if isinstance(given, Mapping) else [given]
    return any(not isinstance(part, Mapping) or set(part) - {"box", "frames"} for part in parts if part)


def _shown_of(processor: Any) -> dict[str, Any]:
    """What the settings of an image processor show of records with a box, and of clips."""
    frames: FrameSettings | None = getattr(processor, "frames", None)
    own = {} if frames is None else {"frames": frames.model_dump(mode="json")}
    return {**box_identity(getattr(processor, "box", None)), **own}


def _check_image_sizes(model: Settings | None, datasets: Mapping[str, Settings]) -> list[str]:
    """The processors of a dataset must produce images of the size that the model reads."""
    wanted = getattr(model, "image_size", None)
    problems = []
    for key, processor in _image_processors(datasets):
        size = getattr(processor, "image_size", wanted)
        if wanted is not None and size != wanted:
            advice = f"{size}, but the model reads images of {wanted}; set it to model.image_size"
            problems.append(f"{key}.image_size: {advice}")
    return problems


def _check_frames(model: Settings | None, datasets: Mapping[str, Settings]) -> list[str]:
    """Clips must not have more frames than the model has embeddings for, or one image if its template has one."""
    pooling = getattr(model, "frames", None)
    most = pooling.max_frames if pooling is not None and pooling.embedding == "learned" else math.inf
    problems = []
    for key, processor in _image_processors(datasets):
        num_frames = getattr(processor, "num_frames", 1)
        both = shows_both(getattr(processor, "box", None))
        images = f": `box: both` shows {num_frames} images" if both else f".frames.num_frames: {num_frames}"
        shown = f"{key}{images}, but"
        if both and pooling is not None and getattr(processor, "frames", None) is not None:
            problems.append(f"{shown} model.frames reads them in the order of time; remove it, or set `box` to crop")
        if num_frames > most:
            problems.append(f"{shown} model.frames.max_frames is {most}; raise it")
        if num_frames > 1 and getattr(model, "template", None) is not None:
            advice = "set `box` to crop or whole" if both else "remove `frames`, or set num_frames to 1"
            problems.append(f"{shown} model.template has the place of one image; {advice}")
    return problems


def _check_boxes(datasets: Mapping[str, Settings]) -> list[str]:
    """A model must be evaluated on what it was trained on."""
    problems = []
    for name, dataset in datasets.items():
        if box_identity(box_of(dataset, "train")) != box_identity(box_of(dataset, "eval")):
            problems.append(
                f"datasets.{name}.vis_processor.eval.box: evaluation would show other parts of the images than "
                "training; set train.box and eval.box alike"
            )
    # Tensors of a batch have one shape; the images of an `image_text` model need not.
    shapes = {name: shows_both(box_of(dataset)) for name, dataset in datasets.items() if _has_image_size(dataset)}
    if len(set(shapes.values())) > 1:
        first = next(name for name, both in shapes.items() if both)
        problems += [
            f"datasets.{name}.vis_processor: datasets.{first} shows two images for a record (`box: both`), and this "
            "one shows one, so they cannot be in one batch; set train.box and eval.box alike for all datasets"
            for name, both in shapes.items()
            if not both
        ]
    return problems


def _has_image_size(dataset: Settings) -> bool:
    """Whether its images become tensors of one size."""
    return hasattr(getattr(getattr(dataset, "vis_processor", None), "train", None), "image_size")


def _image_processors(datasets: Mapping[str, Settings]) -> Iterator[tuple[str, Any]]:
    """Key and settings of each image processor; None where a dataset has none."""
    for name, dataset in datasets.items():
        for split in ("train", "eval"):
            processors = getattr(dataset, "vis_processor", None)
            yield f"datasets.{name}.vis_processor.{split}", getattr(processors, split, None)
