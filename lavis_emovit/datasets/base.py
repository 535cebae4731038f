"""What a dataset of shards and a mixture of several have in common: the order of an epoch, and batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from lavis_emovit.datasets.collate import collate
from lavis_emovit.shards.order import LengthBucketOrder, SampleOrder
from lavis_emovit.shards.token_lengths import LengthBucketSettings, TokenLengths


class OrderedDataset(Dataset[dict[str, Any]], ABC):
    """A dataset whose items are requested by (epoch, number) in the order of `epoch_order`."""

    image_processor: Any
    length_buckets: LengthBucketSettings | None
    token_lengths: TokenLengths | None

    @abstractmethod
    def _mixed_order(self, seed: int, epoch: int) -> SampleOrder:
        """The order without length buckets."""

    @property
    def kept(self) -> np.ndarray | None:
        """Numbers of the samples that are not dropped; None: all."""
        return None

    @property
    def max_tokens(self) -> int | None:
        """Most tokens of a micro-batch."""
        return self.length_buckets.max_tokens if self.length_buckets is not None else None

    def epoch_order(self, seed: int, epoch: int, global_batch: int) -> SampleOrder:
        """A pure function of the dataset and the arguments."""
        order = self._mixed_order(seed, epoch)
        if self.length_buckets is None or self.token_lengths is None:
            return order
        return LengthBucketOrder(order, self.token_lengths.longest, global_batch, self.length_buckets.window_steps)

    def collater(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """LAVIS's name for `collate`."""
        return collate(items, self.image_processor.stack)
