"""Training items out of shards: a picture, augmented, with its questions and answers."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from lavis_emovit.datasets.collate import collate
from lavis_emovit.errors import DataError
from lavis_emovit.processors.decode import decode_image
from lavis_emovit.records import INSTRUCTION_KINDS, EmotionRecord
from lavis_emovit.settings import nearest_name
from lavis_emovit.shards.index import ShardIndex
from lavis_emovit.shards.reader import ShardReader, ShardSample

Pair = tuple[str, str, str, str | None]  # question, answer, instance id, label


class EmotionShardDataset(Dataset[dict[str, Any]]):
    """Samples of a shard index that have a question to ask.

    An item is a pure function of (seed, epoch, number), whichever process makes it: `dataset[(epoch, number)]`, or
    `dataset[number]` for epoch 0. It holds `image` float32 [3, H, W], `pairs`, a list of (question, answer, instance
    id, label), and `record_id`.

    Args:
        index: the shards, or the path of their index.
        image_processor: called as `processor(image, seed=...)`.
        text_processor: called on every question.
        seed: seed of augmentation and of the choice of pairs.
        kinds: kinds of instructions to train on; None for all. Samples without one of them are left out.
        max_pairs: most questions of a picture in one epoch, chosen anew in every epoch; None for all.
        verify_hashes: compare each shard's sha256 when it is first opened.

    Raises:
        DataError: unknown kinds, or no sample with a question.
    """

    def __init__(
        self,
        index: ShardIndex | str | os.PathLike[str],
        image_processor: Any,
        text_processor: Any,
        *,
        seed: int,
        kinds: Sequence[str] | None = None,
        max_pairs: int | None = None,
        verify_hashes: bool = False,
    ):
        self.index = index if isinstance(index, ShardIndex) else ShardIndex.load(index)
        for kind in kinds or ():
            if kind not in INSTRUCTION_KINDS:
                raise DataError(f"unknown kind of instruction '{kind}'{nearest_name(kind, list(INSTRUCTION_KINDS))}")
        self.reader = ShardReader(self.index, verify_hashes=verify_hashes)
        self.image_processor, self.text_processor = image_processor, text_processor
        self.seed, self.max_pairs = seed, max_pairs
        self.kinds = tuple(kinds) if kinds is not None else None
        self.samples = self._choose_samples()
        if not len(self.samples):
            raise DataError(
                f"{self.index.folder}: none of its {self.index.num_samples} samples has {self._needed()}. "
                "Write instructions before building shards, or choose other kinds."
            )

    def _choose_samples(self) -> Any:
        return self.index.samples_with(kinds=self.kinds)

    def _needed(self) -> str:
        return "an instruction" if self.kinds is None else f"an instruction of the kinds {', '.join(self.kinds)}"

    @property
    def index_hash(self) -> str:
        """Names the shards."""
        return self.index.hash

    @property
    def order_hash(self) -> str:
        """Names the shards and the choice of samples from them; the order of an epoch is computed from it."""
        selection = json.dumps(
            {
                "index": self.index.hash,
                "kinds": sorted(self.kinds) if self.kinds is not None else None,
                "samples": len(self.samples),
            }
        )
        return hashlib.sha256(selection.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        epoch, number = key if isinstance(key, tuple) else (0, key)
        if not 0 <= number < len(self):
            raise IndexError(f"item {number} of {len(self)}")
        sample = self.read(number)
        return {
            "image": self._image(sample, epoch, number),
            "pairs": self._pairs(sample.record, epoch, number),
            "record_id": sample.record.id,
        }

    def read(self, number: int) -> ShardSample:
        """Record and image bytes of an item, as they lie in the shard."""
        return self.reader.read(int(self.samples[number]))

    def collater(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """LAVIS's name for `collate`."""
        return collate(items)

    def _image(self, sample: ShardSample, epoch: int, number: int) -> torch.Tensor:
        try:
            image = decode_image(sample.image_bytes, min_side_px=getattr(self.image_processor, "min_side_px", None))
        except DataError as error:
            place = self.index.folder / self.index.key_of(int(self.samples[number]))
            raise DataError(
                f"{place} ('{sample.record.id}'): {error}. Build the shards again without this picture (`--skip-bad`)."
            ) from None
        return self.image_processor(image, seed=self._item_seed("image", epoch, number))

    def _pairs(self, record: EmotionRecord, epoch: int, number: int) -> list[Pair]:
        chosen = [
            position
            for position, instruction in enumerate(record.instructions)
            if self.kinds is None or instruction.kind in self.kinds
        ]
        if self.max_pairs is not None and len(chosen) > self.max_pairs:
            choose = random.Random(self._item_seed("pairs", epoch, number))
            chosen = sorted(choose.sample(chosen, self.max_pairs))
        return [
            (
                self.text_processor(record.instructions[position].question),
                record.instructions[position].answer.strip(),
                f"{record.id}#{position}",
                record.emotion,
            )
            for position in chosen
        ]

    def _item_seed(self, purpose: str, epoch: int, number: int) -> int:
        """63 bits out of (seed, epoch, number), other ones for every purpose."""
        digest = hashlib.sha256(f"{purpose}/{self.seed}/{epoch}/{number}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1
