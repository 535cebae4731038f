"""What a run trains on and evaluates: the splits of its datasets, and its benchmarks."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.evaluation.benchmarks import ALL_SPLITS, Method, RunBenchmarkSettings
from lavis_emovit.recipes import box_of, resolve_dataset
from lavis_emovit.runners.best import BestMetric
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.settings import Settings, nearest_name
from lavis_emovit.shards.curriculum import Curriculum, MixtureStage

if TYPE_CHECKING:
    from lavis_emovit.clips.clip import FrameSettings
    from lavis_emovit.evaluation.suite.benchmark_data import OpenBenchmark
    from lavis_emovit.evaluation.trained_questions import TrainedQuestion, TrainedQuestions
    from lavis_emovit.runners.config import Config
    from lavis_emovit.runners.loaders import TrainDataset
    from lavis_emovit.tasks.base import EmotionTask

logger = logging.getLogger(__name__)

Splits = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class RunBenchmark:
    """A benchmark that a run evaluates.

    Attributes:
        data: its records and questions.
        method: its scoring method.
        processors: image and text processor of a split that the recipe only names; None: those of the model.
        frames: which frames of clips a model with its own processors gets; None: it reads images.
    """

    data: OpenBenchmark
    method: Method
    processors: tuple[Any, Any] | None = None
    frames: FrameSettings | None = None


@dataclass(frozen=True)
class RecipeSplits:
    """What a run trains on and evaluates.

    A split keeps its name (`test`) if the recipe has one dataset. With several, the name of the dataset comes first
    (`emoset-test`). Metrics, the log and prediction files use these names, or those of the recipe's benchmarks.

    Attributes:
        train: one dataset, or the mixture of several; None for a run that only evaluates.
        valid: name -> benchmark; the first one chooses the best checkpoint.
        test: name -> benchmark.
    """

    train: TrainDataset | None
    valid: Mapping[str, RunBenchmark]
    test: Mapping[str, RunBenchmark]

    @classmethod
    def of(cls, datasets: Splits, config: Config, task: EmotionTask) -> RecipeSplits:
        """Choose and mix the splits of a recipe, and open its benchmarks.

        Args:
            datasets: dataset name -> split -> dataset, as `task.build_datasets` returns them.
            task: decides what is evaluated on a split.

        Raises:
            ConfigError: a split is missing or cannot be evaluated, a benchmark cannot be opened, a dataset is not used,
                or the datasets cannot be mixed.
        """
        run = config.run
        problems: list[str] = []
        valid = {} if run.evaluate else _benchmarks(datasets, config, task, "valid", run.best_dataset, problems)
        test = _benchmarks(datasets, config, task, "test", None, problems)
        train = None if run.evaluate else _train(datasets, run, problems)
        for name in datasets:
            if not problems and not _is_used(name, datasets, run):
                problems.append(f"datasets.{name}: the run uses none of its splits; remove the dataset")
        if problems:
            raise ConfigError(problems, config.source)
        return cls(train, valid, test)

    def questions(self, config: Config) -> TrainedQuestions:
        """What the run evaluates the model with, for those who use the model later."""
        from lavis_emovit.evaluation.trained_questions import TrainedQuestions

        benchmarks = [*self.valid.values(), *self.test.values()]
        questions: list[TrainedQuestion] = []
        for benchmark in benchmarks:
            question = benchmark.data.question(benchmark.method)
            questions += [question] if question is not None and question not in questions else []
        named = next((one.data.settings.dataset for one in benchmarks if one.processors is not None), None)
        if named is None and benchmarks:
            named = _dataset_with_frames(config, benchmarks[0].data.settings.dataset)
        shows = {name: show for name, of in config.datasets.items() if (show := box_of(of)) is not None}
        named = named or next(iter(shows), None)
        dataset: Any = config.datasets.get(named) if named is not None else None
        image_processor = _eval_processor(dataset, "vis_processor")
        if image_processor is not None and shows and named not in shows:
            # Another dataset of the recipe has boxes.
            image_processor |= {"box": next(iter(shows.values())).model_dump(mode="json")}
        return TrainedQuestions(
            questions=tuple(questions),
            image_processor=image_processor,
            text_processor=_eval_processor(dataset, "text_processor"),
            num_beams=config.run.num_beams,
            min_length=config.run.min_len,
        )


def _dataset_with_frames(config: Config, dataset: str) -> str | None:
    """The dataset whose evaluation says which frames of clips are looked at: this one, or else the first that does."""
    own = [dataset] if dataset in config.datasets else []
    return next((name for name in (*own, *config.datasets) if _eval_frames(config.datasets[name]) is not None), None)


def _eval_frames(dataset: Any) -> FrameSettings | None:
    pair = getattr(dataset, "vis_processor", None)  # settings of custom datasets may have none
    frames: FrameSettings | None = getattr(getattr(pair, "eval", None), "frames", None)
    return frames


def _eval_processor(dataset: Any, key: str) -> dict[str, Any] | None:
    """Name and settings of a dataset's processor for evaluation; None if its settings have none, as custom ones may."""
    pair = getattr(dataset, key, None)
    return pair.eval.model_dump(mode="json") if pair is not None else None


