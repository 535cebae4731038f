"""Multiple choices: accuracy over all questions, by category and by image, and preferences for places of options."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics.categories import CategoryMetrics, category_metrics
from lavis_emovit.evaluation.metrics.question_accuracy import accuracy_headline
from lavis_emovit.evaluation.metrics.registry import MeasuredRows, Metric, register_metric
from lavis_emovit.evaluation.metrics.resampling import bootstrap_interval
from lavis_emovit.evaluation.metrics.results import Interval, Result
from lavis_emovit.evaluation.metrics.rows import (
    GROUP,
    count_statuses,
    is_right,
    question_groups,
    resamples_of,
    row_name,
    without_errors,
)
from lavis_emovit.evaluation.predictions import PredictionRow

_YES_NO = {"yes", "no"}


class YesNoMetrics(Result):
    """Questions whose options are yes and no, with `yes` as the positive class, as in POPE (Li et al., EMNLP 2023).

    An unread answer is neither: it lowers the recall of both. `yes_share` is the share of read "yes" among all answers,
    `true_yes_share` that of questions whose right answer is yes.
    """

    num_samples: int
    precision: float | None
    recall: float | None
    f1: float
    yes_share: float
    true_yes_share: float


class ChoiceMetrics(Result):
    """Metrics of the `num_samples` answered questions; an answer that cannot be read is wrong.

    Attributes:
        statuses: how written answers were read; empty for scored ones.
        accuracy_of_valid: over the read answers alone, for comparison with evaluations that drop the others.
        all_right: share of images whose questions are all right (MME's accuracy+), if images have several questions.
        chance: expected accuracy of a random option.
        order_bias: share of answers with the first listed option, minus the share that a random choice would have.
        positions: share of the answers with each place in the list, from the first; unread answers have none.
        categories: name of a category -> value -> its accuracy, share of unread answers, and share of images whose
            questions of the category are all right (`all_right`).
    """

    num_samples: int
    num_invalid: int
    num_errors: int
    statuses: dict[str, int]
    accuracy: float
    accuracy_interval: Interval
    accuracy_of_valid: float | None
    all_right: float | None
    all_right_interval: Interval | None
    chance: float
    order_bias: float
    order_bias_interval: Interval | None
    positions: list[float]
    yes_no: YesNoMetrics | None
    categories: dict[str, dict[str, CategoryMetrics]]


def choice_metrics(
    rows: Sequence[PredictionRow], *, group_by: str | None = None, slices: Sequence[str] = ()
) -> ChoiceMetrics:
    """Measure rows with `options`, `labels` (the right ones) and a `prediction`.

    Args:
        slices: fields of the records among the rows' `slices`, which are no categories.

    Raises:
        DataError: no answered rows, or a row without options.
    """
    answered = without_errors(rows)
    for row in answered:
        if row.options is None or row.label is None:
            raise DataError(f"{row_name(row)} has no options or no right one, so it is no multiple choice")
    right_N = np.array([is_right(row) for row in answered], dtype=np.float64)
    is_read_N = np.array([row.prediction is not None for row in answered])
    options = [row.options or () for row in answered]
    places = [of.index(row.prediction) if row.prediction in of else None for of, row in zip(options, answered)]
    first_N = np.array([(place == 0) - 1 / len(of) for place, of in zip(places, options)])
    resamples = resamples_of(answered, question_groups(answered, group_by))
    means_R2 = resamples.means(np.column_stack([right_N, first_N]))
    accuracy, order_bias = float(right_N.mean()), float(first_N.mean())
    counts = Counter(place for place in places if place is not None)
    all_right_M = np.array(list(_by_image(answered).values()), dtype=np.float64)
    has_several = len(all_right_M) < len(answered)
    shares = {"accuracy": right_N, "unread": (~is_read_N).astype(np.float64)}
    categories = category_metrics(answered, shares, resamples, skip=(GROUP, *slices))
    return ChoiceMetrics(
        num_samples=len(answered),
        num_invalid=int((~is_read_N).sum()),
        num_errors=len(rows) - len(answered),
        statuses=count_statuses(answered),
        accuracy=accuracy,
        accuracy_interval=resamples.share_interval(means_R2[:, 0], accuracy),
        accuracy_of_valid=float(right_N[is_read_N].mean()) if is_read_N.any() else None,
        all_right=float(all_right_M.mean()) if has_several else None,
        all_right_interval=bootstrap_interval(all_right_M) if has_several else None,
        chance=float(
            np.mean(
                [sum(one in (row.labels or (row.label,)) for one in of) / len(of) for of, row in zip(options, answered)]
            )
        ),
        order_bias=order_bias,
        order_bias_interval=resamples.interval(means_R2[:, 1], order_bias),
        positions=[counts[place] / len(answered) for place in range(max(map(len, options)))],
        yes_no=_yes_no(answered),
        categories=_with_images(categories, answered) if has_several else categories,
    )


def _by_image(rows: Sequence[PredictionRow]) -> dict[str, bool]:
    """Image -> whether all of its questions are right."""
    found: dict[str, bool] = {}
    for row in rows:
        found[row.record_id] = found.get(row.record_id, True) and is_right(row)
    return found


def _with_images(
    categories: dict[str, dict[str, CategoryMetrics]], rows: Sequence[PredictionRow]
) -> dict[str, dict[str, CategoryMetrics]]:
    """The categories with the share of images whose questions of the category are all right."""
    found: dict[str, dict[str, CategoryMetrics]] = {}
    for name, of_values in categories.items():
        for value, one in of_values.items():
            images = _by_image([row for row in rows if (row.slices or {}).get(name) == value])
            values = {**one.values, "all_right": sum(images.values()) / len(images)}
            found.setdefault(name, {})[value] = one.model_copy(update={"values": values})
    return found


def _yes_no(rows: Sequence[PredictionRow]) -> YesNoMetrics | None:
    """None unless all questions have the options yes and no."""
    if not all({_plain(one) for one in row.options or ()} == _YES_NO for row in rows):
        return None
    true_N = np.array([_plain(row.label or "") == "yes" for row in rows])
    said_N = np.array([_plain(row.prediction or "") == "yes" for row in rows])
    right, said, true = int((true_N & said_N).sum()), int(said_N.sum()), int(true_N.sum())
    return YesNoMetrics(
        num_samples=len(rows),
        precision=right / said if said else None,
        recall=right / true if true else None,
        f1=2 * right / (said + true) if said + true else 0.0,
        yes_share=said / len(rows),
        true_yes_share=true / len(rows),
    )


def _plain(option: str) -> str:
    return option.strip(" .!").casefold()


def _measure(measured: MeasuredRows) -> ChoiceMetrics:
    return choice_metrics(measured.rows, group_by=measured.group_by, slices=measured.settings.slices)


register_metric(
    Metric(
        "choices",
        kinds=("choice",),
        result=ChoiceMetrics,
        less_is_better=frozenset({"num_invalid", "num_errors", "order_bias"}),
        measure=_measure,
        headline=accuracy_headline(is_right),
    )
)
