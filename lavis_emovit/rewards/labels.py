"""Rewards of the label: exact, by similarity of labels, and by polarity."""

from __future__ import annotations

import functools
from typing import Annotated, Literal

from pydantic import Field, field_validator

from lavis_emovit.emotion.label_affect import affect_distances, affect_of_labels
from lavis_emovit.emotion.label_set import LabelSet
from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord
from lavis_emovit.rewards.reading import claim, is_right, label_set_of, true_labels
from lavis_emovit.rewards.registry import Reward, RewardSettings, register_reward

_Value = Annotated[float, Field(ge=-1.0, le=1.0)]
# Label -> valence, arousal and dominance.
Values = dict[str, tuple[_Value, _Value, _Value]]
_Share = Annotated[float, Field(ge=0.0, le=1e6)]


def label_exact(answer: str, record: EmotionRecord, settings: RewardSettings) -> float:
    """1 if the answer claims the label of the record (one of them, if it has several), else 0.

    The label is read strictly (`lavis_emovit.emotion.answers`): an answer that names several labels claims none.
    Range 0 to 1. Source: the accuracy reward of all systems, DeepSeek-R1 (arXiv 2501.12948).
    """
    return float(is_right(answer, record))


class LabelVadSettings(RewardSettings):
    """Similarity of labels by valence, arousal and dominance."""

    # Label -> its three values in [-1, 1]; they replace published ones.
    values: Values = Field(default_factory=dict)
    dimensions: tuple[_Share, _Share, _Share] = (0.5, 0.3, 0.2)  # weights of valence, arousal, dominance
    power: float = Field(default=3.0, gt=0.0)
    # The distance that gives 0: the greatest of the label set, so that the matrix is symmetric, or the greatest from
    # the true label, as in EEmo-Logic.
    farthest: Literal["set", "label"] = "set"

    @field_validator("dimensions")
    @classmethod
    def _something_counts(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if not any(value):
            raise ValueError("must have a weight above 0, else all labels are alike")
        return value


def label_vad(answer: str, record: EmotionRecord, settings: LabelVadSettings) -> float:
    """(1 - d / d_max) ** power, with the distance d of the claimed from the true label; 1 for the true label.

    d is the weighted Euclidean distance of their valence, arousal and dominance. 0 for an answer without a label. The
    nearest label counts if a record has several. Range 0 to 1. Source: EEmo-Logic (ICML 2026), which mixes it with a
    similarity of text embeddings; values: Warriner et al. 2013.
    """
    labels = label_set_of(record)
    claimed = claim(answer, labels).label
    if claimed is None:
        return 0.0
    similar = _similarities(labels, _frozen(settings.values), settings.dimensions, settings.farthest)
    return float(max(similar[true, claimed] for true in true_labels(record)) ** settings.power)


def _frozen(values: Values) -> tuple[tuple[str, tuple[float, float, float]], ...]:
    return tuple(values.items())


@functools.lru_cache(maxsize=64)
def _similarities(
    labels: LabelSet,
    values: tuple[tuple[str, tuple[float, float, float]], ...],
    dimensions: tuple[float, float, float],
    farthest: str,
) -> dict[tuple[str, str], float]:
    """(true label, claimed label) -> similarity in [0, 1]."""
    distances = affect_distances(affect_of_labels(labels, dict(values)), dimensions)
    greatest = max(distances.values())
    of_label = {true: max(distances[true, other] for other in labels.labels) for true in labels.labels}
    return {
        pair: 1.0 - distance / ((greatest if farthest == "set" else of_label[pair[0]]) or 1.0)
        for pair, distance in distances.items()
    }


def _without_values(record: EmotionRecord, settings: LabelVadSettings) -> str | None:
    try:
        affect_of_labels(label_set_of(record), settings.values)
    except DataError as error:
        return f"cannot compare labels ({error})"
    return None


class PolaritySettings(RewardSettings):
    """Polarity of the claimed label."""

    # Whether "positive" and "negative" count as answers, if the answer claims no label.
    words: bool = True


def polarity(answer: str, record: EmotionRecord, settings: PolaritySettings) -> float:
    """1 if the claimed label has the polarity of the true one (of one of them), else 0, also without a label.

    Range 0 to 1. Source: the two-class task of EmoSet and FI; as a reward, this package.
    """
    labels = label_set_of(record)
    claimed = claim(answer, labels).label
    found = labels.polarity.get(claimed) if claimed is not None else None
    if found is None and settings.words:
        found = claim(answer, get_label_set("polarity2")).label
    return float(found is not None and found in {labels.polarity.get(true) for true in true_labels(record)})


register_reward(Reward("label_exact", label_exact, needs=frozenset({"label"})))
register_reward(
    Reward("label_vad", label_vad, LabelVadSettings, needs=frozenset({"label"}), fault=_without_values),
)
register_reward(Reward("polarity", polarity, PolaritySettings, needs=frozenset({"label", "polarity"})))
