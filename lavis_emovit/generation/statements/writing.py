"""True statements of four kinds about an image, and a false one from each in four ways."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from lavis_emovit.emotion.parrott import PRIMARY_OF, SECONDARY_OF, polarity_of
from lavis_emovit.generation.statements.proposals import Attachment, Proposal
from lavis_emovit.generation.statements.votes import Verdict
from lavis_emovit.records import Statement

_POLARITY_TEXTS = {
    "pleasant": "The emotions that the image evokes are mainly pleasant.",
    "unpleasant": "The emotions that the image evokes are mainly unpleasant.",
    "mixed": "The image evokes pleasant and unpleasant emotions at once.",
}


@dataclass(frozen=True)
class Judged:
    """An image with what the models said about it, and a small vector of its colours."""

    record_id: str
    proposals: Sequence[Proposal]
    verdict: Verdict
    colours: Sequence[float] = ()


def write_statements(image: Judged, others: Sequence[Judged], attach: Attachment, seed: int = 0) -> list[Statement]:
    """At most eight statements; `categories` has the kind (`class`), and how a false one was made (`subclass`).

    - `interpretation`: a kept word with the reason of the first model that gave one. False (`other_image`): that of the
      image with the most similar colours whose kept words have no primary emotion in common with this one's.
    - `context`: a situation and its word, which has a place on the tree. False (`opposite_word`): with a word of the
      opposite polarity whose secondary emotion no model proposed.
    - `subjectivity`: what a viewer feels more and less. False (`reversed_preference`): the two exchanged.
    - `polarity`: pleasant, unpleasant or both. False (`flipped_polarity`): another one of these.

    A kind is left out if the models gave nothing to write it from.
    """
    rng = random.Random(f"statements/{seed}/{image.record_id}")
    pairs = [
        _interpretation(image, others, attach),
        _context(image, attach, rng),
        _subjectivity(image, attach),
        _polarity(image, rng),
    ]
    found = []
    for kind, made, true, false in filter(None, pairs):
        found.append((true, True, {"class": kind}))
        if false is not None:
            found.append((false, False, {"class": kind, "subclass": made}))
    rng.shuffle(found)
    return [
        Statement(text=text, is_correct=is_correct, categories=categories, id=f"{image.record_id}/s{number}")
        for number, (text, is_correct, categories) in enumerate(found)
    ]


# (kind, name of the way to make it false, true text, false text or None)
_Pair = tuple[str, str, str, str | None]


def _interpretation(image: Judged, others: Sequence[Judged], attach: Attachment) -> _Pair | None:
    if (text := _interpreted(image, attach)) is None:
        return None
    own = _primaries(image)
    different = [other for other in others if other.verdict.words and not own & _primaries(other)]
    different.sort(key=lambda other: (_distance(image.colours, other.colours), other.record_id))
    swapped = next((found for other in different if (found := _interpreted(other, attach)) is not None), None)
    return "interpretation", "other_image", text, swapped


def _interpreted(image: Judged, attach: Attachment) -> str | None:
    """The first kept word that a model gave a reason for."""
    for kept in image.verdict.words:
        for proposal in image.proposals:
            for word, reason in proposal.words:
                if (found := attach(word)) is not None and found[0] == kept:
                    return f"The image is likely to evoke {kept}, because {reason}."
    return None


def _context(image: Judged, attach: Attachment, rng: random.Random) -> _Pair | None:
    for proposal in image.proposals:
        text, word = proposal.situation
        if (found := attach(word)) is not None and (polarity := polarity_of(found[1])) != "neither":
            opposite = [
                other
                for other, secondary in SECONDARY_OF.items()
                if polarity_of(secondary) not in ("neither", polarity) and secondary not in image.verdict.votes
            ]
            sentence = "If the situation is “{}”, the image is likely to evoke {}."
            false = sentence.format(text, rng.choice(opposite)) if opposite else None
            return "context", "opposite_word", sentence.format(text, found[0]), false
    return None


def _subjectivity(image: Judged, attach: Attachment) -> _Pair | None:
    for proposal in image.proposals:
        role, more, less = proposal.viewer
        placed = attach(more), attach(less)
        if placed[0] is not None and placed[1] is not None and placed[0][1] != placed[1][1]:
            sentence = "Somebody who is {} would feel {} rather than {}."
            one, other = placed[0][0], placed[1][0]
            false = sentence.format(role, other, one)
            return "subjectivity", "reversed_preference", sentence.format(role, one, other), false
    return None


def _polarity(image: Judged, rng: random.Random) -> _Pair | None:
    polarity = image.verdict.polarity
    if polarity not in _POLARITY_TEXTS:
        return None
    flipped = {"pleasant": "unpleasant", "unpleasant": "pleasant"}.get(polarity)
    false = _POLARITY_TEXTS[flipped or rng.choice(("pleasant", "unpleasant"))]
    return "polarity", "flipped_polarity", _POLARITY_TEXTS[polarity], false


def _primaries(image: Judged) -> set[str]:
    return {PRIMARY_OF[secondary] for secondary in image.verdict.words.values()}


def _distance(one: Sequence[float], other: Sequence[float]) -> float:
    return sum((a - b) ** 2 for a, b in zip(one, other))
