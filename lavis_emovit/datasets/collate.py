"""Items to a batch: pictures stacked once, their questions side by side with the number of their picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import default_collate


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One batch out of dataset items.

    Args:
        items: B items, each with `image` [3, H, W] and `pairs`, a list of (question, answer, instance id, label).
            No items give an empty batch: that is a rank's share where the last step of an epoch does not go round.

    Returns:
        `image` float [B, 3, H, W]; `image_index` long [N], the picture of each pair; `text_input`, `text_output`,
        `instance_id`, `label` (None where unknown), lists of N; `record_id`, a list of B. N >= B: a picture is encoded
        once for all its questions. `records`, a list of B, if the items have them. `faults` besides, where items stand
        in for samples that cannot be read.
    """
    pairs = [(number, pair) for number, item in enumerate(items) for pair in item["pairs"]]
    batch = {
        # In a worker process this stacks straight into memory that it shares with the run's process.
        "image": default_collate([item["image"] for item in items]) if items else torch.zeros(0, 3, 0, 0),
        "image_index": torch.tensor([number for number, _ in pairs], dtype=torch.long),
        "text_input": [question for _, (question, _, _, _) in pairs],
        "text_output": [answer for _, (_, answer, _, _) in pairs],
        "instance_id": [instance_id for _, (_, _, instance_id, _) in pairs],
        "label": [label for _, (_, _, _, label) in pairs],
        "record_id": [item["record_id"] for item in items],
    }
    if items and "record" in items[0]:
        batch["records"] = [item["record"] for item in items]
    faults = [item["fault"] for item in items if "fault" in item]
    return {**batch, "faults": faults} if faults else batch
