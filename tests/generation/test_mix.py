"""Mixes and overlap.

- A mix gives each class the requested counts, in parts without common images. The choice depends only on seed and ids,
  and the presets contain the numbers of the released scripts and of the paper.
- All classes with too few images are reported.
- Images, ids and groups that are also in a held-out set are rejected; different images of the same size are not.
"""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest

from lavis_emovit.errors import DataError
from lavis_emovit.generation.mix import MIXES, Mix, MixPart, draw_mix
from lavis_emovit.generation.pipeline import refuse_overlap
from lavis_emovit.records import EmotionRecord

LABELS = ("amusement", "anger", "awe", "contentment", "disgust", "excitement", "fear", "sadness")


def _records(per_class, labels=LABELS):
    """Only id and emotion; complete records would be slow."""
    return [SimpleNamespace(id=f"{label}/{n}", emotion=label) for label in labels for n in range(per_class)]


@pytest.mark.parametrize(("name", "num_images", "counts"), [
    ("released", 44_800, {"categorical": 36_800, "conversation": 8_000, "reasoning": 800}),
    ("paper", 51_200, {"categorical": 43_200, "conversation": 8_000, "reasoning": 800}),
])  # fmt: skip
def test_presets(name, num_images, counts):
    chosen = draw_mix(_records(6_500), MIXES[name])
    assert len(chosen) == num_images
    assert Counter(kind for kinds in chosen.values() for kind in kinds) == counts
    assert Counter(name.split("/")[0] for name in chosen) == dict.fromkeys(LABELS, num_images // 8)
    assert all("conversation" in kinds for kinds in chosen.values() if "reasoning" in kinds)
    assert not any({"categorical", "conversation"} <= set(kinds) for kinds in chosen.values())


def test_choice_depends_on_seed_and_ids():
    mix = Mix(parts=(MixPart(kinds=("reasoning",), per_class=5), MixPart(kinds=("categorical",), per_class=10)))
    records = _records(40)
    chosen = draw_mix(records, mix, seed=1)
    assert draw_mix(reversed(records), mix, seed=1) == chosen
    assert draw_mix(records, mix, seed=2) != chosen
    larger = Mix(parts=(MixPart(kinds=("reasoning",), per_class=9),))
    assert {n for n, kinds in chosen.items() if "reasoning" in kinds} < set(draw_mix(records, larger, seed=1))
    assert set(draw_mix(records, MIXES["all"]).values()) == {MIXES["all"].parts[0].kinds}


def test_too_few_images():
    with pytest.raises(DataError, match=r"anger: 3 images, the mix needs 4\n.*awe: 3 images(.|\n)*--allow-short"):
        draw_mix(_records(3, ("anger", "awe")), Mix(parts=(MixPart(kinds=("reasoning",), per_class=4),)))
    chosen = draw_mix(_records(3), MIXES["released"], allow_short=True)
    assert set(chosen.values()) == {("conversation", "reasoning")}
    with pytest.raises(ValueError, match=r"Input should be .categorical., .conversation."):
        MixPart(kinds=("humor",))


def test_overlap(tmp_path):
    def record(name, content, **changes):
        path = tmp_path / f"{name}.jpg"
        path.write_bytes(content)
        values = {"id": name, "image": path.name, "split": "test", "source": "a", **changes}
        return EmotionRecord(**values)

    training = [record("one", b"x" * 10), record("two", b"y" * 10, group="p1"), record("three", b"z" * 20)]
    fine = [
        record("four", b"w" * 10),
        record("five", b"v" * 7, group="p2"),
        record("six", b"u", group="p1", source="b"),
    ]
    refuse_overlap(training, fine, tmp_path, tmp_path)
    with pytest.raises(
        DataError, match=r"2 held-out(.|\n)*'seven' .* same image as 'three'(.|\n)*'eight' .* group 'p1'"
    ):
        refuse_overlap(
            training, [*fine, record("seven", b"z" * 20), record("eight", b"t", group="p1")], tmp_path, tmp_path
        )
    for one, other in (("Jos\u00e9", "Jose\u0301"), ("\u1112\u1161\u11ab", "\ud55c"), ("A\u030asa", "\u00c5sa")):
        with pytest.raises(DataError, match=f"'eight' .* group '{other}'"):
            eight = record("eight", b"t", group=other)
            refuse_overlap([record("nine", b"yy", group=one)], [eight], tmp_path, tmp_path)
    with pytest.raises(DataError, match=r"'one' .* is also in the training data"):
        refuse_overlap(training, training[:1], tmp_path, tmp_path)
