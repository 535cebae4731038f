"""What a model must offer to be evaluated: the protocol of a language model, or of a baseline, which reads no question.

A module in this folder adds an adapter by registering its settings and how it is opened; the settings of suites then
know it. Modules elsewhere may register adapters too, if they are imported before a suite is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, get_args, runtime_checkable

from lavis_emovit.boxes import ONE_IMAGE, Box, BoxSettings, bytes_of_pair, pair_bytes, shown_bytes
from lavis_emovit.clips.clip import Clip
from lavis_emovit.emotion.labels import LabelSet
from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings, Kind, Method
from lavis_emovit.evaluation.questions import Question
from lavis_emovit.evaluation.truths import Truth
from lavis_emovit.records import EmotionRecord
from lavis_emovit.registered import import_modules
from lavis_emovit.settings import Settings


@dataclass(frozen=True)
class Item:
    """A record of a benchmark with its encoded image and what is true about it.

    Attributes:
        show: what models see of a record with a box; None: the whole image.
    """

    record: EmotionRecord
    image_bytes: bytes
    truth: Truth
    show: BoxSettings | None = None

    def images(self, *, join_pairs: bool = False) -> list[bytes]:
        """The encoded images that a model sees that takes several, two of a pair. DataError as in `shown`."""
        if self.record.pair is None or join_pairs:
            return [self.shown()]
        return bytes_of_pair(self.image_bytes, self.record.pair)

    def shown(self) -> bytes:
        """The encoded image that models see, of a clip all of it; with `box: both` and of a pair the two in one.

        Raises:
            DataError: the box has no area in the image.
        """
        if self.record.clip is not None:
            return self.image_bytes
        if self.record.pair is not None:
            return pair_bytes(self.image_bytes, self.record.pair)
        return shown_bytes(self.image_bytes, self.record.box, self.show)


@dataclass(frozen=True)
class Failure:
    """Takes the place of an answer that could not be made. It counts as an error, not as a wrong answer."""

    reason: str


class EvaluatedModel(Protocol):
    """What all models have."""

    def close(self) -> None:
        """Release what the model holds besides memory."""
        return

    def identity(self) -> dict[str, Any]:
        """What decides its answers, as plain values: names and hashes of weights, settings."""
        ...


@runtime_checkable
class LanguageModel(EvaluatedModel, Protocol):
    """A model that answers questions about images; adapters inherit from this class.

    Attributes:
        methods: the scoring methods that it supports.
        decoding: what a prompt may decide about its written answers, such as `num_beams`.
        images_at_once: number of images in a batch that it needs to be fast; 0: any.
        scores_any_text: whether `score` takes a single candidate of any length, such as a reference answer.
        reads_both: whether it takes a whole image and a crop of it together, see `prepare_both`.
        reads_pairs: whether it takes the two images of a record with a `pair` in one message, see `prepare_pair`.
        tuned_show: what it was tuned to see of records with a box; None: it was not, or on whole images.
    """

    methods: frozenset[Method]
    decoding: frozenset[str] = frozenset()
    scores_any_text: bool = True
    reads_both: bool = False
    reads_pairs: bool = False
    tuned_show: BoxSettings | None = None

    def facts(self) -> dict[str, str]:
        """What a reader of the numbers must know about the model besides its name: fact -> value, for a table."""
        return {}

    @property
    def images_at_once(self) -> int:
        return 0

    def prepare(self, image_bytes: bytes) -> Any:
        """An image as `score` and `write` take it; called in the processes of a loader.

        Raises:
            DataError: the image cannot be decoded.
        """
        ...

    def prepare_both(self, data: bytes, box: Box | None, show: BoxSettings) -> Any:
        """The whole image and the crop of a record with `box: both`, as `score` and `write` take them.

        Raises:
            DataError: the image cannot be decoded, the box has no area in it, or the model takes one image.
        """
        raise DataError(ONE_IMAGE)

    def prepare_pair(self, data: bytes, pair: Sequence[Box]) -> Any:
        """The two images of a record with a `pair`, in order, as `score` and `write` take them.

        Raises:
            DataError: the image cannot be decoded, a box has no area in it, or the model takes one image.
        """
        raise DataError("it takes one image in a message")

    def prepare_clip(
        self, data: bytes, clip: Clip, box: Box | None = None, show: BoxSettings | None = None
    ) -> tuple[Any, tuple[float, ...] | None]:
        """A clip as `score` and `write` take it, and the presentation times of its frames in seconds.

        Args:
            box, show: of a record with a box, and what is shown of it.

        Raises:
            DataError: it cannot be decoded, or the model reads only images.
        """
        raise DataError("it is a clip, but this model reads only images")

    def still_at_each_frame(self, clip: Any, num_frames: int) -> list[Any]:
        """Copies of a prepared clip; in number n, frame n shows what the one before it shows, the first what the second
        shows; with `box: both`, its crop too. None from a model that reads only images, or that cannot exchange these
        frames.
        """
        return []

    def score(
        self, images: Sequence[Any], image_index: Sequence[int], questions: Sequence[Question], method: Method
    ) -> Sequence[list[float] | str | Failure]:
        """Log-scores of the candidates of N questions with the same candidates and the same answer prefix.

        A text instead of scores is what the model wrote although it was asked for a candidate; it is an invalid answer.

        Args:
            images: B prepared images.
            image_index: the image of each question.
            method: how the log-probabilities of a candidate's tokens become its score.
        """
        ...

    def write(
        self, images: Sequence[Any], image_index: Sequence[int], questions: Sequence[Question]
    ) -> list[str | Failure]:
        """Written answers, one for each of N questions with the same `max_new_tokens` and `decoding`."""
        ...


@runtime_checkable
class Baseline(EvaluatedModel, Protocol):
    """A model that predicts labels or values directly; adapters inherit from this class."""

    kinds: frozenset[Kind]
    learns: bool  # whether it needs a training split
    reads_images: bool = True  # and then no clips

    def fit(self, items: Iterable[Item], benchmark: BenchmarkSettings, label_set: LabelSet | None) -> None:
        """Learn from the items of the training split; there are none for a baseline that does not learn.

        Raises:
            DataError: there is nothing to learn from.
        """
        ...

    def predict(self, items: Sequence[Item]) -> list[dict[str, float]]:
        """For each item: label -> log-probability, or name -> value (see `Truth`)."""
        ...


@dataclass(frozen=True)
class ModelPlace:
    """Where a suite opens a model: its name there, the folder of the suite, and the folder that suites share."""

    name: str
    folder: Path
    cache_dir: Path


@dataclass(frozen=True)
class Adapter:
    """A kind of model that suites can evaluate."""

    settings: type[Settings]  # of an entry in `suite.models`; its field `adapter` is a Literal of the adapter's names
    open: Callable[[Any, ModelPlace], LanguageModel | Baseline]


SettingsT = TypeVar("SettingsT", bound=Settings)
_ADAPTERS: dict[str, Adapter] = {}


def register_adapter(
    settings: type[SettingsT], open_model: Callable[[SettingsT, ModelPlace], LanguageModel | Baseline]
) -> None:
    """Make an adapter known under the names that its settings have as `adapter`. ValueError if a name is taken."""
    for name in get_args(settings.model_fields["adapter"].annotation):
        if name in _ADAPTERS:
            raise ValueError(f"an adapter '{name}' is registered already; choose another name")
        _ADAPTERS[name] = Adapter(settings, open_model)


def adapters() -> Mapping[str, Adapter]:
    """All registered adapters by name."""
    import_modules(__package__)
    return _ADAPTERS
