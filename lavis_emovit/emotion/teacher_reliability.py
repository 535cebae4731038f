"""What the votes of teachers say about an expression, if it is known how each of them labels faces.

The confusion matrix of teacher t has the probability P_t(l | j) of each label l that it states, by expression j. A
teacher states probabilities q of the labels: its label counts as drawn from them, so the likelihood of expression j is

    L_t(j) = sum over l of q_l P_t(l | j)

A vote for one label is that of Dawid and Skene (Applied Statistics 28, 1979), and equal votes say nothing. Given the
expression, teachers are independent there, but real ones share errors. So the product over m teachers gets an exponent,
`FacialPriors.exponents[m - 1]`, which also corrects how sure single teachers are.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

from lavis_emovit.emotion.facial import FacialPriors
from lavis_emovit.errors import ConfigError

# Name and version of a teacher -> label of `expressions8` -> probability.
TeacherVotes = Mapping[str, Mapping[str, float]]
# Expression -> label -> probability; the rows sum to 1.
Confusion = dict[str, dict[str, float]]


def require_fitted(priors: FacialPriors, titles: Iterable[str]) -> None:
    """ConfigError if the tables have fitted teachers, but not all of these."""
    missing = [title for title in titles if title not in priors.teachers]
    if priors.teachers and missing:
        raise ConfigError(
            [
                f"has no reliability of {title}, only of {', '.join(priors.teachers)}; fit it with this teacher too"
                for title in missing
            ],
            "the tables",
        )


def log_likelihoods(votes: Mapping[str, float], confusion: Confusion, expressions: Collection[str]) -> dict[str, float]:
    """Expression -> log L_t of the votes of one teacher."""
    found = {}
    for name in expressions:
        row = confusion[name]
        # A label that the teacher has never stated before says nothing.
        found[name] = math.log(math.fsum(share * row.get(label, 1 / len(row)) for label, share in votes.items()))
    return found


def seen_by(votes: TeacherVotes, priors: FacialPriors) -> dict[str, float]:
    """Expression -> likelihood of the votes of one or more fitted teachers together, 1 for the likeliest.

    `infer` takes it as `seen`.
    """
    single = [
        log_likelihoods(one, priors.teachers[title].confusion, priors.expressions) for title, one in votes.items()
    ]
    logs = {name: math.fsum(one[name] for one in single) for name in priors.expressions}
    highest, exponent = max(logs.values()), priors.exponents[len(votes) - 1]
    return {name: math.exp(exponent * (log - highest)) for name, log in logs.items()}
