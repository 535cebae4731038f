"""Answers of 200 words and a record with everything, for tests and benchmarks of rewards."""

from __future__ import annotations

import random

from lavis_emovit.emotion.labels import MIKELS8
from lavis_emovit.records import EmotionRecord

RECORD = EmotionRecord(
    id="set/1",
    image="1.jpg",
    split="train",
    source="set",
    emotion="awe",
    label_set="mikels8",
    votes={"awe": 0.6, "fear": 0.3, "excitement": 0.1},
    valence=0.5,
    arousal=0.25,
    action_units={6: 1.0, 12: 1.0, 4: 0.0},
    attributes={"scene": "mountain", "object": ["lake", "snow"], "facial_expression": "smile"},
)
_PLAIN = """
the a of over under tall quiet cold bright mountain lake snow path figure stands light falls softly far near cloud
valley edge water stone tree wind morning evening small wide open field house road people walk child dog hand coat
hat red blue green shadow line shape center left right corner sky ground river bridge
""".split()
_FELT = "awe wonder fear calm peaceful sad joyful thrilling dread majestic lonely excited".split()


def long_answer(seed: int, num_words: int = 200) -> str:
    """Reasoning with words of emotion, denials and action units, an answer and a confidence."""
    chance = random.Random(seed)
    sentences, count = [], 0
    while count < num_words - 4:
        words = chance.choices(_PLAIN, k=min(chance.randint(9, 16), num_words - 4 - count))
        kind = chance.random()
        if kind < 0.4:
            words[chance.randrange(len(words))] = chance.choice(_FELT)
        elif kind < 0.5:
            words[:2] = ["there", "is", "no", chance.choice(_FELT)][:4]
        elif kind < 0.6:
            words[0] = f"AU{chance.choice((4, 6, 12, 25))}"
        count += len(words)
        sentences.append(" ".join(words).capitalize() + ".")
    label, c = chance.choice(MIKELS8.labels), chance.random()
    return f"<think>{' '.join(sentences)}</think><answer>{label}</answer><confidence>{c:.2f}</confidence>"
