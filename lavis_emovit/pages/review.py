"""The page of `emovit review`: one image at a time, with its label, to accept, correct or skip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, zip_longest
from pathlib import Path
from typing import Any

from lavis_emovit.errors import DataError, UserError
from lavis_emovit.images import data_url
from lavis_emovit.pages import parts
from lavis_emovit.pages.reviews import Review, ReviewItem, decide, first_open, read_decisions
from lavis_emovit.pages.site import decision_page
from lavis_emovit.pages.uploads import shown_image

WARNING = "What a person feels cannot be read off an image. Decide which label most people would give."
_LEDE = "Accept the label, choose another one, or skip the image. Every decision is saved at once."
_LABEL_KEYS = "123456789"


def review_page(review: Review, items: Sequence[ReviewItem], reviewer: str, file: Path) -> Any:
    """The page on which one person reviews some items; a `gradio.Blocks` that is not served yet.

    Args:
        file: where the decisions of all people are kept.
    """
    head = parts.header(f"EmoVIT review, {reviewer}", "Is this label right?", _LEDE, WARNING)
    return decision_page(f"Review by {reviewer} · EmoVIT", head, _Events(review, items, reviewer, file))


class _Events:
    def __init__(self, review: Review, items: Sequence[ReviewItem], reviewer: str, file: Path):
        self._review, self._items, self._reviewer, self._file = review, items, reviewer, file
        self._turns = count()

    def begin(self) -> tuple[str, str]:
        """The first image without a decision."""
        decisions = read_decisions(self._file)
        return self._shown(first_open(self._items, decisions, self._reviewer)), ""

    def decided(self, number: str, action: Any, label: str) -> Iterator[tuple[str, str]]:
        """Keep a decision about image `number`, and go to the next; `back` goes to the one before."""
        place = min(max(0, int(number)), len(self._items))
        if action == "back" or place == len(self._items):
            yield self._shown(max(0, place - 1)), ""
            return
        item, labels = self._items[place], self._review.label_set
        try:
            made = decide(self._file, item, self._reviewer, action, label or None, labels)
        except UserError as error:
            yield self._shown(place), str(error)
            return
        yield self._shown(place + 1), f"Saved for image {place + 1}: {made.label or 'skipped'}."

    def _shown(self, place: int) -> str:
        decisions = read_decisions(self._file)
        own = [decisions.get(item.name, {}).get(self._reviewer) for item in self._items]
        num_done = sum(one is not None for one in own)
        if place >= len(self._items):
            return parts.review_end(len(self._items), num_done, next(self._turns))
        item, url, problem = self._items[place], "", ""
        try:
            url = data_url(shown_image(item.read()))
        except (DataError, OSError) as error:
            problem = f"The image cannot be shown: {error}"
        names = self._review.label_set.labels
        labels = list(zip_longest(names, _LABEL_KEYS[: len(names)], fillvalue=""))
        counts = place, len(self._items), num_done, next(self._turns)
        return parts.review_panel(item, url, problem, labels, own[place], *counts)
