"""What a model would cut from the texts of its training data, counted before training starts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from lavis_emovit.errors import DataError
from lavis_emovit.models.protocol import EmotionModel
from lavis_emovit.shards.reader import SampleFaultError

logger = logging.getLogger(__name__)

_PAIRS_AT_ONCE = 2048
# Key of the limit in `model` -> place of the length in `text_lengths`, and what is cut.
_LIMITS = {"max_txt_len": (0, "questions"), "max_output_txt_len": (1, "answers")}

Pair = tuple[str, str, str, str]  # kind, instance id, question, answer


@dataclass
class CutTexts:
    """Questions or answers of one kind that are longer than their limit."""

    num_cut: int = 0
    longest_tokens: int = 0
    longest_id: str = ""

    def add(self, instance_id: str, num_tokens: int) -> None:
        self.num_cut += 1
        if num_tokens > self.longest_tokens:
            self.longest_tokens, self.longest_id = num_tokens, instance_id


def check_cut_texts(model: EmotionModel, dataset: Any, action: Literal["warn", "refuse"]) -> None:
    """Warn about texts that the model would cut, or refuse them (DataError).

    Every start reads all training records once. Remote shards are not read for it, and a model without `text_lengths`
    is not asked; then only the log of the steps counts what was cut.
    """
    lengths_of = getattr(model, "text_lengths", None)
    limits = {key: getattr(model.settings, key, None) for key in _LIMITS}
    if lengths_of is None or not any(limits.values()):
        return
    counts: dict[str, int] = {}
    cut: dict[tuple[str, str], CutTexts] = {}  # (kind, key of the limit)
    for pairs in _chunks(dataset):
        _count(pairs, lengths_of, limits, counts, cut)
    lines = [
        f"{found.num_cut} of {counts[kind]} {kind} {_LIMITS[key][1]} are longer than model.{key}={limits[key]} tokens; "
        f"the longest has {found.longest_tokens} ({found.longest_id})"
        for (kind, key), found in sorted(cut.items(), key=lambda item: item[0])
    ]
    if lines and action == "refuse":
        listed = "\n".join(f"  - {line}" for line in lines)
        raise DataError(
            f"the model would cut texts of the training data:\n{listed}\n"
            "Raise the limit, shorten the texts, or set run.cut_texts=warn."
        )
    for line in lines:
        logger.warning("training cuts texts: %s", line)


def _count(
    pairs: Sequence[Pair],
    lengths_of: Callable[[Sequence[str], Sequence[str]], list[tuple[int, int]]],
    limits: Mapping[str, int | None],
    counts: dict[str, int],
    cut: dict[tuple[str, str], CutTexts],
) -> None:
    lengths = lengths_of([pair[2] for pair in pairs], [pair[3] for pair in pairs])
    for (kind, instance_id, *_), of_pair in zip(pairs, lengths):
        counts[kind] = counts.get(kind, 0) + 1
        for key, (place, _) in _LIMITS.items():
            limit = limits[key]
            if limit is not None and of_pair[place] > limit:
                cut.setdefault((kind, key), CutTexts()).add(instance_id, of_pair[place])


def _chunks(dataset: Any) -> Iterator[list[Pair]]:
    """The training pairs of a dataset or a mixture, some at a time."""
    chunk: list[Pair] = []
    for part in getattr(dataset, "datasets", [dataset]):
        if not hasattr(part, "training_pairs"):
            continue
        if part.index.cache is not None:
            logger.info("%s: remote shards are not read to look for texts that are cut", part.index.folder)
            continue
        for number in range(len(part)):
            with suppress(SampleFaultError):  # training reports faulty samples itself
                chunk += part.training_pairs(number)
            if len(chunk) >= _PAIRS_AT_ONCE:
                yield chunk
                chunk = []
    if chunk:
        yield chunk
