"""The benchmarks of a suite, opened: their shards, made where needed, and the items out of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lavis_emovit.emotion.labels import LabelSet
from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.evaluation import asking
from lavis_emovit.evaluation.adapters.base import Item
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings, label_set_of, truth_of
from lavis_emovit.evaluation.suite_settings import SuiteSettings
from lavis_emovit.runners import processes
from lavis_emovit.shards.faults import SampleFaultError
from lavis_emovit.shards.index import ShardIndex
from lavis_emovit.shards.reader import ShardReader


@dataclass(frozen=True)
class OpenBenchmark:
    """A benchmark whose data are on this machine.

    Attributes:
        name: in the tables.
        settings: what is asked.
        index: the shards of the split.
        train_index: the shards that baselines learn from, or None.
        label_set: what is asked with, or None for kinds without labels.
    """

    name: str
    settings: BenchmarkSettings
    index: ShardIndex
    train_index: ShardIndex | None
    label_set: LabelSet | None

    def numbers(self) -> Sequence[int]:
        """The samples that are asked about, in the order of the shards."""
        count = self.index.num_samples
        return range(count if self.settings.limit is None else min(count, self.settings.limit))

    def items(self, index: ShardIndex, numbers: Iterable[int]) -> Iterator[Item]:
        """Records that say what the benchmark asks for, with their pictures; the others are passed over."""
        reader = ShardReader(index)
        for number in numbers:
            sample = reader.read(number)
            truth = truth_of(sample.record, self.settings, self.label_set)
            if truth is not None:
                yield Item(sample.record, sample.image_bytes, truth)


def open_benchmarks(settings: SuiteSettings) -> tuple[dict[str, OpenBenchmark], dict[str, str]]:
    """The benchmarks of a suite, their shards made where they are not there yet.

    Returns:
        those that are here, and name -> reason for those that are not.

    Raises:
        ConfigError: a benchmark cannot be opened and `missing` is `refuse`; all of them are named.
    """
    found: dict[str, OpenBenchmark] = {}
    absent: dict[str, str] = {}
    for name, benchmark in settings.benchmarks.items():
        try:
            found[name] = _open(name, benchmark)
        except DataError as error:
            absent[name] = str(error)
    if absent and (settings.missing == "refuse" or not found):
        hint = "" if not found else " Set suite.missing=skip to evaluate the others."
        raise ConfigError(
            [f"suite.benchmarks.{name}: {reason}{hint}" for name, reason in absent.items()], f"suite '{settings.name}'"
        )
    return found, absent


def _open(name: str, settings: BenchmarkSettings) -> OpenBenchmark:
    from lavis.common.registry import registry

    builder_class = registry.get_builder_class(settings.dataset)
    if builder_class is None or not hasattr(builder_class, "settings_class"):
        raise DataError(f"no dataset '{settings.dataset}' of records is registered; `emovit data list` names them")
    builder = builder_class(settings.config or None)
    indexes = builder.prepare()
    if settings.split not in indexes:
        raise DataError(f"'{settings.dataset}' has no split '{settings.split}', it has {', '.join(indexes)}")
    index = ShardIndex.load(indexes[settings.split])
    train = indexes.get(settings.train_split) if settings.train_split is not None else None
    place = f"{index.folder}"
    return OpenBenchmark(
        name,
        settings,
        index,
        ShardIndex.load(train) if train is not None else None,
        label_set_of(settings, index.label_sets, place),
    )


class BenchmarkPictures:
    """Map-style dataset of prepared items; `None` for samples that are done or that the benchmark does not ask about.

    Args:
        model: prepares pictures; None leaves them as bytes.
    """

    def __init__(self, benchmark: OpenBenchmark, model: Any, done_records: frozenset[str]):
        self._benchmark, self._model, self._done = benchmark, model, done_records
        self._reader = ShardReader(benchmark.index)
        self.numbers = list(benchmark.numbers())

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, position: int) -> asking.Prepared | None:
        benchmark = self._benchmark
        try:
            sample = self._reader.read(self.numbers[position])
        except SampleFaultError as error:
            # A record that cannot be read cannot even be named in the table, so the benchmark would not be the same.
            raise DataError(f"{error} A benchmark is asked about whole or not at all.") from None
        if sample.record.id in self._done:
            return None
        truth = truth_of(sample.record, benchmark.settings, benchmark.label_set)
        if truth is None:
            return None
        item = Item(sample.record, sample.image_bytes, truth)
        return asking.Prepared(item) if self._model is None else asking.prepare(item, self._model)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__


def picture_batches(pictures: BenchmarkPictures, settings: SuiteSettings) -> Any:
    """Batches of this rank: every world-size-th one, so that the rows of a round of all ranks stand in order."""
    from torch.utils.data import DataLoader

    rank, world_size, size = processes.rank(), processes.world_size(), settings.batch_size
    starts = range(rank * size, len(pictures), world_size * size)
    batches = [list(range(start, min(start + size, len(pictures)))) for start in starts]
    return DataLoader(
        pictures,  # type: ignore[arg-type]
        batch_sampler=batches,
        num_workers=settings.num_workers,
        collate_fn=_without_none,
    )


def _without_none(items: list[asking.Prepared | None]) -> list[asking.Prepared]:
    return [item for item in items if item is not None]