def recipe_problems(run: RunSettings, datasets: Mapping[str, Settings]) -> list[str]:
    """What is wrong with datasets and benchmarks of a recipe, as far as its settings show; one line each."""
    names = list(datasets)
    problems = BestMetric.problems(run)
    for key, benchmarks in (("valid", run.valid_benchmarks), ("test", run.test_benchmarks)):
        for name, benchmark in benchmarks.items():
            if benchmark.dataset in datasets and benchmark.split == ALL_SPLITS and not run.evaluate:
                problems.append(
                    f"run.{key}_benchmarks.{name}.split: '{ALL_SPLITS}' includes the images that the run trains on; "
                    "name the split to evaluate"
                )
            if benchmark.dataset not in datasets:
                place = f"run.{key}_benchmarks.{name}"
                found: list[str] = []
                resolve_dataset(benchmark.dataset, benchmark.config, found, f"{place}.config")
                problems += [line.replace(".config: no dataset", ".dataset: no dataset") for line in found]
    if run.best_dataset is not None and run.best_dataset not in datasets:
        problems.append(
            f"run.best_dataset: the recipe has no dataset '{run.best_dataset}'{nearest_name(run.best_dataset, names)}"
        )
    ratios = run.train_dataset_ratios
    if ratios is not None:
        for name in ratios:
            if name not in datasets:
                problems.append(
                    f"run.train_dataset_ratios.{name}: the recipe has no such dataset{nearest_name(name, names)}"
                )
        problems += [
            f"run.train_dataset_ratios.{name}: missing; give each dataset its share, 0 for one that is only evaluated"
            for name in names
            if name not in ratios
        ]
    problems += _curriculum_problems(run, datasets)
    trained = [name for name in names if run.trains_on(name)]
    buckets = {name: getattr(datasets[name], "length_buckets", None) for name in trained}
    problems += [
        f"datasets.{name}.length_buckets: must be as that of '{trained[0]}', since their samples share steps"
        for name in trained
        if buckets[name] != buckets[trained[0]]
    ]
    return problems


def _curriculum_problems(run: RunSettings, datasets: Mapping[str, Settings]) -> Iterator[str]:
    for number, stage in enumerate(run.curriculum):
        for name, kind in stage.shares():
            place = f"run.curriculum.{number}.ratios.{name}"
            if name not in datasets:
                yield f"{place}: the recipe has no such dataset{nearest_name(name, list(datasets))}"
                continue
            kinds = getattr(datasets[name], "kinds", None)
            if kind is not None and kinds is not None and kind not in kinds:
                yield f"{place}.{kind}: datasets.{name}.kinds has {', '.join(kinds)} only; add it there"


def check_stages(run: RunSettings, datasets: Splits) -> None:
    """ConfigError if the run ends before its last stage begins; needs the number of training images only."""
    from lavis_emovit.runners.plan import Plan  # loads torch
    from lavis_emovit.shards.order import num_steps

    if (run.stages or run.curriculum) and run.max_steps is not None and not run.evaluate:
        train = _train(datasets, run, [])
        if train is not None:
            Plan(run, num_steps(len(train), run.global_batch_size)).check()


def check_images(datasets: Splits) -> None:
    """WeightsError if a model of one image would be shown several of a record; needs no weights."""
    from lavis_emovit.processors.base import ImageProcessor  # loads torch

    checked: list[Settings] = []
    for samples in (one for splits in datasets.values() for one in splits.values()):
        processor = getattr(samples, "image_processor", None)
        if isinstance(processor, ImageProcessor) and processor.settings not in checked:
            checked.append(processor.settings)
            # A copy, so that no process that reads images gets what the check loads.
            type(processor)(processor.settings).check_num_images()


