"""Evaluation items from shards: an image and the categorical question, the same for every image."""

from __future__ import annotations

import os
from typing import Any, Protocol, runtime_checkable

from lavis_emovit.datasets.shard_dataset import EmotionShardDataset, Pair
from lavis_emovit.emotion.labels import LabelSet, get_label_set, subject_of
from lavis_emovit.emotion.questions import categorical_answer, categorical_prompt
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord
from lavis_emovit.shards.index import ShardIndex
from lavis_emovit.shards.reader import ShardSample


@runtime_checkable
class EvaluatedSamples(Protocol):
    """What an evaluation needs of a dataset."""

    label_set: LabelSet  # its labels are the candidates
    wording: int  # of the question
    image_processor: Any  # called on every image
    text_processor: Any  # called on every question

    def __len__(self) -> int: ...

    def read(self, number: int, /) -> ShardSample: ...


class EmotionEvalDataset(EmotionShardDataset):
    """The labelled samples, each with one pair: the categorical question, with options in the label set's order.

    Args:
        label_set: name of the label set; None: the one that the records name. Its labels are the candidates.

    Raises:
        DataError: no sample has an emotion, or the label set is ambiguous or does not fit.
    """

    label_set: LabelSet

    def __init__(
        self,
        index: ShardIndex | str | os.PathLike[str],
        image_processor: Any,
        text_processor: Any,
        *,
        seed: int = 0,
        label_set: str | None = None,
        wording: int = 1,
        verify_hashes: bool = False,
    ):
        super().__init__(index, image_processor, text_processor, seed=seed, verify_hashes=verify_hashes)
        names = [label_set] if label_set is not None else list(self.index.label_sets)
        if len(names) != 1:
            found = f"its records name the label sets {', '.join(names) or 'none'}"
            raise DataError(
                f"{self.index.folder}: {found}; choose one for the question with `label_set` of the dataset"
            )
        self.label_set = get_label_set(names[0])
        for label in self.index.labels:
            self.label_set.canonical(label)
        self.wording = wording
        about = subject_of(next(iter(self.index.label_sets), None) or names[0])
        self.question = text_processor(categorical_prompt(self.label_set, wording=wording, about=about))

    def _choose_samples(self) -> Any:
        return self.index.samples_with(labelled=True)

    def _needed(self) -> str:
        return "an emotion"

    def _pairs(self, record: EmotionRecord, epoch: int, number: int) -> list[Pair]:
        label = self.label_set.canonical(record.emotion or "")
        return [(self.question, categorical_answer(label), f"{record.id}#categorical", label)]
