"""Reward of a tree of attributes, expression and emotion."""

from __future__ import annotations

import math
import re
from typing import Literal

from pydantic import Field

from lavis_emovit.emotion.label_set import spelling
from lavis_emovit.emotion.templates import TREE
from lavis_emovit.records import EmotionRecord
from lavis_emovit.rewards.reading import claim, label_set_of, true_labels
from lavis_emovit.rewards.registry import Reward, RewardSettings, register_reward

AttributeName = Literal["scene", "object", "human_action"]
_NOTHING = frozenset({"", "none", "no", "nothing", "no face", "no faces"})


class TreeSettings(RewardSettings):
    """The trees."""

    decay: float = Field(default=0.5, gt=0.0)  # lambda; the paper's value is not known
    attributes: tuple[AttributeName, ...] = ("scene", "object", "human_action")


def tree(answer: str, record: EmotionRecord, settings: TreeSettings) -> float:
    """exp(-decay * d), with the edit distance d of the answer's tree from the record's.

    A tree has three levels: attributes, expression, emotion. A level has its words as leaves, in no order, and levels
    are only compared with themselves, so d is the sum over levels of max(|A|, |B|) - |A n B|: a leaf that is added,
    removed or replaced costs 1. The answer has the template `tree`. Range 0 to 1. Source: the affective-tree reward of
    VidEmo (NeurIPS 2025).
    """
    parts = TREE.take_apart(answer).parts
    claimed = claim(answer, label_set_of(record)).label
    levels = (
        (_leaves(parts.get("attributes", "")), _attributes(record, settings)),
        (_leaves(parts.get("expression", "")), _leaves(record.attributes.facial_expression or "")),
        (frozenset({claimed} - {None}), true_labels(record)),
    )
    distance = sum(max(len(said), len(true)) - len(said & true) for said, true in levels)
    return math.exp(-settings.decay * distance)


def _leaves(text: str) -> frozenset[str]:
    return frozenset(spelling(item).rstrip(".") for item in re.split(r"[,;\n]", text)) - _NOTHING


def _attributes(record: EmotionRecord, settings: TreeSettings) -> frozenset[str]:
    found: list[str] = []
    for name in settings.attributes:
        value = getattr(record.attributes, name)
        found += value if isinstance(value, list) else [value] if value else []
    return frozenset().union(*map(_leaves, found))  # as in an answer: "table, chairs" are two leaves


register_reward(Reward("tree", tree, TreeSettings, needs=frozenset({"label", "attributes"})))
