"""tools/bench/readers.py.

- Its answers are read as the label or option that they were made from, and have the stated length.
- The numbers of docs/evaluation.md are those of the benchmark.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lavis_emovit.emotion.answers import read_choice, read_emotion
from lavis_emovit.emotion.labels import get_label_set

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools" / "bench"))

import readers  # noqa: E402


@pytest.mark.parametrize("kind", range(6))
def test_every_answer_is_read_as_what_it_was_made_from(kind):
    answers = readers.answers()[kind]
    made_from = [label for label in readers.LABELS for _ in readers.REASONS] * 10
    assert len(answers) == len(made_from)
    for text, label in zip(answers[:24], made_from):
        if kind < 3:
            assert read_emotion(text, get_label_set("mikels8")).label == label
        else:
            options = [name.capitalize() for name in readers.LABELS]
            assert read_choice(text, options) == ("ok", readers.LABELS.index(label))


def test_the_page_states_the_result():
    result = json.loads((ROOT / "benchmarks" / "readers.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    for rate in result["answers_per_s"].values():
        assert f"{rate:,}" in page
    assert f"{result['times_faster']['both']} times" in page and round(result["words_per_answer"]) == 46
