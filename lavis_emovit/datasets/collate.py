"""Turns dataset items into a batch: each image once, its questions with the number of their image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from lavis_emovit.processors.image import stack_images

PAIR_KEYS = ("text_input", "text_output", "instance_id", "label")


def collate(
    items: Sequence[dict[str, Any]], stack: Callable[[Sequence[torch.Tensor]], torch.Tensor] = stack_images
) -> dict[str, Any]:
    """One batch of dataset items.

    Args:
        items: B items, each with `image` [3, H, W] and `pairs`, a list of (question, answer, instance id, label).
            No items give an empty batch: the share of a rank if the last step of an epoch has too few samples.
        stack: stacks the images, see `ImageProcessor.stack`.

    Returns:
        `image` float [B, 3, H, W]; `image_index` long [N], the image of each pair; `text_input`, `text_output`,
        `instance_id`, `label` (None if unknown), lists of N; `record_id`, a list of B. N >= B: an image is encoded once
        for all its questions. `number` and `records`, lists of B, if the items have them. Also `faults`, if items
        replace samples that cannot be read.
    """
    pairs = [(number, pair) for number, item in enumerate(items) for pair in item["pairs"]]
    batch = {
        "image": stack([item["image"] for item in items]),
        "image_index": torch.tensor([number for number, _ in pairs], dtype=torch.long),
        **{name: [pair[place] for _, pair in pairs] for place, name in enumerate(PAIR_KEYS)},
        "record_id": [item["record_id"] for item in items],
    }
    if items and "number" in items[0]:
        batch["number"] = [item["number"] for item in items]
    if items and "record" in items[0]:
        batch["records"] = [item["record"] for item in items]
    faults = [item["fault"] for item in items if "fault" in item]
    return {**batch, "faults": faults} if faults else batch
