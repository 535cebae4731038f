"""Reward of an answer against the votes of several annotators."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from lavis_emovit.emotion.answer_numbers import read_numbers
from lavis_emovit.emotion.label_affect import affect_distances, affect_of_labels
from lavis_emovit.emotion.label_set import LabelSet, folded
from lavis_emovit.emotion.templates import answer_text
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord
from lavis_emovit.rewards.labels import Values
from lavis_emovit.rewards.reading import claim, label_set_of
from lavis_emovit.rewards.registry import Range, Reward, RewardSettings, register_reward


class DistributionSettings(RewardSettings):
    """How an answer is compared with votes."""

    form: Literal["emd", "kl"] = "emd"
    # `emd`: how far apart two labels are, from 0 to 1: by their valence, arousal and dominance, or all the same.
    distance: Literal["affect", "equal"] = "affect"
    values: Values = Field(default_factory=dict)  # as for `label_vad`
    smoothing: float = Field(default=0.05, gt=0.0, lt=1.0)  # `kl`: share of an even distribution in the answer
    num_labels: int = Field(default=32, ge=2)  # `kl`: the range is that of a set with so many labels


def distribution(answer: str, record: EmotionRecord, settings: DistributionSettings) -> float:
    """How close the answer is to the votes: 1 - earth mover's distance, or -KL(votes || answer).

    An answer with numbers for labels ("awe: 60 %, fear: 40 %") is their distribution, an answer with one label is this
    label alone. `emd`: the least sum of share times distance that turns one into the other; 0 to 1, 0 for an answer
    without either. `kl`: divergence in nats, the answer mixed with a share `smoothing` of an even distribution;
    ln(smoothing / num_labels) to 0, the least for an answer without either. Range 0 to 1 (`emd`). Source: Rubner,
    Tomasi and Guibas 2000; Kullback and Leibler 1951; as rewards, this package.
    """
    labels = label_set_of(record)
    given = read_distribution(answer, labels)
    if given is None:
        return distribution_range(settings)[0]
    votes = votes_of(record, labels)
    if settings.form == "emd":
        return 1.0 - earth_movers_distance(votes, given, labels, settings)
    share = settings.smoothing
    divergence = sum(
        vote * math.log(vote / ((1 - share) * given.get(label, 0.0) + share / len(labels)))
        for label, vote in votes.items()
    )
    return max(-divergence, distribution_range(settings)[0])


def distribution_range(settings: DistributionSettings) -> Range:
    return (0.0, 1.0) if settings.form == "emd" else (math.log(settings.smoothing / settings.num_labels), 0.0)


def votes_of(record: EmotionRecord, labels: LabelSet) -> dict[str, float]:
    """Label -> share of the votes, for labels with votes; they sum to 1 exactly."""
    shares: dict[str, float] = {}
    for name, share in (record.votes or {}).items():
        if share > 0:
            shares[labels.canonical(name)] = shares.get(labels.canonical(name), 0.0) + share
    total = sum(shares.values())
    return {label: share / total for label, share in shares.items()}


def read_distribution(answer: str, labels: LabelSet) -> Mapping[str, float] | None:
    """Label -> share in an answer, or None for an answer without numbers and label."""
    text = answer_text(answer)
    if any(character.isdigit() for character in text):
        plain = folded(text)
        # One at a time: together, the reader tries every order of the names.
        found = {
            label: read_numbers(text, (label,), scale=(0.0, 100.0))[label]
            for label in labels.labels
            if folded(label) in plain
        }
        shares = {label: one.value for label, one in found.items() if one.status == "ok" and one.value}
        if shares and not any(one.status == "ambiguous" for one in found.values()):
            return {label: value / sum(shares.values()) for label, value in shares.items()}
    label = claim(answer, labels).label
    return None if label is None else {label: 1.0}


def earth_movers_distance(
    votes: Mapping[str, float], given: Mapping[str, float], labels: LabelSet, settings: DistributionSettings
) -> float:
    """Least cost of moving the shares of one distribution to the other, in [0, 1]."""
    if settings.distance == "equal":
        return sum(abs(votes.get(label, 0.0) - given.get(label, 0.0)) for label in {*votes, *given}) / 2
    distance = _distances(labels, tuple(settings.values.items()))
    if len(given) == 1 or len(votes) == 1:  # everything moves to or from one label
        return sum(x * y * distance[one, other] for one, x in votes.items() for other, y in given.items())
    return _transport(votes, given, distance)


def _transport(
    votes: Mapping[str, float], given: Mapping[str, float], distance: Mapping[tuple[str, str], float]
) -> float:
    import numpy as np
    from scipy.optimize import linprog

    rows, columns = list(votes), list(given)
    costs = [distance[one, other] for one in rows for other in columns]
    # One equation for each label: what leaves it, and what arrives.
    leaves = np.kron(np.eye(len(rows)), np.ones(len(columns)))
    arrives = np.kron(np.ones(len(rows)), np.eye(len(columns)))
    amounts = [*votes.values(), *given.values()]
    # The last equation follows from the others.
    done = linprog(costs, A_eq=np.vstack([leaves, arrives])[:-1], b_eq=amounts[:-1], method="highs")
    if not done.success:
        raise ArithmeticError(f"the transport problem was not solved: {done.message}")
    return float(min(max(done.fun, 0.0), 1.0))


@functools.lru_cache(maxsize=64)
def _distances(
    labels: LabelSet, values: tuple[tuple[str, tuple[float, float, float]], ...]
) -> dict[tuple[str, str], float]:
    distances = affect_distances(affect_of_labels(labels, dict(values)))
    greatest = max(distances.values()) or 1.0
    return {pair: one / greatest for pair, one in distances.items()}


def _fault(record: EmotionRecord, settings: DistributionSettings) -> str | None:
    labels = label_set_of(record)
    try:
        votes_of(record, labels)
        if settings.form == "emd" and settings.distance == "affect":
            affect_of_labels(labels, settings.values)
    except DataError as error:
        return f"cannot compare distributions ({error})"
    if settings.form == "kl" and len(labels) > settings.num_labels:
        return f"needs num_labels={len(labels)} or more"
    return None


register_reward(
    Reward(
        "distribution",
        distribution,
        DistributionSettings,
        range=distribution_range,
        needs=frozenset({"votes"}),
        fault=_fault,
    )
)
