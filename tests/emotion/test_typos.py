"""Misspelt class names.

- A rare name one letter away from a frequent one is reported with it: a wrong, missing, added or exchanged letter.
- Real classes are not: as frequent, both in one published label set, short, or the same label in another spelling.
- The setting that maps it is read back as it was meant, also with spaces and quotes.
"""

from __future__ import annotations

import shlex

import pytest
import yaml

from lavis_emovit.emotion.typos import find_typos


@pytest.mark.parametrize("name", ["happines", "hapiness", "hapipness", "happimess", "happinness", "Happiness s"])
def test_a_rare_name_near_a_frequent_one(name):
    (typo,) = find_typos({name: 3, "happiness": 400, "sadness": 390})
    assert (typo.name, typo.count, typo.intended, typo.intended_count) == (name, 3, "happiness", 400)
    assert str(typo) == f"'{name}' (3 images) is probably a misspelt 'happiness' (400 images)"


@pytest.mark.parametrize(
    "counts",
    [
        {"happines": 100, "happiness": 400},  # four times as many
        {"cat": 1, "cap": 100},
        {"positive": 1, "passive": 90},
        {"Calm": 1, "calm ": 90, "CALM_": 400},
        {"cheerfullness": 1, "cheerfulness": 90},  # an alias of webemo25
        {"happily surprised": 1, "sadly surprised": 300},
        {"1": 1, "2": 500},
    ],
)
def test_other_names_are_no_typos(counts):
    assert find_typos(counts) == []


def test_the_nearest_name_is_the_intended_one():
    (typo,) = find_typos({"contenment": 1, "contentment": 50, "contentmant": 90})
    assert typo.intended == "contentment"
    hyphen = find_typos({"well-being": 1, "well beeing": 40})
    assert [one.intended for one in hyphen] == ["well beeing"]


def test_the_setting_is_read_as_meant():
    (typo,) = find_typos({'very "calmn"': 1, 'very "calm"': 90})
    key, _, value = shlex.split(typo.as_setting())[0].partition("=")
    assert key == "label_names" and yaml.safe_load(value) == {'very "calmn"': 'very "calm"'}
