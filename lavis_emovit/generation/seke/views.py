"""Views: the forms in which a face is asked about, so that errors of one prompt are not shared by all answers."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

from lavis_emovit.chat.request import ChatImage, ChatRequest
from lavis_emovit.emotion.facial import FacialPriors
from lavis_emovit.generation.seke.levels import Case
from lavis_emovit.generation.seke.questions import hints
from lavis_emovit.generation.seke.settings import SekeSettings

_TRIMMED = 0.06  # share of width and height that a crop removes on each side
_WIDENED = 0.15  # share of its width and height by which a crop widens the box of a person on each side


@dataclass(frozen=True)
class View:
    """One form of the question about a face."""

    number: int = 0
    wording: int = 0  # number of the prompt's wording
    order: int = 0  # 0: options in their usual order; others: shuffled
    is_cropped: bool = False
    is_mirrored: bool = False
    is_hinted: bool = False  # with likely values from the tables

    def plain(self) -> dict[str, Any]:
        return vars(self)


def plan_views(case: Case, settings: SekeSettings, priors: FacialPriors, num_wordings: int = 1) -> list[View]:
    """The views of a face; answer number n belongs to view n modulo their number.

    The first one has the first wording, the usual order and the whole image. If the tables vary, every second view
    contains them; whether the first one does is drawn by face, so that over many faces the influence of the tables is
    not mixed with that of anything else.
    """
    vary = set(settings.vary) if settings.num_most > 1 else set()
    can_hint = settings.prior and bool(hints(case, priors))
    if not can_hint:
        vary -= {"prior"}
    num_views = settings.num_views if vary else 1  # without anything to vary, all answers share one prompt
    first_hinted = random.Random(f"seke/tables/{case.record.id}").randrange(2)
    return [
        View(
            number,
            wording=number % num_wordings if "wording" in vary else 0,
            order=number if "order" in vary else 0,
            # Both differ from the first view in the second one; after that, all combinations occur.
            is_cropped="crop" in vary and number % 2 == 1,
            is_mirrored="mirror" in vary and number % 4 in (1, 2),
            is_hinted=can_hint and ("prior" not in vary or number % 2 == first_hinted),
        )
        for number in range(num_views)
    ]


def in_order(case: Case, view: View) -> Case:
    """The case with its options in the order of the view."""
    if view.order == 0:
        return case
    rng = random.Random(f"seke/{case.record.id}/{view.order}")
    classes, units = list(case.classes), list(case.units)
    rng.shuffle(classes)
    rng.shuffle(units)
    return replace(case, classes=tuple(classes), units=tuple(units))


def shown(request: ChatRequest, view: View) -> ChatRequest:
    """The request with the images cropped and mirrored as the view has them."""
    if not (view.is_cropped or view.is_mirrored):
        return request
    messages = tuple(
        replace(message, images=tuple(_changed(image, view) for image in message.images))
        for message in request.messages
    )
    return replace(request, messages=messages)


def _changed(image: ChatImage, view: View) -> ChatImage:
    image = replace(image, is_mirrored=view.is_mirrored)
    if not view.is_cropped:
        return image
    if image.box is None:
        return replace(image, trim=_TRIMMED)
    left, top, right, bottom = image.box
    wide, high = _WIDENED * (right - left), _WIDENED * (bottom - top)
    return replace(image, box=(left - wide, top - high, right + wide, bottom + high))