def _train(datasets: Splits, run: RunSettings, problems: list[str]) -> Any:
    """The training split of one dataset, or the mixture of several, or of the kinds of their instructions."""
    from lavis_emovit.datasets.mixture import EmotionMixtureDataset  # loads torch and LAVIS; settings need neither

    (split,) = run.train_splits
    wanted = [name for name in datasets if run.trains_on(name)]
    present = [name for name in wanted if split in datasets[name]]
    if not present:
        problems += [_missing(split, datasets)]
        return None
    stages = run.ratio_stages
    if stages:
        key = "curriculum" if run.curriculum else "train_dataset_ratios"
        problems += [
            f"run.{key}.{name}: '{name}' has no split '{split}' to train on; its share must be 0"
            for name in wanted
            if name not in present
        ]
    shares = [stage.shares() for stage in stages] or [{(name, None): 1.0 for name in present}]
    parts = [
        part
        for part in dict.fromkeys(chain(*shares))
        if part[0] in present and any(share.get(part) for share in shares)
    ]
    if parts == [(present[0], None)] and run.epoch_size is None and run.drop_samples is None:
        return datasets[present[0]][split]
    curriculum = Curriculum([
        MixtureStage(stage.epochs, tuple(share.get(part, 0.0) for part in parts), stage.change == "linear")
        for stage, share in zip(stages, shares)
    ])  # fmt: skip
    try:
        mixture = EmotionMixtureDataset(
            [datasets[name][split] if kind is None else datasets[name][split].of_kind(kind) for name, kind in parts],
            ratios=curriculum if stages else None,
            epoch_size=run.epoch_size,
            names=[name if kind is None else f"{name}.{kind}" for name, kind in parts],
        )
    except DataError as error:
        problems.append(f"datasets: {error}")
        return None
    of_each = ", ".join(f"{name} ({len(part)})" for name, part in zip(mixture.names, mixture.datasets))
    logger.info("training on %s; %d images an epoch", of_each, len(mixture))
    return mixture


def _benchmarks(
    datasets: Splits, config: Config, task: EmotionTask, purpose: str, first: str | None, problems: list[str]
) -> dict[str, RunBenchmark]:
    """Name -> benchmark for the purpose `valid` or `test`; those on the dataset `first` come first."""
    given: Mapping[str, RunBenchmarkSettings] = getattr(config.run, f"{purpose}_benchmarks")
    if given:
        found = _opened(given, config, f"run.{purpose}_benchmarks", problems)
    else:
        found = _of_splits(datasets, getattr(config.run, f"{purpose}_splits"), task, problems)
    names = [name for name, benchmark in found.items() if benchmark.data.settings.dataset == first]
    if first is not None and found and not names and first in datasets:
        problems.append(f"run.best_dataset: no validation of this run is on '{first}'")
    return {name: found[name] for name in dict.fromkeys([*names, *found])}


def _opened(
    given: Mapping[str, RunBenchmarkSettings], config: Config, key: str, problems: list[str]
) -> dict[str, RunBenchmark]:
    from lavis_emovit.evaluation.suite.benchmark_data import open_benchmark

    found = {}
    for name, settings in given.items():
        try:
            data = open_benchmark(name, settings, config.datasets_cfg.get(settings.dataset))
        except (DataError, ConfigError) as error:
            problems.append(f"{key}.{name}: {error}")
            continue
        dataset = _dataset_with_frames(config, settings.dataset)
        frames = _eval_frames(config.datasets[dataset]) if dataset is not None else None
        found[name] = RunBenchmark(data, settings.scoring_method, frames=frames)
    return found


def _of_splits(
    datasets: Splits, splits: tuple[str, ...], task: EmotionTask, problems: list[str]
) -> dict[str, RunBenchmark]:
    """What the task evaluates on every split that there is."""
    from lavis_emovit.datasets.eval_dataset import EvaluatedSamples
    from lavis_emovit.evaluation.suite.benchmark_data import OpenBenchmark

    problems += [_missing(split, datasets) for split in splits if all(split not in held for held in datasets.values())]
    found = {}
    for split in splits:
        for dataset in datasets:
            samples = datasets[dataset].get(split)
            if samples is None:
                continue
            show = getattr(samples, "show", None)  # custom datasets may have none
            if not isinstance(samples, EvaluatedSamples):
                problems.append(f"run: split '{split}' of dataset '{dataset}' is a training split; it has no label set")
                continue
            name = split if len(datasets) == 1 else f"{dataset}-{split}"
            settings = task.benchmark(dataset, split, samples)
            found[name] = RunBenchmark(
                OpenBenchmark(name, settings, samples, samples.label_set, show=show),
                settings.scoring_method,
                (samples.image_processor, samples.text_processor),
            )
    return found


def _missing(split: str, datasets: Splits) -> str:
    if len(datasets) == 1:
        ((name, splits),) = datasets.items()
        return f"run: split '{split}' is not in dataset '{name}', which has {', '.join(splits)}"
    have = "; ".join(f"{name}: {', '.join(splits)}" for name, splits in datasets.items())
    return f"run: split '{split}' is in none of the datasets, which have {have}"


def _is_used(name: str, datasets: Splits, run: RunSettings) -> bool:
    benchmarks = [*run.test_benchmarks.values(), *(() if run.evaluate else run.valid_benchmarks.values())]
    if any(benchmark.dataset == name for benchmark in benchmarks):
        return True
    valid_splits = () if run.evaluate or run.valid_benchmarks else run.valid_splits
    test_splits = () if run.test_benchmarks else run.test_splits
    if any(split in datasets[name] for split in (*valid_splits, *test_splits)):
        return True
    return not run.evaluate and run.trains_on(name) and run.train_splits[0] in datasets[name]
