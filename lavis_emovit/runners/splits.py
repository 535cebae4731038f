"""The splits of a recipe's datasets: those that are trained on together, and those that are evaluated one by one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.settings import Settings, nearest_name

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecipeSplits:
    """What a run trains on and evaluates.

    A split's name is its own (`test`) where the recipe has one dataset; with several the dataset's stands before it
    (`emoset-test`). Metrics, the log and prediction files go by these names.

    Attributes:
        train: one dataset, or the mixture of several; None for a run that only evaluates.
        valid: name -> dataset; the first of them chooses the best checkpoint.
        test: name -> dataset.
    """

    train: Any
    valid: Mapping[str, Any]
    test: Mapping[str, Any]

    @classmethod
    def of(cls, datasets: Mapping[str, Mapping[str, Any]], run: RunSettings, source: str) -> RecipeSplits:
        """Choose and mix the splits of a recipe.

        Args:
            datasets: dataset name -> split -> dataset, as `task.build_datasets` gives them.
            run: which splits, in which ratios.
            source: the recipe, for messages.

        Raises:
            ConfigError: a split that is asked for is in no dataset or cannot be evaluated, a dataset is of no use, or
                the datasets cannot be mixed.
        """
        problems: list[str] = []
        valid = {} if run.evaluate else _evaluated(datasets, run.valid_splits, run.best_dataset, problems)
        test = _evaluated(datasets, run.test_splits, None, problems)
        train = None if run.evaluate else _train(datasets, run, problems)
        for name in datasets:
            if not problems and not _is_used(name, datasets, run):
                problems.append(f"datasets.{name}: none of the run's splits is in it, so it is of no use; leave it out")
        if problems:
            raise ConfigError(problems, source)
        return cls(train, valid, test)


def mixture_problems(run: RunSettings, datasets: Mapping[str, Settings]) -> list[str]:
    """What is wrong with how a recipe puts datasets together, as far as its settings tell; one line each."""
    names = list(datasets)
    problems = []
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
    trained = [name for name in names if ratios is None or ratios.get(name)]
    buckets = {name: getattr(datasets[name], "length_buckets", None) for name in trained}
    problems += [
        f"datasets.{name}.length_buckets: must be as that of '{trained[0]}', since their samples share steps"
        for name in trained
        if buckets[name] != buckets[trained[0]]
    ]
    return problems


def _train(datasets: Mapping[str, Mapping[str, Any]], run: RunSettings, problems: list[str]) -> Any:
    from lavis_emovit.datasets.mixture import EmotionMixtureDataset  # loads torch and LAVIS; settings are read without

    (split,) = run.train_splits
    ratios = run.train_dataset_ratios
    wanted = [name for name in datasets if ratios is None or ratios.get(name, 0) > 0]
    present = [name for name in wanted if split in datasets[name]]
    if not present:
        problems += [_missing(split, datasets)]
        return None
    if ratios is not None:
        problems += [
            f"run.train_dataset_ratios.{name}: '{name}' has no split '{split}' to train on; its share must be 0"
            for name in wanted
            if name not in present
        ]
    parts = [datasets[name][split] for name in present]
    if len(parts) == 1 and run.epoch_size is None:
        return parts[0]
    shares = [ratios[name] for name in present] if ratios is not None else None
    try:
        mixture = EmotionMixtureDataset(parts, ratios=shares, epoch_size=run.epoch_size, names=present)
    except DataError as error:
        problems.append(f"datasets: {error}")
        return None
    of_each = [
        f"{name} ({len(part)}{f', share {ratios[name]:g}' if ratios else ''})" for name, part in zip(present, parts)
    ]
    logger.info("training on %s; %d pictures an epoch", ", ".join(of_each), len(mixture))
    return mixture


def _evaluated(
    datasets: Mapping[str, Mapping[str, Any]], splits: tuple[str, ...], first: str | None, problems: list[str]
) -> dict[str, Any]:
    """Name -> dataset of every split that there is; those of the dataset `first` come first."""
    problems += [_missing(split, datasets) for split in splits if all(split not in held for held in datasets.values())]
    places = [(name, split) for split in splits for name in datasets if split in datasets[name]]
    problems += [
        f"run: split '{split}' of dataset '{name}' is there to train on: it has no labels to choose from"
        for name, split in places
        if getattr(datasets[name][split], "label_set", None) is None
    ]
    if first is not None and splits and all(name != first for name, _ in places):
        problems.append(f"run.best_dataset: '{first}' has none of run.valid_splits ({', '.join(splits)})")
    places.sort(key=lambda place: place[0] != first)
    return {split if len(datasets) == 1 else f"{name}-{split}": datasets[name][split] for name, split in places}


def _missing(split: str, datasets: Mapping[str, Mapping[str, Any]]) -> str:
    if len(datasets) == 1:
        ((name, splits),) = datasets.items()
        return f"run: split '{split}' is not in dataset '{name}', which has {', '.join(splits)}"
    have = "; ".join(f"{name}: {', '.join(splits)}" for name, splits in datasets.items())
    return f"run: split '{split}' is in none of the datasets, which have {have}"


def _is_used(name: str, datasets: Mapping[str, Mapping[str, Any]], run: RunSettings) -> bool:
    evaluated = run.test_splits if run.evaluate else (*run.valid_splits, *run.test_splits)
    if any(split in datasets[name] for split in evaluated):
        return True
    ratios = run.train_dataset_ratios
    is_trained = ratios is None or ratios.get(name, 0) > 0
    return not run.evaluate and is_trained and run.train_splits[0] in datasets[name]
