"""How much several distributions over the same choices doubt and disagree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean


def _entropy_nats(shares: Sequence[float]) -> float:
    return max(0.0, -math.fsum(share * math.log(share) for share in shares if share > 0.0))


def entropy_parts(distributions: Sequence[Sequence[float]], num_choices: int) -> tuple[float, float]:
    """The entropy of the mean distribution, and the mean of their entropies, both divided by log(`num_choices`).

    The difference is their mutual information, the part that comes from disagreement (Depeweg et al., "Decomposition of
    uncertainty in Bayesian deep learning", ICML 2018).
    """
    scale = math.log(max(2, num_choices))
    mean = [fmean(shares) for shares in zip(*distributions)]
    return _entropy_nats(mean) / scale, fmean(map(_entropy_nats, distributions)) / scale
