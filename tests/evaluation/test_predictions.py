"""The file of predictions.

Properties: rows are read as they were written, with any characters, and a line has only the keys that its row needs; a
row that contradicts itself is refused; the same rows give the same bytes; a row is in the file before the next one is
written; a reopened file continues after a crash at any byte, with every whole row and no partial one; errors name file
and line; an instance is predicted once; numbers that JSON lacks are neither written nor read.
"""

from __future__ import annotations

import json
import math

import pytest

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.predictions import (
    PredictionRow,
    PredictionWriter,
    read_predictions,
    repair_last_line,
    write_predictions,
)


def make_row(number: int, **changes) -> PredictionRow:
    values = {
        "instance_id": f"id-{number}",
        "record_id": f"rec-{number}",
        "label": "awe",
        "prediction": "fear",
        "scores": {"awe": -1.5, "fear": -0.25},
        "image": "thumbnails/1.jpg",
        "answer": "Predict emotion: fear",
    }
    return PredictionRow(**{**values, **changes})


ROWS = [
    make_row(1),
    make_row(2, answer='line\nbreak, "quotes", \u2028, <b>tag</b>, \\ and 悲しい 🙂'),
    make_row(3, label=None, prediction=None, scores=None, image=None, answer=None),
]


def test_rows_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "new" / "test-after.jsonl"
    with PredictionWriter(path) as writer:
        for row in ROWS:
            writer.write(row)
    assert read_predictions(path) == ROWS
    assert path.read_bytes().count(b"\n") == 3


def test_keys_on_disk_are_the_published_ones(tmp_path):
    write_predictions(tmp_path / "p.jsonl", [make_row(1)])
    values = json.loads((tmp_path / "p.jsonl").read_text())
    assert values == {
        "instance_id": "id-1",
        "record_id": "rec-1",
        "label": "awe",
        "prediction": "fear",
        "scores": {"awe": -1.5, "fear": -0.25},
        "image": "thumbnails/1.jpg",
        "answer": "Predict emotion: fear",
    }


FULL = {
    "status": "ok",
    "votes": {"awe": 0.75, "fear": 0.25},
    "true_values": {"valence": -0.5, "AU12": 3.0},
    "values": {"valence": 0.25, "AU12": None},
    "slices": {"person": "017", "scene": "beach"},
    "variant": "wording-2",
}


def test_what_a_row_does_not_have_is_left_out_of_its_line_and_what_it_has_comes_back(tmp_path):
    failed = make_row(2, prediction=None, scores=None, answer=None, error="picture 2.jpg: not an image")
    write_predictions(tmp_path / "p.jsonl", [make_row(0), make_row(1, **FULL), failed])
    plain, full, error = map(json.loads, (tmp_path / "p.jsonl").read_text().splitlines())
    assert len(plain) == 7
    assert full == {**plain, "instance_id": "id-1", "record_id": "rec-1", **FULL}
    assert set(error) == {*plain, "error"}
    assert read_predictions(tmp_path / "p.jsonl") == [make_row(0), make_row(1, **FULL), failed]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"error": "broken", "scores": None}, "a row with an 'error' is no answer, yet it has prediction"),
        ({"error": "broken", "prediction": None, "values": {"valence": 0.0}}, "it has scores, values"),
        ({"error": ""}, "key 'error'"),
        ({"votes": {"awe": 0.5, "fear": 0.4}}, "key 'votes': must be shares"),
        ({"votes": {"awe": 1.5, "fear": -0.5}}, "key 'votes': must be shares"),
        ({"status": "fine"}, "key 'status'"),
        ({"true_values": {"valence": None}}, r"key 'true_values\.valence'"),
        ({"values": {"valence": "high"}}, r"key 'values\.valence'"),
    ],
)
def test_rows_that_contradict_themselves_are_refused_by_line(tmp_path, changes, said):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({**make_row(1).model_dump(), **changes}) + "\n")
    with pytest.raises(DataError, match=said) as caught:
        read_predictions(path)
    assert "p.jsonl:1:" in str(caught.value)


def test_same_rows_give_same_bytes_at_once_or_one_by_one(tmp_path):
    write_predictions(tmp_path / "a.jsonl", ROWS)
    for row in ROWS:
        with PredictionWriter(tmp_path / "b.jsonl") as writer:
            writer.write(row)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_a_row_can_be_read_before_the_file_is_closed(tmp_path):
    path = tmp_path / "p.jsonl"
    with PredictionWriter(path) as writer:
        writer.write(ROWS[0])
        assert read_predictions(path) == ROWS[:1]


