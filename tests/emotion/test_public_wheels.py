"""Reading the public mapping of words to emotion wheels.

- A file in the published layout, `.npz` or the same as JSON, gives each word the cluster of the published rule on each
  wheel and level, and no word that the mapping lacks.
- The golden values of the published metric (computed with the published mapping and code) come out of such a file.
- Nothing that a file names is run, and files of another layout are refused by name.
"""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from lavis_emovit.emotion.answer_words import read_words
from lavis_emovit.emotion.wheels import emotion_wheels
from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.evaluation.metrics.wheels import word_metrics
from lavis_emovit.evaluation.predictions import PredictionRow

# The words of the golden values as the published mapping has them: `excited` is with `happy` on two of five wheels.
_APART = {"happy": "joy", "excited": "ecstasy", "angry": "anger", "sad": "sadness"}
_JOINED = {"happy": "happy", "excited": "happy", "angry": "mad", "sad": "sad"}
MAPPING = {
    "format_mapping": {
        "happy": ["happy"], "happily": ["happy"], "joyful": ["joyful", "joy"], "joy": ["joy"], "excited": ["excited"],
        "angry": ["angry"], "sad": ["sad"], "melancholy": ["melancholy"], "at ease": ["at ease"], "chair": ["chair"],
        "don\u2019t care": ["careless"],
    },
    "raw_mapping": {
        "happy": ["happy"], "joyful": ["zest"], "joy": ["happy", "cheer"], "excited": ["excited"], "angry": ["angry"],
        "sad": ["sad"], "melancholy": ["sad", "pensive"], "at ease": ["happy"], "chair": ["furniture"],
        "careless": ["sad"],
    },
    "wheel_map_whole": {
        f"wheel{n}": {"level1": _JOINED if n in (2, 3) else _APART, "level2": {word: word for word in _APART}}
        for n in range(1, 6)
    },
}  # fmt: skip


@pytest.fixture(params=("npz", "json"))
def published(request, tmp_path):
    path = tmp_path / f"mapping.{request.param}"
    if request.param == "npz":
        np.savez(path, **{key: np.array(value, dtype=object) for key, value in MAPPING.items()})
    else:
        path.write_text(json.dumps(MAPPING))
    return path


def _row(number, labels, predictions):
    named = {"labels": labels, "predictions": predictions}
    return PredictionRow(instance_id=str(number), record_id=str(number), label=None, prediction=None, **named)


def _cluster(wheels, word, wheel):
    return wheels.wheel(wheel).cluster_of.get(wheels.word(word) or "")


def test_golden_values_of_the_published_metric(published):
    wheels = emotion_wheels(published)
    answers = [read_words(text, wheels) for text in ("joyful, angry", "melancholy")]
    rows = [_row(0, ("happy", "excited"), answers[0]), _row(1, ("sad",), answers[1])]
    found = word_metrics(rows, wheels)
    assert (round(found.f1, 4), round(found.precision, 4), round(found.recall, 4)) == (0.7929, 0.75, 0.85)
    assert [round(one.f1, 4) for one in found.wheels.values()] == [0.75, 0.8571, 0.8571, 0.75, 0.75]


def test_words_have_the_clusters_of_the_published_rule(published):
    for level in ("level1", "level2"):
        wheels = emotion_wheels(published, level=level)
        for name, levels in MAPPING["wheel_map_whole"].items():
            for word, bases in MAPPING["format_mapping"].items():
                reached = sorted(one for base in bases for one in MAPPING["raw_mapping"][base])
                expected = next((levels[level][one] for one in reached if one in levels[level]), None)
                assert _cluster(wheels, word, name) == expected, (level, name, word)
    # "joyful" also leads to "cheer", which is on no wheel; "joyfully" is an inflection that the mapping lacks.
    assert wheels.word("joyfully") is None and wheels.word("Joyful") is not None
    assert wheels.word("don't care") is not None and wheels.word("chair") is None


class _Harmful:
    def __reduce__(self):
        return os.system, ("touch harm",)


def test_nothing_that_a_file_names_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    harmful = {**MAPPING, "raw_mapping": {"happy": _Harmful()}}
    np.savez("wheels.npz", **{key: np.array(value, dtype=object) for key, value in harmful.items()})
    with pytest.raises(DataError, match=r"wheels\.npz: expected the public mapping .*it contains \w+\.system"):
        emotion_wheels("wheels.npz")
    assert not (tmp_path / "harm").exists()


def test_other_files_are_refused_by_name(tmp_path):
    np.savez(tmp_path / "other.npz", format_mapping=np.array({}, dtype=object))
    with pytest.raises(DataError, match=r"other\.npz: expected the public mapping .*raw_mapping"):
        emotion_wheels(tmp_path / "other.npz")
    np.savez(tmp_path / "numbers.npz", **{key: np.arange(3) for key in MAPPING})
    with pytest.raises(DataError, match=r"numbers\.npz: expected the public mapping"):
        emotion_wheels(tmp_path / "numbers.npz")
    (tmp_path / "part.json").write_text(json.dumps({**MAPPING, "raw_mapping": {}}))
    with pytest.raises(DataError, match=r"part\.json: not as the public mapping of wheels at 'level1' \(KeyError"):
        emotion_wheels(tmp_path / "part.json")
    path = tmp_path / "levels.json"
    path.write_text(json.dumps(MAPPING))
    with pytest.raises(DataError, match=r"levels\.json: .*'level3'"):
        emotion_wheels(path, level="level3")
    (tmp_path / "none.json").write_text("[1")
    with pytest.raises(ConfigError, match=r"none\.json"):
        emotion_wheels(tmp_path / "none.json")
