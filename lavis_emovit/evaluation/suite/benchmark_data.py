"""The benchmarks of a suite, opened: their shards, made where needed, and the items out of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lavis_emovit.distributed import processes
from lavis_emovit.emotion.labels import LabelSet, coarser_label
from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.evaluation.adapters.base import Item
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings, label_in, label_set_of, truth_of
from lavis_emovit.evaluation.suite import requests as asking
from lavis_emovit.evaluation.suite.settings import SuiteSettings
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

    def asked(self) -> Iterator[Item]:
        """The items that are asked about."""
        return self.items(self.index, self.numbers())

    def learnt(self) -> Iterator[Item]:
        """The items that baselines learn from; nothing without a training split."""
        if self.train_index is not None:
            yield from self.items(self.train_index, range(self.train_index.num_samples))

    def items(self, index: ShardIndex, numbers: Iterable[int]) -> Iterator[Item]:
        """Records that say what the benchmark asks for, with their pictures; the others are passed over.

        Raises:
            DataError: a sample cannot be read. It cannot even be named in a table, so the benchmark would be another.
        """
        reader = ShardReader(index)
        for number in numbers:
            try:
                sample = reader.read(number)
            except SampleFaultError as error:
                raise DataError(f"{error} A benchmark is asked about whole or not at all.") from None
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
            # Advice about a dataset speaks of the recipes of training; here its settings stand below the benchmark's.
            absent[name] = str(error).replace(
                f"--options datasets.{benchmark.dataset}.", f"--options suite.benchmarks.{name}.config."
            )
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
    # Only the default may be missing: many benchmarks are nothing but a test split.
    if settings.train_split not in (None, "train", *indexes):
        raise DataError(f"'{settings.dataset}' has no split '{settings.train_split}', it has {', '.join(indexes)}")
    train = indexes.get(settings.train_split) if settings.train_split is not None else None
    opened = OpenBenchmark(
        name,
        settings,
        index,
        ShardIndex.load(train) if train is not None else None,
        label_set_of(settings, index.label_sets, str(index.folder)),
    )
    if opened.label_set is not None and len(index.label_sets) == 1:
        for label, count in index.label_histogram.items():
            if count:
                label_in(label, index.label_sets[0], opened.label_set)
    if opened.label_set is not None:
        for coarser in settings.coarser:
            for label in opened.label_set.labels:
                coarser_label(label, opened.label_set.name, coarser)
    if next(opened.asked(), None) is None:
        raise DataError(
            f"none of the {len(opened.numbers())} records of '{settings.dataset}' ({settings.split}) that it would ask "
            f"about says {_TRUTHS[settings.kind]}; choose another `kind`, `split` or dataset"
        )
    return opened


_TRUTHS = {
    "emotion": "its emotion in these labels",
    "explanation": "its emotion in these labels",
    "valence_arousal": "both valence and arousal",
    "action_units": "action units",
    "caption": "anything",
}


class BenchmarkBatches:
    """Map-style dataset whose items are batches of prepared items; an empty one where all of it is done.

    A batch that is done in part is made again whole, so that a run that was stopped puts the same batches to the model
    as one that was not. What is wrong with the data comes as a value: raised in a loader's process, its text would be
    buried in a traceback.

    Args:
        model: prepares pictures; None leaves them as bytes.
        done_records: ids of the records whose rows are all there.
        size: samples of a batch.
    """

    def __init__(self, benchmark: OpenBenchmark, model: Any, done_records: frozenset[str], size: int):
        self._benchmark, self._model, self._done, self._size = benchmark, model, done_records, size
        self._numbers = benchmark.numbers()

    def __len__(self) -> int:
        return -(-len(self._numbers) // self._size)

    def __getitem__(self, number: int) -> list[asking.Prepared] | DataError:
        benchmark = self._benchmark
        numbers = self._numbers[number * self._size : (number + 1) * self._size]
        try:
            items = list(benchmark.items(benchmark.index, numbers))
        except DataError as error:
            return error
        if all(item.record.id in self._done for item in items):
            return []
        return [asking.Prepared(item) if self._model is None else asking.prepare(item, self._model) for item in items]


class Batches(Protocol):
    """Batches whose number is known; what is wrong with the data stands in the place of a batch."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[list[asking.Prepared] | DataError]: ...


def picture_batches(
    benchmark: OpenBenchmark, model: Any, done_records: frozenset[str], settings: SuiteSettings
) -> Batches:
    """Batches of this rank: every world-size-th one, so that the rows of a round of all ranks stand in order."""
    from torch.utils.data import DataLoader

    size = max(settings.batch_size, getattr(model, "pictures_at_once", 0))
    batches = BenchmarkBatches(benchmark, model, done_records, size)
    return DataLoader(  # type: ignore[return-value]
        batches,  # type: ignore[arg-type]
        batch_size=None,
        sampler=range(processes.rank(), len(batches), processes.world_size()),
        num_workers=settings.num_workers,
        collate_fn=_as_it_is,
    )


def _as_it_is(batch: Any) -> Any:
    return batch
