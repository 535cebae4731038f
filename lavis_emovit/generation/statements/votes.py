"""Votes of several models about the emotions of an image, at the secondary level of Parrott's tree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lavis_emovit.emotion.parrott import polarity_of
from lavis_emovit.generation.statements.proposals import Attachment, Proposal


@dataclass(frozen=True)
class Verdict:
    """What the models agree on about an image.

    Attributes:
        words: kept words in the order of their votes -> secondary emotion.
        votes: secondary emotion -> models that proposed a word of it, also of those without enough votes.
        unattached: proposed words without a place on the tree.
    """

    words: dict[str, str]
    votes: dict[str, int]
    unattached: tuple[str, ...]

    @property
    def polarity(self) -> str:
        """`pleasant`, `unpleasant`, `mixed`, or `neither` (surprise alone), of the kept words."""
        found = {polarity_of(secondary) for secondary in self.words.values()} - {"neither"}
        return "mixed" if len(found) > 1 else next(iter(found), "neither")


def vote(proposals: Sequence[Proposal], attach: Attachment, *, least_share: float, num_words: int) -> Verdict:
    """Keep secondary emotions that at least `least_share` of the models propose, and their most frequent words.

    A model votes once for each secondary emotion. The `num_words` places are divided in proportion to the votes, by
    largest remainders, with at least one for each kept emotion.
    """
    votes: Counter[str] = Counter()
    counts: Counter[tuple[str, str]] = Counter()  # (secondary, word) -> models
    unattached: dict[str, None] = {}
    for proposal in proposals:
        placed = {}
        for word, _ in proposal.words:
            if (found := attach(word)) is None:
                unattached[word] = None
            else:
                placed[found[0]] = found[1]
        votes.update(set(placed.values()))
        counts.update((secondary, word) for word, secondary in placed.items())
    kept = [name for name, number in votes.items() if number >= least_share * len(proposals)]
    kept.sort(key=lambda name: (-votes[name], name))
    total = sum(votes[name] for name in kept)
    shares = {name: num_words * votes[name] / total for name in kept}
    quota = {name: max(1, int(share)) for name, share in shares.items()}
    for name in sorted(kept, key=lambda name: int(shares[name]) - shares[name])[
        : max(0, num_words - sum(quota.values()))
    ]:
        quota[name] += 1
    words: dict[str, str] = {}
    for name in kept:
        of_name = sorted((-number, word) for (secondary, word), number in counts.items() if secondary == name)
        words |= {word: name for _, word in of_name[: quota[name]]}
    return Verdict(words, dict(votes), tuple(unattached))
