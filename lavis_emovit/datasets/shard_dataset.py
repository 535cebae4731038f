"""Training items from shards: an augmented image with its questions and answers."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from lavis_emovit.boxes import BoxSettings
from lavis_emovit.datasets.base import OrderedDataset
from lavis_emovit.datasets.faults import FaultLog, FaultSettings
from lavis_emovit.errors import DataError
from lavis_emovit.processors.base import NO_FRAMES
from lavis_emovit.records import INSTRUCTION_KINDS, EmotionRecord
from lavis_emovit.settings import nearest_name
from lavis_emovit.shards.index import ShardIndex
from lavis_emovit.shards.order import DEFAULT_WINDOW_SHARDS, EpochOrder, permutation
from lavis_emovit.shards.reader import SampleFaultError, ShardReader, ShardSample
from lavis_emovit.shards.token_lengths import LengthBucketSettings, TokenLengths

Pair = tuple[str, str, str, str | None]  # question, answer, instance id, label

# Samples that are tried in place of a faulty one; after so many faults in a row the shards are unusable.
_MAX_REPLACEMENTS = 20


class EmotionShardDataset(OrderedDataset):
    """The samples of a shard index that have questions.

    An item is a pure function of (seed, epoch, number), in whichever process: `dataset[(epoch, number)]`, or
    `dataset[number]` for epoch 0. It has `image` float32 [3, H, W], of clips [3, F, H, W]; `pairs`, a list of
    (question, answer, instance id, label); `record_id`; and `number`. A faulty sample is replaced by another one,
    determined by the same three numbers; the item then also has a key `fault`, which reaches `fault_log` through the
    batch.

    Args:
        index: the shards, or the path of their index.
        image_processor, text_processor: called as `processor.read(bytes, clip, box, seed=...)`, and on every question.
        seed: seed of the augmentation and of the selection of pairs, which changes with every epoch.
        faults: how to treat samples that cannot be read; None: stop at the first.
        kinds, share, ...: see `DatasetSettings`.

    Raises:
        DataError: unknown kinds, or no sample with a question; for an item that is a clip, no `frames`.
    """

    def __init__(
        self,
        index: ShardIndex | str | os.PathLike[str],
        image_processor: Any,
        text_processor: Any,
        *,
        seed: int,
        kinds: Sequence[str] | None = None,
        share: float = 1.0,
        share_seed: int = 0,
        max_pairs: int | None = None,
        verify_hashes: bool = False,
        faults: FaultSettings | None = None,
        window_shards: int = DEFAULT_WINDOW_SHARDS,
        length_buckets: LengthBucketSettings | None = None,
    ):
        self.index = index if isinstance(index, ShardIndex) else ShardIndex.load(index)
        for kind in kinds or ():
            if kind not in INSTRUCTION_KINDS:
                raise DataError(f"unknown kind of instruction '{kind}'{nearest_name(kind, list(INSTRUCTION_KINDS))}")
        self.reader = ShardReader(self.index, verify_hashes=verify_hashes)
        self.image_processor, self.text_processor = image_processor, text_processor
        self.seed, self.max_pairs = seed, max_pairs
        self._includes_records = False
        self.kinds = tuple(kinds) if kinds is not None else None
        self.share, self.share_seed = share, share_seed
        self.samples = self._choose_samples()
        if share < 1.0:
            self.samples = nested_share(self.index, self.samples, share, share_seed)
        if not len(self.samples):
            raise DataError(
                f"{self.index.folder}: none of its {self.index.num_samples} samples has {self._needed()}. "
                "Write instructions before building shards, or select other kinds."
            )
        counts = np.bincount(self.index.columns["pair_kind"], minlength=len(self.index.kinds))
        absent = sorted(set(kinds or ()) - {kind for kind, count in zip(self.index.kinds, counts) if count})
        if absent:
            commands = " and ".join(f"`emovit generate {kind} records.jsonl --out G`" for kind in absent)
            raise DataError(
                f"{self.index.folder}: it has no instructions of the kinds {', '.join(absent)}, so training would skip "
                f"them. Write them with {commands} and train on them with `build_info.prepare.instructions: G` and "
                "another `build_info.images.storage`, or remove the kinds from `kinds`."
            )
        self.window_shards, self.length_buckets = window_shards, length_buckets
        self.replace_faulty = faults is not None and faults.replace
        self.fault_log = FaultLog(self.index, faults or FaultSettings(), len(self.samples))
        self.token_lengths = self._count_tokens()

    def of_kind(self, kind: str) -> EmotionShardDataset:
        """The samples that have instructions of a kind, with these alone; DataError if there are none.

        It shares shards, reader and log of faults with this dataset.
        """
        part = copy.copy(self)
        part.kinds = (kind,)
        part.samples = np.intersect1d(self.samples, self.index.samples_with(kinds=part.kinds))
        if not len(part.samples):
            raise DataError(f"{self.index.folder}: none of its samples has {part._needed()}")
        part.token_lengths = part._count_tokens()
        return part

    def _count_tokens(self) -> TokenLengths | None:
        if self.length_buckets is None:
            return None
        return TokenLengths.from_index(
            self.index, self.samples, self.length_buckets, kinds=self.kinds, max_pairs=self.max_pairs
        )

    @property
    def show(self) -> BoxSettings | None:
        """What is shown of records with a box; None: the whole image."""
        return getattr(self.image_processor, "box", None)

    def _choose_samples(self) -> Any:
        return self.index.samples_with(kinds=self.kinds)

    def _needed(self) -> str:
        return "an instruction" if self.kinds is None else f"an instruction of the kinds {', '.join(self.kinds)}"

    @property
    def index_hash(self) -> str:
        """Identifies the shards."""
        return self.index.hash

    @property
    def order_hash(self) -> str:
        """Identifies the shards and the samples selected from them."""
        selection: dict[str, Any] = {
            "index": self.index.hash,
            "kinds": sorted(self.kinds) if self.kinds is not None else None,
            "samples": len(self.samples),
        }
        if self.share < 1.0:
            selection["share"] = [self.share, self.share_seed]
        return hashlib.sha256(json.dumps(selection).encode()).hexdigest()

    @property
    def block_sizes(self) -> np.ndarray:
        """Selected samples of each shard, int64."""
        return np.diff(np.searchsorted(self.samples, self.index.sample_starts))

    def _mixed_order(self, seed: int, epoch: int) -> EpochOrder:
        return EpochOrder(self.index_hash, seed, epoch, self.block_sizes, self.window_shards)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def num_samples(self) -> int:
        """Different items; an epoch of a mixture may have more or fewer."""
        return len(self)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        epoch, number = key if isinstance(key, tuple) else (0, key)
        if not 0 <= number < len(self):
            raise IndexError(f"item {number} of {len(self)}")
        try:
            return self._item(epoch, number)
        except SampleFaultError as fault:
            if not self.replace_faulty:
                raise
            return self._replacement(epoch, number, fault)

    def read(self, number: int) -> ShardSample:
        """Record and image bytes of an item, as stored in the shard."""
        return self.reader.read(int(self.samples[number]))

    def describe(self) -> str:
        """What is trained on, for the log: images, and pairs of each kind."""
        is_chosen = np.zeros(self.index.num_samples, bool)
        is_chosen[self.samples] = True
        is_used = self.index.pairs_of_kinds(self.kinds) & np.repeat(is_chosen, self.index.columns["num_pairs"])
        counts = np.bincount(self.index.columns["pair_kind"][is_used], minlength=len(self.index.kinds))
        pairs = ", ".join(f"{kind} {count}" for kind, count in zip(self.index.kinds, counts) if count)
        return f"training on {len(self)} of {self.index.num_samples} images (pairs: {pairs})"

    def place_of(self, number: int) -> str:
        """The shard of an item, for messages."""
        return f"{self.index.folder.name}/{self.index.shards[self.index.shard_of(int(self.samples[number]))].name}"

    def include_records(self) -> None:
        """From now on, put the `EmotionRecord` of each item under its key `record`."""
        self._includes_records = True

    def _item(self, epoch: int, number: int) -> dict[str, Any]:
        sample = self.read(number)
        image, pairs = self._image(sample, epoch, number), self._pairs(sample.record, epoch, number)
        item = {"image": image, "pairs": pairs, "record_id": sample.record.id, "number": number}
        return {**item, "record": sample.record} if self._includes_records else item

    def _replacement(self, epoch: int, number: int, fault: SampleFaultError) -> dict[str, Any]:
        """The item of another sample: the first readable one of a sequence determined by (seed, epoch, number)."""
        for attempt in range(_MAX_REPLACEMENTS):
            other = self._item_seed(f"reserve {attempt}", epoch, number) % len(self)
            try:
                item = self._item(epoch, other)
            except SampleFaultError:
                continue
            sample = int(self.samples[number])
            item["fault"] = {
                "sample": sample,
                "place": self.index.key_of(sample),
                "kind": fault.kind,
                "label": self.index.label_of(sample),
                "reason": str(fault),
                "epoch": epoch,
                "replaced_by": int(self.samples[other]),
            }
            return item
        raise DataError(f"{fault}\nThe {_MAX_REPLACEMENTS} samples tried as replacements cannot be read either.")

    def _image(self, sample: ShardSample, epoch: int, number: int) -> torch.Tensor:
        if sample.record.clip is not None and self.image_processor.frames is None:
            # Not a faulty sample, which another one could replace.
            raise DataError(f"{self.index.folder}: {NO_FRAMES}")
        seed = self._item_seed("image", epoch, number)
        try:
            return self.image_processor.read(sample.image_bytes, sample.record.clip, sample.record.box, seed=seed)[0]
        except DataError as error:
            place = self.index.folder / self.index.key_of(int(self.samples[number]))
            raise SampleFaultError(
                f"{place} ('{sample.record.id}'): {error}. Build the shards again without this image (`--skip-bad`).",
                "bad_image",
            ) from None

    def _pairs(self, record: EmotionRecord, epoch: int, number: int) -> list[Pair]:
        written, chosen = record.instructions, self._places(record)
        if self.max_pairs is not None and len(chosen) > self.max_pairs:
            choose = random.Random(self._item_seed("pairs", epoch, number))
            chosen = sorted(choose.sample(chosen, self.max_pairs))
        pairs = [(place, self.text_processor(written[place].question), written[place].answer) for place in chosen]
        return [(question, answer.strip(), f"{record.id}#{place}", record.emotion) for place, question, answer in pairs]

    def training_pairs(self, number: int) -> list[tuple[str, str, str, str]]:
        """All pairs of an item, without its image: kind, instance id, question, answer."""
        record = self.reader.read_record(int(self.samples[number]))
        items = [(place, record.instructions[place]) for place in self._places(record)]
        return [
            (item.kind, f"{record.id}#{place}", self.text_processor(item.question), item.answer.strip())
            for place, item in items
        ]

    def _places(self, record: EmotionRecord) -> list[int]:
        """Numbers of the record's instructions of the kinds that are trained on."""
        return [
            place for place, item in enumerate(record.instructions) if self.kinds is None or item.kind in self.kinds
        ]

    def _item_seed(self, purpose: str, epoch: int, number: int) -> int:
        """63 bits derived from (seed, epoch, number), different for every purpose."""
        digest = hashlib.sha256(f"{purpose}/{self.seed}/{epoch}/{number}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1


def nested_share(index: ShardIndex, samples: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A share in (0, 1] of samples that keeps the label proportions; both are int64, ascending.

    The seed determines an order of each label's samples (unlabelled ones count as a label). The share takes the first
    of them, rounded to the nearest number, at least one. So a smaller share is a subset of every larger one.
    """
    labels = index.columns["label"][samples]
    taken = []
    for number in np.unique(labels):
        own = samples[labels == number]
        count = max(1, int(share * len(own) + 0.5))
        taken.append(own[permutation(f"{index.hash}/share/{seed}/{int(number)}", len(own))[:count]])
    return np.sort(np.concatenate(taken)) if taken else samples
