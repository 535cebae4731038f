"""How much answers vary, apart for what varies within a prompt and what varies between prompts.

Choices (expression, each unit) use entropies. With the shares p_v of the choices in the answers to view v, V views and
C choices, in units of log C, so in [0, 1]:

    within  = mean over v of H(p_v)             expected entropy: the answers to one prompt differ
    between = H(mean over v of p_v) - within    mutual information of answer and prompt: the prompt decides the answer

(Houlsby et al. 2011, arXiv 1112.5745; Depeweg et al. 2018, arXiv 1710.07283; over prompts: Hou et al. 2024, arXiv
2311.08718.) Valence and arousal use the law of total variance, as standard deviations on their own scale:

    within^2  = mean over v of var_v
    between^2 = var over v of mean_v - mean over v of (var_v / n_v), at least 0

with sample variances (n - 1), so that the two are free of bias before the root; the subtracted term is what the means
vary by chance (one-way analysis of variance, Searle, Casella and McCulloch 1992). Entropies of few answers are
too low, so with two answers to each view `within` is too low and `between` too high: compare faces by one of them, not
one of them with the other.

Teachers state probabilities instead of single answers. Each is a view whose p_v, mean_v and var_v are known, so the
parts need one answer of each and no correction for chance; `between` is what the teachers disagree on.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lavis_emovit.emotion.entropy import entropy_parts

# Number of the view -> the values that its answers gave.
Groups = Mapping[int, Sequence[object]]


@dataclass(frozen=True)
class Spread:
    """Uncertainty of one item (an expression, an axis, a unit).

    Attributes:
        num_answers: answers that contain the item.
        total: of all answers together: entropy in [0, 1], or standard deviation. None for a single answer without
            probabilities.
        within, between: the two parts of the module's docstring, over views with at least two answers. None with fewer
            than two such views, unless all answers agree; of answers with probabilities, None with fewer than two.
    """

    num_answers: int
    total: float | None = None
    within: float | None = None
    between: float | None = None


def spread_of_choices(groups: Groups, num_choices: int) -> Spread:
    """Spread of votes for one of `num_choices` choices."""
    pooled = Counter(value for values in groups.values() for value in values)
    if (count := pooled.total()) < 2:
        return Spread(count)
    total, _ = entropy_parts([[number / count for number in pooled.values()]], num_choices)
    if total == 0.0:
        return Spread(count, 0.0, 0.0, 0.0)
    views = [Counter(values) for values in groups.values() if len(values) > 1]
    if len(views) < 2:
        return Spread(count, total)
    of_mean, within = entropy_parts([[view[choice] / view.total() for choice in pooled] for view in views], num_choices)
    return Spread(count, total, within, max(0.0, of_mean - within))


def spread_of_numbers(groups: Mapping[int, Sequence[float]]) -> Spread:
    """Spread of numbers (valence or arousal)."""
    pooled = [value for values in groups.values() for value in values]
    if len(pooled) < 2:
        return Spread(len(pooled))
    total = statistics.stdev(pooled)
    if total == 0.0:
        return Spread(len(pooled), 0.0, 0.0, 0.0)
    views = [values for values in groups.values() if len(values) > 1]
    if len(views) < 2:
        return Spread(len(pooled), total)
    variances = [statistics.variance(values) for values in views]
    by_chance = statistics.fmean(variance / len(values) for variance, values in zip(variances, views))
    between = statistics.variance([statistics.fmean(values) for values in views]) - by_chance
    return Spread(len(pooled), total, math.sqrt(statistics.fmean(variances)), math.sqrt(max(0.0, between)))


def spread_of_distributions(distributions: Sequence[Sequence[float]], num_choices: int) -> Spread:
    """Spread of stated probabilities of the same choices, one distribution for each answer."""
    total, within = entropy_parts(distributions, num_choices)
    if len(distributions) < 2:
        return Spread(len(distributions), total)
    return Spread(len(distributions), total, within, max(0.0, total - within))


def spread_of_stated_numbers(stated: Sequence[tuple[float, float]]) -> Spread:
    """Spread of numbers that are stated as mean and standard deviation, one pair for each answer."""
    within = statistics.fmean(sd**2 for _, sd in stated)
    between = statistics.pvariance([mean for mean, _ in stated])
    parts = (math.sqrt(within), math.sqrt(between)) if len(stated) > 1 else (None, None)
    return Spread(len(stated), math.sqrt(within + between), *parts)
