"""The page of `emovit judge page`: one image at a time, with two captions to choose from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

from lavis_emovit.errors import UserError
from lavis_emovit.pages import parts
from lavis_emovit.pages.judgements import Choices, SheetEntry
from lavis_emovit.pages.site import decision_page

_LEDE = "Read both captions and choose one, or tie if neither is better. Every choice is saved at once."
_NOTE = "Please do not talk to others about the captions before all of you are done."


def judge_page(question: str, entries: Sequence[SheetEntry], rater: str, choices: Choices) -> Any:
    """The page on which one person judges some entries of a sheet; a `gradio.Blocks` that is not served yet."""
    head = parts.header(f"EmoVIT judge, {rater}", question, _LEDE, _NOTE)
    return decision_page(f"{question} {rater} · EmoVIT", head, _Events(entries, rater, choices))


class _Events:
    def __init__(self, entries: Sequence[SheetEntry], rater: str, choices: Choices):
        self._entries, self._rater, self._choices = entries, rater, choices
        self._turns = count()

    def begin(self) -> tuple[str, str]:
        """The first image without a choice."""
        own = self._own()
        return self._shown(next((place for place, one in enumerate(own) if one is None), len(own))), ""

    def decided(self, number: str, action: str, label: str) -> Iterator[tuple[str, str]]:
        """Save a choice about the image at place `number`, and go to the next; `back` goes to the one before."""
        place = min(max(0, int(number)), len(self._entries))
        if action == "back" or place == len(self._entries):
            yield self._shown(max(0, place - 1)), ""
            return
        try:
            self._choices.keep(self._rater, self._entries[place].number, label)
        except UserError as error:
            yield self._shown(place), str(error)
            return
        yield self._shown(place + 1), f"Saved for image {place + 1}: {label or 'skipped'}."

    def _own(self) -> list[str | None]:
        found = self._choices.read()
        return [found.get((self._rater, entry.number)) for entry in self._entries]

    def _shown(self, place: int) -> str:
        own = self._own()
        num_done = sum(one is not None for one in own)
        counts = len(own), num_done, next(self._turns)
        if place >= len(own):
            return parts.review_end(*counts)
        return parts.judge_panel(self._entries[place], own[place], place, *counts)