def test_a_crash_at_any_byte_loses_no_whole_row_and_keeps_no_half_one(tmp_path):
    whole = tmp_path / "whole.jsonl"
    write_predictions(whole, ROWS[:2])
    content = whole.read_bytes()
    first_end = content.index(b"\n") + 1
    for cut in range(len(content) + 1):
        path = tmp_path / "cut.jsonl"
        path.write_bytes(content[:cut])
        with PredictionWriter(path) as writer:
            kept = set(writer.instance_ids)
            for row in ROWS:
                if row.instance_id not in writer.instance_ids:
                    writer.write(row)
        expected = {row.instance_id for row, end in zip(ROWS, (first_end, len(content))) if cut >= end - 1}
        assert kept == expected, f"cut at byte {cut}"
        assert read_predictions(path) == ROWS, f"cut at byte {cut}"


def test_partial_last_line_is_an_error_unless_it_may_be_dropped(tmp_path):
    path = tmp_path / "p.jsonl"
    write_predictions(path, ROWS[:2])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"p\.jsonl:2: not JSON"):
        read_predictions(path)
    assert read_predictions(path, drop_partial_last_line=True) == ROWS[:1]


def test_only_a_line_without_an_end_may_be_dropped(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"instance_id": "x"}\n')
    with pytest.raises(DataError, match=r"p\.jsonl:1"):
        read_predictions(path, drop_partial_last_line=True)


def test_repair_says_whether_it_changed_anything(tmp_path):
    path = tmp_path / "p.jsonl"
    assert not repair_last_line(path)
    write_predictions(path, ROWS[:1])
    assert not repair_last_line(path)
    path.write_bytes(path.read_bytes() + b'{"inst')
    assert repair_last_line(path)
    assert read_predictions(path) == ROWS[:1]


GOOD = '{"instance_id": "1", "record_id": "r", "label": "awe", "prediction": "awe"}'


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("not json", r"not JSON"),
        ("[1, 2]", r"Input should be an object"),
        ('{"instance_id": "2", "record_id": "r", "label": "awe"}', r"key 'prediction'"),
        (GOOD.replace('"1"', '"2"').replace("}", ', "lable": "awe"}'), r"key 'lable'"),
        (GOOD.replace('"1"', '"2"').replace("}", ', "scores": {"awe": NaN}}'), r"scores.awe: nan is no finite number"),
        (GOOD.replace('"1"', '"2"').replace("}", ', "scores": {"awe": "high"}}'), r"key 'scores\.awe'"),
        (GOOD.replace('"1"', '""'), r"key 'instance_id'"),
        (GOOD, r"instance '1' is already on line 1"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, what):
    path = tmp_path / "wrong.jsonl"
    path.write_text(f"{GOOD}\n\n{line}\n")
    with pytest.raises(DataError, match=rf"wrong\.jsonl:3: .*{what}"):
        read_predictions(path)


def test_text_that_is_not_utf8_is_named(tmp_path):
    path = tmp_path / "wrong.jsonl"
    path.write_bytes(GOOD.encode() + b"\n\xff\xfe\n")
    with pytest.raises(DataError, match=r"wrong\.jsonl:2: not UTF-8"):
        read_predictions(path)


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.jsonl: no such prediction file"):
        read_predictions(tmp_path / "absent.jsonl")
    with pytest.raises(DataError, match=r"is a folder"):
        read_predictions(tmp_path)


def test_writing_refuses_what_cannot_be_read_by_others(tmp_path):
    row = PredictionRow.model_construct(**{**make_row(7).model_dump(), "scores": {"awe": math.nan}})
    with PredictionWriter(tmp_path / "p.jsonl") as writer:
        with pytest.raises(DataError, match="instance 'id-7'"):
            writer.write(row)
        writer.write(make_row(8))
    assert [row.instance_id for row in read_predictions(tmp_path / "p.jsonl")] == ["id-8"]


def test_an_instance_is_written_once(tmp_path):
    with PredictionWriter(tmp_path / "p.jsonl") as writer:
        writer.write(make_row(1))
        with pytest.raises(DataError, match=r"already has instance 'id-1'"):
            writer.write(make_row(1))


def test_writing_a_whole_file_leaves_the_old_one_when_it_fails(tmp_path):
    path = tmp_path / "p.jsonl"
    write_predictions(path, ROWS[:1])

    def rows():
        yield ROWS[1]
        raise RuntimeError("the model broke")

    with pytest.raises(RuntimeError, match="the model broke"):
        write_predictions(path, rows())
    assert read_predictions(path) == ROWS[:1]


def test_numbers_are_taken_as_names_and_closing_twice_is_fine(tmp_path):
    assert make_row(1, instance_id=12).instance_id == "12"
    writer = PredictionWriter(tmp_path / "p.jsonl")
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.write(make_row(1))
