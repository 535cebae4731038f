"""Values over time in the record of a clip.

Properties:
- a trace survives records files and shards, is counted by statistics, and its labels are checked against the label set;
- columns of other lengths, times that do not rise or are outside the clip, values out of range and unknown keys are
  errors that name them;
- repeated keys in a line of a records file are found below a trace too;
- a clip without one has the same JSON and dump as before there were traces.
"""

from __future__ import annotations

import json

import pytest
from PIL import Image

from lavis_emovit.clips.clip import Clip
from lavis_emovit.errors import DataError
from lavis_emovit.records import build_record, read_records, write_records
from lavis_emovit.shards.index import ShardIndex
from lavis_emovit.shards.reader import ShardReader
from lavis_emovit.shards.writer import write_shards
from lavis_emovit.sources.statistics import count_records, labels_outside

TRACE = {
    "times_s": [0, 0.5, 1.0],
    "emotion": ["neutral", None, "joy"],
    "valence": [0, 0.25, 0.5],
    "action_units": {"12": [0, 1, 2.5]},
}
FRAMES = [f"{number}.png" for number in range(3)]


def record_with(trace, **clip):
    clip = clip or {"frames": FRAMES, "rate_fps": 2}
    values = {"id": "c/1", "image": "0.png", "split": "train", "source": "c", "label_set": "labels: joy, neutral"}
    return build_record({**values, "clip": {**clip, "trace": trace}}, "records.jsonl:1")


def test_a_trace_goes_with_its_record(tmp_path):
    record = record_with(TRACE)
    assert record.clip.trace.action_units == {12: (0.0, 1.0, 2.5)} and record.clip.trace.emotion[1] is None
    assert {record.clip: 1} == {record_with(TRACE).clip: 1}
    write_records(tmp_path / "records.jsonl", [record])
    assert list(read_records(tmp_path / "records.jsonl")) == [record]
    for number, name in enumerate(FRAMES):
        Image.new("RGB", (8, 8), (90 * number,) * 3).save(tmp_path / name)
    write_shards([record], tmp_path, tmp_path / "train")
    assert ShardReader(ShardIndex.load(tmp_path / "train" / "index.json")).read(0).record == record
    counted = count_records([record, record_with(TRACE).model_copy(update={"id": "c/2", "clip": None})])
    assert (counted.num_traces, counted.to_dict()["num_traces"]) == (1, 1)
    assert labels_outside([record]) == []
    (line,) = labels_outside([record_with({**TRACE, "emotion": ["neutral", None, "jog"]})])
    assert line.startswith("1 records, the first c/1: ") and "jog" in line


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        ({**TRACE, "valence": [0, 1]}, "has 3 times_s, but 2 values of valence"),
        ({**TRACE, "action_units": {"4": [1]}}, "has 3 times_s, but 1 values of action_units.4"),
        ({**TRACE, "times_s": [0, 0.5, 0.5]}, "times_s must increase"),
        ({"times_s": [0]}, "has times_s but no values"),
        ({**TRACE, "valence": [0, 0, 1.5]}, "less than or equal to 1"),
        ({**TRACE, "action_units": {"12": [0, 0, 6]}}, "less than or equal to 5"),
        ({**TRACE, "times_s": [0, 0.5, 9]}, "trace is from 0 to 9 s, but the clip from 0 to 1 s"),
        ({**TRACE, "arousl": [0, 0, 0]}, r"unknown key 'clip.trace.arousl' \(did you mean 'arousal'"),
    ],
)
def test_wrong_traces_are_named(trace, expected):
    with pytest.raises(DataError, match=expected) as raised:
        record_with(trace)
    assert str(raised.value).startswith("records.jsonl:1: ")


def test_times_are_those_in_the_video():
    assert record_with({**TRACE, "times_s": [7, 8, 9]}, start_s=7, end_s=9.0).clip.begin_s == 7
    with pytest.raises(DataError, match="trace is from 0 to 1 s, but the clip from 7 on"):
        record_with(TRACE, start_s=7)


def test_repeated_keys_are_found(tmp_path):
    line = record_with(TRACE).to_json()
    twice = line.replace('"valence":', '"valence":[0,0,0],"valence":')
    assert json.loads(twice) == json.loads(line)
    (tmp_path / "records.jsonl").write_text(twice)
    with pytest.raises(DataError, match="valence"):
        list(read_records(tmp_path / "records.jsonl"))


def test_clips_without_a_trace_are_as_before():
    keys = ["start_s", "end_s", "frames", "rate_fps", "times_s", "key_s"]
    assert list(Clip(start_s=1).model_dump()) == keys and list(json.loads(Clip().model_dump_json())) == keys
    assert Clip(start_s=1).model_dump_json(exclude_defaults=True) == '{"start_s":1.0}'
