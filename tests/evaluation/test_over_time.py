"""Valence and arousal over time.

Properties:
- the mean over the videos of Lin's CCC, computed here from covariances; an answer without a number counts as the
  farther end; videos without a CCC are counted;
- a model that only tells videos apart has a high CCC over all frames, and none within videos;
- the metric applies only to rows that are all moments of videos;
- rows of frames and of parts of videos know their moment;
- a report has the table, and the curves of truth and models in the order of time.
"""

from __future__ import annotations

import numpy as np
import pytest
from report_page import page_of
from suite_folder import make_suite, write_rows

from lavis_emovit.evaluation.metrics.dimensional import dimensional_metrics
from lavis_emovit.evaluation.metrics.over_time import is_over_time, over_time_metrics
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.evaluation.report.page import write_report
from lavis_emovit.evaluation.suite.requests import _moment
from lavis_emovit.records import build_record


def _rows(videos):
    """Rows of videos: name -> (true, predicted) valence of each frame."""
    return [
        PredictionRow(
            instance_id=f"{video}/{frame}", record_id=f"{video}/{frame}", label=None, prediction=None,
            true_values={"valence": true[frame]}, values={"valence": predicted[frame]},
            slices={"group": video}, moment=float(frame),
        )
        for video, (true, predicted) in videos.items()
        for frame in range(len(true))
    ]  # fmt: skip


def _lin(x, y):
    covariance = np.cov(x, y, bias=True)
    return 2 * covariance[0, 1] / (covariance[0, 0] + covariance[1, 1] + (np.mean(x) - np.mean(y)) ** 2)


def test_the_mean_over_videos_of_lins_ccc():
    draw = np.random.default_rng(3)
    videos = {}
    for name in "abcd":
        true = draw.uniform(-1, 1, 30)
        videos[name] = true.tolist(), np.clip(true + draw.normal(0, 0.4, 30), -1, 1).tolist()
    expected = [_lin(*values) for values in videos.values()]
    videos["one frame"] = [0.5], [0.5]
    videos["constant"] = [0.25, 0.25], [0.25, 0.25]
    found = over_time_metrics(_rows(videos), ["valence"]).dimensions["valence"]
    assert found.mean_ccc == pytest.approx(np.mean(expected))
    assert (found.num_videos, found.num_undefined) == (4, 2)
    assert min(expected) <= found.mean_ccc_interval.low < found.mean_ccc < found.mean_ccc_interval.high <= max(expected)
    # The farther end of the scale from 0.6 is -1.
    with_gap = over_time_metrics(_rows({"a": ([0.6, -0.2, 0.1], [None, -0.2, 0.3])}), ["valence"])
    assert with_gap.dimensions["valence"].mean_ccc == pytest.approx(_lin([0.6, -0.2, 0.1], [-1, -0.2, 0.3]))
    single = over_time_metrics(_rows({"a": ([0.5], [0.5])}), ["valence"]).dimensions["valence"]
    assert single.mean_ccc is None and single.mean_ccc_interval is None


def test_telling_videos_apart_is_no_curve():
    wave = (0.1 * np.sin(np.arange(20))).tolist()
    videos = {f"v{k}": ([level + w for w in wave], [level] * 20) for k, level in enumerate((-0.8, 0.0, 0.8))}
    rows = _rows(videos)
    assert dimensional_metrics(rows, ["valence"]).mean_ccc > 0.98
    assert over_time_metrics(rows, ["valence"]).dimensions["valence"].mean_ccc == pytest.approx(0.0)


def test_it_applies_to_moments_of_videos():
    rows = _rows({"a": ([0.1, 0.2], [0.1, 0.2])})
    failed = rows[0].model_copy(update={"instance_id": "x", "values": None, "error": "broken", "moment": None})
    assert is_over_time([*rows, failed])
    assert not is_over_time(_rows({"a": ([0.1], [0.1]), "b": ([0.1], [0.1])}))
    assert not is_over_time([rows[0], rows[1].model_copy(update={"moment": None})])
    assert not is_over_time([rows[0], rows[1].model_copy(update={"slices": None})])
    assert not is_over_time([])


@pytest.mark.parametrize(
    ("changes", "moment"),
    [
        ({}, None),
        ({"extra": {"frame": 31}}, 31.0),
        ({"clip": {"start_s": 2, "end_s": 5}}, 3.5),
        ({"clip": {"start_s": 2}}, 2.0),
        ({"clip": {"start_s": 2, "end_s": 5, "key_s": 4.5}}, 4.5),
        ({"clip": {"frames": ["a.jpg", "b.jpg"], "rate_fps": 10, "key_s": 0.1}, "extra": {"frame": 8}}, 8.0),
    ],
)
def test_rows_know_their_moment(changes, moment):
    record = build_record({"id": "a", "image": "a.jpg", "split": "val", "source": "s", **changes}, "here")
    assert _moment(record) == moment


def test_a_report_has_curves(tmp_path):
    folder = make_suite(tmp_path / "trial", models={"tiny": {"adapter": "lavis", "arch": "emovit_tiny"}})
    rows = []
    for video, size in (("film one", 6), ("film two", 9)):
        # Backwards, as a shuffled split may have them.
        for frame in reversed(range(size)):
            true = {"valence": frame / 10, "arousal": -frame / 10}
            values = {"valence": frame / 20, "arousal": None if frame == 2 else 0.1}
            name, group = f"{video}/{frame}", {"group": video}
            row = PredictionRow(instance_id=name, record_id=name, label=None, prediction=None, slices=group)
            rows.append(row.model_copy(update={"true_values": true, "values": values, "moment": float(frame)}))
    write_rows(folder, "affect", "tiny", "likelihood", rows)
    page = page_of(write_report(folder))
    assert "Over time" in page.text and "CCC within videos" in page.text
    labels = [svg["aria-label"] for svg in page.of("svg") if " by time or frame: " in svg["aria-label"]]
    # The longest video first.
    assert [label.partition(" by ")[0] for label in labels] == [
        f"film {number}: {axis}" for number in ("two", "one") for axis in ("valence", "arousal")
    ]
    assert "truth 0.00 to 0.80, between 0.00 and 0.80; tiny (likelihood) 0.00 to 0.40" in labels[0]
    assert "tiny (likelihood) 0.10 to 0.10" in labels[1]
