"""Splits by group.

- No group is divided, no record lost or changed except for its split; every split gets its share within one group.
- The result depends on groups and seed, not on the order of the records; other seeds give other splits.
- Holding out moves groups of one split only.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord
from lavis_emovit.sources.splits import hold_out_by_group, split_by_group


def _records(groups):
    return [
        EmotionRecord(id=f"a/{number}", image="a.jpg", split="train", source="a", group=group)
        for number, group in enumerate(groups)
    ]


FRACTIONS = {"train": 0.6, "val": 0.15, "test": 0.25}


@given(st.lists(st.sampled_from([None, *"abcdefghij"]), min_size=30, max_size=60), st.integers(0, 99))
def test_no_group_is_divided_and_nothing_is_lost(groups, seed):
    records = _records(groups)
    result = split_by_group(records, FRACTIONS, seed)
    assert [record.model_copy(update={"split": "train"}) for record in result] == records
    splits_of = defaultdict(set)
    for record in result:
        splits_of[record.group or record.id].add(record.split)
    assert all(len(splits) == 1 for splits in splits_of.values())
    counts = Counter(next(iter(splits)) for splits in splits_of.values())
    for name, share in FRACTIONS.items():
        assert counts[name] >= 1
        assert abs(counts[name] - share * len(splits_of)) <= 1
    assert split_by_group(records[::-1], FRACTIONS, seed)[::-1] == list(result)


def test_seeds_give_other_splits():
    records = _records([str(number // 2) for number in range(80)])
    tests = {
        tuple(record.id for record in split_by_group(records, FRACTIONS, seed) if record.split == "test")
        for seed in range(5)
    }
    assert len(tests) == 5


@pytest.mark.parametrize("fractions", [{"train": 0.5, "test": 0.4}, {"train": 1.5, "test": -0.5}])
def test_shares_must_sum_to_one(fractions):
    with pytest.raises(DataError, match="sum to 1"):
        split_by_group(_records("abc"), fractions, 0)


def test_too_few_groups_are_refused():
    with pytest.raises(DataError, match="2 groups are too few"):
        split_by_group(_records("aabb"), FRACTIONS, 0)
    assert {record.split for record in split_by_group(_records("abc"), FRACTIONS, 0)} == set(FRACTIONS)


def test_holding_out_moves_groups_of_one_split_only():
    records = _records([str(number // 2) for number in range(40)])
    records = [
        record.model_copy(update={"split": "test"}) if number >= 20 else record for number, record in enumerate(records)
    ]
    result = hold_out_by_group(records, 0.2, seed=1)
    assert Counter(record.split for record in result) == {"train": 16, "val": 4, "test": 20}
    assert result[20:] == records[20:]
    assert not {r.group for r in result if r.split == "val"} & {r.group for r in result if r.split == "train"}
    with pytest.raises(DataError, match="between 0 and 1"):
        hold_out_by_group(records, 0.0, seed=1)


FORMS = ("NFC", "NFD")


@pytest.mark.parametrize("name", ["José {}", "각 {}", "Ṩ{}"])
@pytest.mark.parametrize("stratify", [False, True])
def test_a_group_in_two_forms_of_unicode_is_not_divided(name, stratify):
    written = [unicodedata.normalize(FORMS[number // 12 % 2], name.format(number % 12)) for number in range(48)]
    assert len(set(written)) == 24
    records = _records(written)
    for done in (
        split_by_group(records, FRACTIONS, 0, stratify=stratify),
        hold_out_by_group(records, 0.3, 0),
        # Records of one form only, of which the comparison of duplicates knows both.
        hold_out_by_group(records, 0.3, 0, joined={f"group {one}": f"group {one}" for one in written}),
    ):
        splits_of = defaultdict(set)
        for record, name_given in zip(done, written):
            assert record.group == name_given
            splits_of[record.group_key].add(record.split)
        assert [len(splits) for splits in splits_of.values()] == [1] * 12


@pytest.mark.parametrize("form", FORMS)
def test_groups_in_one_form_of_unicode_are_drawn_as_before(form):
    records = _records([unicodedata.normalize(form, f"{letter}{n}") for letter in "éEaz" for n in range(4)])
    done = split_by_group(records, {"train": 0.5, "test": 0.5}, 3)
    # Golden: the draw of version 0.1.0, which compared the names as they are written.
    drawn = "".join("x" if record.split == "train" else "." for record in done)
    assert drawn == {"NFC": "xx..x..xx.x...xx", "NFD": "..xxx..xx.x.xx.."}[form]
