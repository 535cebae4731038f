"""Read the emotion that a reason leads to, by the words of emotion in it: the deterministic stand-in for a judge."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from lavis_emovit.emotion.answer_claims import Text, Words
from lavis_emovit.emotion.answer_phrases import SENTENCE_END
from lavis_emovit.emotion.answer_sentences import emotions_claimed
from lavis_emovit.emotion.answers import text_and_words
from lavis_emovit.emotion.label_set import LabelSet
from lavis_emovit.emotion.wheels import emotion_wheels

_MASK = "something"


def without_labels(text: str, label_set: LabelSet) -> str:
    """A text, folded, with the word "something" in place of every label in any of its forms."""
    return _masked(*text_and_words(text, label_set))


def _masked(plain: str, words: Words) -> str:
    for mention in reversed(Text(plain, Words()).find(words)):
        plain = plain[: mention.start] + _MASK + plain[mention.end :]
    return plain


def emotions_of_reason(reason: str, label_set: LabelSet) -> tuple[str | None, str | None]:
    """The label that a reason leads to, by all of its words and by those that are not a label themselves.

    It is the label whose words most sentences claim; None if no label has any, or if several have as many. Words count
    for the label in whose cluster they are, on the packaged wheel that keeps most labels of the set apart.
    """
    label_of, lexicon = _labels_of_words(label_set), emotion_wheels().lexicon
    # No label goes beyond the end of a sentence.
    sentences = SENTENCE_END.split(text_and_words(reason, label_set)[0])
    masked = [claimed for sentence in sentences for claimed in _claimed_without_labels(sentence, label_set)]
    return _most_claimed(emotions_claimed(reason, lexicon), label_of), _most_claimed(masked, label_of)


@functools.lru_cache(maxsize=1 << 13)  # models repeat sentences
def _claimed_without_labels(sentence: str, label_set: LabelSet) -> tuple[frozenset[str], ...]:
    text = _masked(*text_and_words(sentence, label_set))
    return tuple(emotions_claimed(text, emotion_wheels().lexicon))


def _most_claimed(claims: Sequence[frozenset[str]], label_of: Mapping[str, str]) -> str | None:
    counts: dict[str, int] = {}
    for claimed in claims:
        for label in {label_of[word] for word in claimed if word in label_of}:
            counts[label] = counts.get(label, 0) + 1
    most = max(counts.values(), default=0)
    leading = [label for label, count in counts.items() if count == most]
    return leading[0] if len(leading) == 1 else None


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
