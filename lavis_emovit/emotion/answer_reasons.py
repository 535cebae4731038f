"""Read the emotion that a reason leads to, by the words of emotion in it: the deterministic stand-in for a judge."""

from __future__ import annotations

import functools
from collections import Counter

from lavis_emovit.emotion.answer_claims import Text, Words
from lavis_emovit.emotion.answer_sentences import emotions_claimed
from lavis_emovit.emotion.answers import text_and_words
from lavis_emovit.emotion.label_set import LabelSet
from lavis_emovit.emotion.wheels import emotion_wheels

_MASK = "something"


def without_labels(text: str, label_set: LabelSet) -> str:
    """A text, folded, with the word "something" in place of every label in any of its forms."""
    plain, words = text_and_words(text, label_set)
    for mention in reversed(Text(plain, Words()).find(words)):
        plain = plain[: mention.start] + _MASK + plain[mention.end :]
    return plain


def emotion_of_reason(reason: str, label_set: LabelSet, *, mask: bool = True) -> str | None:
    """The label whose words most sentences of a reason claim; None if no label has any, or if several have as many.

    Words count for the label in whose cluster they are, on the packaged wheel that keeps most labels of the set apart.

    Args:
        mask: leave out the labels themselves, so that only other words lead to the emotion.
    """
    label_of = _labels_of_words(label_set)
    text = without_labels(reason, label_set) if mask else reason
    counts: Counter[str] = Counter()
    for claimed in emotions_claimed(text, emotion_wheels().lexicon):
        counts.update({label_of[word] for word in claimed if word in label_of})
    best = counts.most_common(2)
    return best[0][0] if best and (len(best) == 1 or best[0][1] > best[1][1]) else None


def has_words_for(label_set: LabelSet) -> bool:
    """Whether reasons can be read: a wheel has words for two or more labels of the set."""
    return len(set(_labels_of_words(label_set).values())) > 1


@functools.lru_cache(maxsize=64)
def _labels_of_words(label_set: LabelSet) -> dict[str, str]:
    """Word of the wheels -> the label of the set that it stands for."""
    wheels = emotion_wheels()
    own = {word: label for label in label_set.labels if (word := wheels.word(label)) is not None}
    best: dict[str, str] = {}
    for wheel in wheels.wheels.values():
        labels_of: dict[str, list[str]] = {}
        for word, label in own.items():
            if word in wheel.cluster_of:
                labels_of.setdefault(wheel.cluster_of[word], []).append(label)
        alone = {cluster: labels[0] for cluster, labels in labels_of.items() if len(labels) == 1}
        found = {word: alone[cluster] for word, cluster in wheel.cluster_of.items() if cluster in alone}
        if (len(set(found.values())), len(found)) > (len(set(best.values())), len(best)):
            best = found
    return {**best, **own}
