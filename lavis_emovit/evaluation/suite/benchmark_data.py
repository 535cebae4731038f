"""The data of benchmarks: their shards, made if needed, and the items in them, in batches."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

import torch
from omegaconf import OmegaConf
from torch.utils.data import DataLoader, Dataset

from lavis_emovit.boxes import ONE_IMAGE, SET_BOX, BoxSettings, shows_both, shows_whole
from lavis_emovit.distributed import heartbeat, processes
from lavis_emovit.distributed.workers import ignore_stop_signals, unchanged
from lavis_emovit.emotion.answer_options import MOST_LETTERS
from lavis_emovit.emotion.labels import LabelSet, coarser_label
from lavis_emovit.emotion.wheels import emotion_wheels
from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.evaluation.adapters.base import Item, LanguageModel
from lavis_emovit.evaluation.benchmarks import (
    ALL_SPLITS,
    OWN_KINDS,
    BenchmarkSettings,
    Method,
    label_set_of,
    record_subject,
)
from lavis_emovit.evaluation.suite.requests import Prepared, prepare_batch
from lavis_emovit.evaluation.suite_settings import SuiteSettings
from lavis_emovit.evaluation.trained_questions import TrainedQuestion, trained_question
from lavis_emovit.evaluation.truths import label_in, truth_of
from lavis_emovit.progress import progress
from lavis_emovit.recipes import box_of
from lavis_emovit.registered import ADD_DATASET
from lavis_emovit.settings import merge_settings
from lavis_emovit.shards.index import ShardIndex
from lavis_emovit.shards.reader import SampleFaultError, ShardReader, ShardSample

logger = logging.getLogger(__name__)


class Samples(Protocol):
    """Records with image bytes, by number."""

    def __len__(self) -> int: ...

    def read(self, sample: int, /) -> ShardSample: ...


class JoinedSamples:
    """The samples of several splits, one split after the other."""

    def __init__(self, parts: Sequence[Samples]):
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def read(self, sample: int) -> ShardSample:
        for part in self._parts:
            if sample < len(part):
                return part.read(sample)
            sample -= len(part)
        raise IndexError(sample)


@dataclass(frozen=True)
class OpenBenchmark:
    """A benchmark whose data are available; the hashes identify its samples and those that baselines learn from.

    Attributes:
        show: what models see of records with a box; None: the whole image.
    """

    name: str
    settings: BenchmarkSettings
    samples: Samples
    label_set: LabelSet | None  # of the answers; None for kinds without labels
    train_samples: Samples | None = None
    data_hash: str = ""
    train_hash: str | None = None
    show: BoxSettings | None = None

    def numbers(self) -> Sequence[int]:
        """The samples of the benchmark, in the order of the shards."""
        count = len(self.samples)
        return range(count if self.settings.limit is None else min(count, self.settings.limit))

    def items(self, numbers: Iterable[int] | None = None) -> Iterator[Item]:
        """The records of all or some samples with what is true about them; records without it are skipped.

        Raises:
            DataError: a sample cannot be read.
        """
        yield from self._items(self.samples, self.numbers() if numbers is None else numbers)

    @functools.cached_property
    def has_clips(self) -> bool:
        """Whether its first record is a clip."""
        first = next(self.items(), None)
        return first is not None and first.record.clip is not None

    @functools.cached_property
    def has_boxes(self) -> bool:
        """Whether its first record is about a part of its image."""
        first = next(self.items(), None)
        return first is not None and first.record.box is not None

    @property
    def why_not_one_image(self) -> str | None:
        """Why what takes one image for a record cannot be evaluated on it; None if it can."""
        key = f"suite.benchmarks.{self.name}.config.vis_processor.eval.box"
        return f"{ONE_IMAGE} ({key})" if shows_both(self.show) else None

    def image_items(self, numbers: Iterable[int]) -> Iterator[Item]:
        """As `items`, for programs that read no clips; also DataError for a clip."""
        for item in self.items(numbers):
            if item.record.clip is not None:
                place = f"suite.benchmarks.{self.name}: record '{item.record.id}'"
                raise DataError(f"{place} is a clip, and only images can be exported; leave this benchmark out")
            yield item

    def question(self, method: Method) -> TrainedQuestion | None:
        """The question to ask about other images too; None if only the records have it."""
        settings = self.settings
        if settings.subject is None and (first := next(self.items(), None)) is not None:
            own = self.label_set.name if self.label_set else None
            settings = settings.model_copy(update={"subject": record_subject(first.record, own)})
        return trained_question(settings, method, self.label_set)

    def train_items(self) -> Iterator[Item]:
        """The records that baselines learn from; none without a training split."""
        yield from self._items(self.train_samples, range(len(self.train_samples))) if self.train_samples else ()

    def _items(self, samples: Samples, numbers: Iterable[int]) -> Iterator[Item]:
        for number in numbers:
            try:
                sample = samples.read(number)
            except SampleFaultError as error:
                # A row needs the id of its record. Without the row this would be another benchmark.
                raise DataError(f"{error} A benchmark needs all of its samples.") from None
            truth = truth_of(sample.record, self.settings, self.label_set)
            if truth is not None:
                yield Item(sample.record, sample.image_bytes, truth, self.show)


def open_benchmarks(settings: SuiteSettings) -> tuple[dict[str, OpenBenchmark], dict[str, str]]:
    """The available benchmarks of a suite, and name -> reason for the others; missing shards are made.

    Raises:
        ConfigError: a benchmark cannot be opened and `missing` is `refuse`; names all of them.
    """
    found: dict[str, OpenBenchmark] = {}
    missing: dict[str, str] = {}
    for name, benchmark in settings.benchmarks.items():
        try:
            found[name] = open_benchmark(name, benchmark)
        except DataError as error:
            # Advice about a dataset names the keys of recipes that train.
            key, train_key = f"suite.benchmarks.{name}.config", f"datasets.{benchmark.dataset}"
            missing[name] = str(error).replace(f"--options {train_key}.", f"--options {key}.")
    if missing and (settings.missing == "refuse" or not found):
        hint = "" if not found else " Set suite.missing=skip to evaluate the others."
        problems = [f"suite.benchmarks.{name}: {reason}{hint}" for name, reason in missing.items()]
        raise ConfigError(problems, f"suite '{settings.name}'")
    return found, missing


def open_benchmark(
    name: str, settings: BenchmarkSettings, dataset_config: Mapping[str, Any] | None = None
) -> OpenBenchmark:
    """Open one benchmark; missing shards are made. `settings.config` overrides `dataset_config`.

    Raises:
        DataError: there are no such data, or no record has what the benchmark needs.
    """
    from lavis.common.registry import registry

    builder_class = registry.get_builder_class(settings.dataset)
    if not hasattr(builder_class, "prepare"):
        raise DataError(
            f"no dataset '{settings.dataset}' of records is registered; `emovit data list` names them. {ADD_DATASET}"
        )
    config = merge_settings(OmegaConf.create(dict(dataset_config or {})), settings.config, f"{name}.config")
    builder = builder_class(config or None)
    indexes = builder.prepare()
    is_whole = settings.split == ALL_SPLITS and ALL_SPLITS not in indexes
    if settings.split not in indexes and not is_whole:
        names = ", ".join(indexes)
        raise DataError(
            f"'{settings.dataset}' has no split '{settings.split}', it has {names}; '{ALL_SPLITS}' takes all of them"
        )
    parts = [ShardIndex.load(indexes[split]) for split in (indexes if is_whole else [settings.split])]
    if is_whole:
        # Nothing is left to learn from.
        indexes = {}
    # Only the default may be missing: many benchmarks have only a test split.
    if not is_whole and settings.train_split not in (None, "train", *indexes):
        raise DataError(f"'{settings.dataset}' has no split '{settings.train_split}', it has {', '.join(indexes)}")
    train_index = ShardIndex.load(indexes[settings.train_split]) if settings.train_split in indexes else None
    label_sets = list(dict.fromkeys(name for index in parts for name in index.label_sets))
    label_set = label_set_of(settings, label_sets, str(parts[0].folder))
    if label_set is not None:
        _check_labels(settings, parts, label_set)
    readers, show = [ShardReader(index) for index in parts], box_of(getattr(builder, "settings", None))
    warn_of_boxes(name, readers, show)
    if any(variant.marks == "letters" for variant in settings.variants):
        _check_letters(settings, readers, label_set)
    hashes = [index.hash for index in parts]
    opened = OpenBenchmark(
        name,
        settings,
        readers[0] if len(readers) == 1 else JoinedSamples(readers),
        label_set,
        ShardReader(train_index) if train_index is not None else None,
        hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest(),
        train_index.hash if train_index is not None else None,
        show,
    )
    if settings.kind == "words":
        _check_wheels(opened)
    first = next(opened.items(), None)
    if first is None:
        raise DataError(
            f"none of the {len(opened.numbers())} records of '{settings.dataset}' ({settings.split}) has "
            f"{_TRUTHS.get(settings.kind, ' and '.join(settings.axes))}; choose another `kind`, `split` or dataset"
        )
    if settings.subject is None:
        # Action units are always those of a face; captions and questions of records themselves have no subject.
        has_subject = settings.kind not in ("action_units", "caption", "instruction", *OWN_KINDS)
        of_records = label_sets[0] if len(label_sets) == 1 else None
        subject = record_subject(first.record, of_records) if has_subject else "picture"
        opened = replace(opened, settings=settings.model_copy(update={"subject": subject}))
    return opened


def warn_of_boxes(name: str, readers: Iterable[ShardReader], show: BoxSettings | None) -> None:
    """Warn about records whose image is shown whole although it has several people, or they have no box for a crop.

    Remote shards are not read for it.
    """
    is_whole = shows_whole(show)
    for reader in readers if (is_whole or shows_both(show)) and processes.is_main() else ():
        if reader.index.cache is None:
            problem = reader.box_counts(range(len(reader))).problem(show)
            if problem is not None:
                advice = f"; {SET_BOX}" if is_whole else ""
                logger.warning("%s: %s%s (docs/datasets.md)", name, problem, advice)


def _check_wheels(benchmark: OpenBenchmark) -> None:
    """Raise DataError if a wheel of the user, or every packaged one, has none of the words of the first records."""
    wheels = emotion_wheels(benchmark.settings.wheels)
    items = islice(benchmark.items(), _NUM_CHECKED)
    labels = list(dict.fromkeys(label for item in items for label in item.truth.labels or ()))
    words = [word for label in labels if (word := wheels.word(label)) is not None]
    blank = [name for name in wheels.wheels if labels and not wheels.clusters(words, name)]
    if blank and (benchmark.settings.wheels is not None or len(blank) == len(wheels.wheels)):
        place = benchmark.settings.wheels or "the wheels of this package"
        raise DataError(
            f"{place}: {', '.join(blank)} has no word of '{benchmark.settings.dataset}' (such as "
            f"{', '.join(labels[:5])}). Add these words to its clusters, or remove the wheel from the file."
        )


def _check_letters(settings: BenchmarkSettings, readers: Sequence[ShardReader], label_set: LabelSet | None) -> None:
    """Raise DataError if a question, or the label set, has more options than there are letters."""
    if settings.kind != "choice":
        assert label_set is not None, "the other kinds with marks list labels"
        _refuse_more_than_letters(len(label_set.labels), f"label set '{label_set.name}'")
        return
    numbers = ((reader, number) for reader in readers for number in range(len(reader)))
    for reader, number in islice(numbers, settings.limit):
        record = reader.read_record(number)
        for place, question in enumerate(record.questions):
            name = f"'{settings.dataset}', record '{record.id}', question '{question.id or place}'"
            _refuse_more_than_letters(len(question.options or ()), name)


def _refuse_more_than_letters(count: int, place: str) -> None:
    if count > MOST_LETTERS:
        raise DataError(f"{place}: {count} options are too many for letters; set option_marks: [numbers]")


_NUM_CHECKED = 1000
_TRUTHS = {
    "emotion": "an emotion in these labels",
    "explanation": "an emotion in these labels",
    "labels": "a label of this set",
    "action_units": "action units",
    "caption": "a caption",
    "choice": "a question with options (`questions`)",
    "statement": "a statement (`statements`)",
    "vqa": "a question with answers of people and without options (`questions`)",
    "words": "a word of emotion (`words`, `labels` or `emotion`)",
    "ranking": "a ranking in these labels (`ranking`)",
    "instruction": "an instruction of this kind (`emovit generate` writes them; `--split` chooses the images)",
}


def _check_labels(settings: BenchmarkSettings, parts: Sequence[ShardIndex], label_set: LabelSet) -> None:
    """Raise DataError if a label of the records or of a coarser set has no place."""
    for index in parts:
        for label, count in index.label_histogram.items() if len(index.label_sets) == 1 else ():
            if count:
                label_in(label, index.label_sets[0], label_set)
    for coarser in settings.coarser:
        for label in label_set.labels:
            coarser_label(label, label_set.name, coarser)


class ImageBatches(Dataset[Any]):
    """The batches of a benchmark, split over the ranks: rank r gets every batch r, r + ranks, r + 2 ranks, ...

    The model prepares images; without one they stay bytes. `done_records` are ids of records that need no more answers.
    A batch that is done in part is made again whole, so that a resumed evaluation passes the same batches to the model.
    """

    def __init__(
        self,
        benchmark: OpenBenchmark,
        model: LanguageModel | None,
        *,
        batch_size: int,
        num_workers: int = 0,
        done_records: frozenset[str] = frozenset(),
    ):
        self._benchmark, self._model, self._done = benchmark, model, done_records
        self._size, self._num_workers = batch_size, num_workers
        self._numbers = benchmark.numbers()

    def __len__(self) -> int:
        return -(-len(self._numbers) // self._size)

    def __getitem__(self, number: int) -> list[Prepared] | DataError:
        """A batch, or the error, because a loader would bury its text in a traceback of its process."""
        try:
            items = list(self._benchmark.items(self._numbers[number * self._size : (number + 1) * self._size]))
        except DataError as error:
            return error
        if all(item.record.id in self._done for item in items):
            return []
        if self._model is None:
            return [Prepared(item) for item in items]
        return prepare_batch(items, self._model, join_pairs=self._benchmark.settings.join_pairs)

    def rounds(self, label: str, every: int = 10) -> Iterator[list[Prepared]]:
        """The batches of this rank, with a progress line; on plain output, a line for `every` so many batches.

        All ranks get the same number: empty lists take the place of missing batches and of those that are done.

        Raises:
            DataError: a sample cannot be read.
        """
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=range(processes.rank(), len(self), processes.world_size()),
            num_workers=self._num_workers,
            collate_fn=unchanged,
            # Without its own generator a loader draws from torch's global one, which training uses.
            generator=torch.Generator(),
            worker_init_fn=ignore_stop_signals,
        )
        source = iter(loader)
        num_rounds = -(-len(self) // processes.world_size())
        with progress(label, max(1, num_rounds), every=every) as line:
            for _ in range(num_rounds):
                heartbeat.note("evaluating")
                batch: list[Prepared] | DataError = next(source, [])
                if isinstance(batch, DataError):
                    raise batch
                yield batch
                line.advance()
