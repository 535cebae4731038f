"""One outcome for each image that several raters judged: what most of them chose, or what an adjudicator decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics.resampling import Resamples
from lavis_emovit.evaluation.metrics.results import Interval, Result


class DecidedRate(Result):
    """The win rate of the first author over images, a tie counted as half.

    Attributes:
        win_rate, interval: None if no image is decided; the interval resamples images.
        num_decided, num_adjudicated: images with an outcome, and those among them that the adjudicator decided.
        num_disputed: images without a majority that the adjudicator did not decide; they are left out.
    """

    win_rate: float | None
    interval: Interval | None
    num_decided: int
    num_adjudicated: int
    num_disputed: int


def disputed_numbers(chosen: Mapping[tuple[str, int], str]) -> set[int]:
    """The images whose choices differ; `chosen` has (rater, number of the image) -> choice."""
    return {number for number, choices in _by_image(chosen).items() if len(set(choices.values())) > 1}


def adjudicate(
    chosen: Mapping[tuple[str, int], str], first_of: Mapping[int, str], adjudicator: str, seed: int = 0
) -> DecidedRate:
    """Decide each image: the choice of the adjudicator where there is one, else that of more than half of the others.

    Args:
        chosen: (rater, number of the image) -> `A`, `B` or `tie`.
        first_of: number of the image -> the side of the first author, `A` or `B`.

    Raises:
        DataError: the adjudicator has no choice.
    """
    raters = sorted({rater for rater, _ in chosen})
    if adjudicator not in raters:
        raise DataError(f"no choice by the adjudicator '{adjudicator}', but by {', '.join(raters)}")
    values: list[float] = []
    num_adjudicated = num_disputed = 0
    for number, of_image in sorted(_by_image(chosen).items()):
        choice, count = Counter(of_image.values()).most_common(1)[0]
        if adjudicator in of_image:
            choice = of_image[adjudicator]
            num_adjudicated += 1
        elif 2 * count <= len(of_image):
            num_disputed += 1
            continue
        values.append(0.5 if choice == "tie" else float(choice == first_of[number]))
    found = np.array(values)
    return DecidedRate(
        win_rate=float(found.mean()) if values else None,
        interval=Resamples(len(found), seed=seed).mean_interval(found) if values else None,
        num_decided=len(values),
        num_adjudicated=num_adjudicated,
        num_disputed=num_disputed,
    )


def _by_image(chosen: Mapping[tuple[str, int], str]) -> dict[int, dict[str, str]]:
    """Number of the image -> rater -> choice."""
    found: dict[int, dict[str, str]] = {}
    for (rater, number), choice in chosen.items():
        found.setdefault(number, {})[rater] = choice
    return found
