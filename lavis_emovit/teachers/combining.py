"""Several teachers as annotators of one face: what they say together, and how much they doubt and disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from lavis_emovit.emotion.entropy import entropy_parts
from lavis_emovit.emotion.facial import FacialPriors
from lavis_emovit.emotion.facial_knowledge import Evidence, infer
from lavis_emovit.emotion.labels_faces import EXPRESSIONS7
from lavis_emovit.emotion.teacher_reliability import TeacherVotes, seen_by


@dataclass(frozen=True)
class Combined:
    """The mean of the teachers' distributions p_t over C labels, or the posterior of `weigh`.

    Entropies are divided by log(C), so they are in [0, 1].

    Attributes:
        votes: label -> probability, sum 1.
        entropy: of the votes, the whole uncertainty.
        mutual_information: what comes from disagreement, H(mean p_t) - mean H(p_t); 0 for one teacher. It is a part of
            the entropy of a mean, and the rest is doubt within the teachers.
    """

    votes: dict[str, float]
    entropy: float
    mutual_information: float

    @property
    def label(self) -> str:
        """The most likely label; the first in the alphabet of a tie."""
        return min(self.votes, key=lambda name: (-self.votes[name], name))


def combine(distributions: Sequence[Mapping[str, float]]) -> Combined:
    """Combine one or more distributions; a label that a teacher does not know has the probability 0 there.

    C is the number of their labels, and at least that of `expressions7`. The split of the entropy is that of
    `entropy_parts`, with teachers in place of weights.
    """
    labels = sorted({*EXPRESSIONS7.labels, *(name for one in distributions for name in one)})
    shares = [[one.get(name, 0.0) for name in labels] for one in distributions]
    mean = {name: fmean(column) for name, column in zip(labels, zip(*shares))}
    entropy, within = entropy_parts(shares, len(labels))
    return Combined(mean, entropy, max(0.0, entropy - within))


def weigh(votes: TeacherVotes, priors: FacialPriors, classes: Sequence[str]) -> Combined:
    """Combine the votes of one or more teachers by their fitted reliability and by how frequent expressions are.

    The result has the posterior over the classes, expressions of `priors`, at least one of them. Its
    `mutual_information` is that of the posteriors of the single teachers.
    """

    def posterior(some: TeacherVotes) -> list[float]:
        found = infer(priors, Evidence(), classes=classes, units=(), seen=seen_by(some, priors)).expressions
        return [found.get(name, 0.0) for name in classes]

    together = posterior(votes)
    entropy, _ = entropy_parts([together], len(classes))
    of_mean, within = entropy_parts([posterior({title: one}) for title, one in votes.items()], len(classes))
    return Combined(dict(zip(classes, together)), entropy, max(0.0, of_mean - within))
