"""Valence and arousal over time: how well the curve of each video is followed.

The CCC over all frames also rewards a model that only tells the videos apart. Here the CCC is that of the frames of one
video, and its mean is over the videos.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lavis_emovit.evaluation.metrics.dimensional import agreements, features_of
from lavis_emovit.evaluation.metrics.registry import MeasuredRows, Metric, register_metric
from lavis_emovit.evaluation.metrics.resampling import NUM_RESAMPLES, Resamples
from lavis_emovit.evaluation.metrics.results import Interval, Result
from lavis_emovit.evaluation.metrics.rows import GROUP, group_indices, without_errors
from lavis_emovit.evaluation.predictions import PredictionRow


class CurveMetrics(Result):
    """One dimension over the `num_videos` videos with a CCC; `num_undefined` have a single frame, or equal constants.

    `mean_ccc` is None if no video has one; the interval resamples videos.
    """

    num_videos: int
    num_undefined: int
    mean_ccc: float | None
    mean_ccc_interval: Interval | None


class OverTimeMetrics(Result):
    """All dimensions."""

    dimensions: dict[str, CurveMetrics]


def over_time_metrics(
    rows: Sequence[PredictionRow],
    names: Sequence[str] = ("valence", "arousal"),
    *,
    scale: tuple[float, float] = (-1.0, 1.0),
    num_resamples: int = NUM_RESAMPLES,
) -> OverTimeMetrics:
    """The mean over the videos of the CCC of their frames.

    Args:
        rows: frames, whose `group` slice is their video.
        names, scale, num_resamples: as in `dimensional_metrics`; an invalid answer counts as the farther end.

    Raises:
        DataError: no answered rows, a dimension without a true number in any row, or a row without its video.
    """
    answered = without_errors(rows)
    video_N = group_indices(answered, GROUP)
    assert video_N is not None
    dimensions = {}
    for name in names:
        features_NF = features_of(answered, name, scale)
        sums_VF = np.zeros((video_N.max() + 1, features_NF.shape[1]))
        np.add.at(sums_VF, video_N, features_NF)
        sums_VF = sums_VF[sums_VF[:, 0] > 0]
        ccc_V = agreements(sums_VF)["ccc"]
        # The CCC of a single frame is that of two constants.
        found_V = ccc_V[np.isfinite(ccc_V) & (sums_VF[:, 0] > 1)]
        interval = None
        if len(found_V):
            resamples = Resamples(len(found_V), num_resamples=num_resamples)
            interval = resamples.mean_interval(found_V, (-1.0, 1.0))
        dimensions[name] = CurveMetrics(
            num_videos=len(found_V),
            num_undefined=len(ccc_V) - len(found_V),
            mean_ccc=float(found_V.mean()) if len(found_V) else None,
            mean_ccc_interval=interval,
        )
    return OverTimeMetrics(dimensions=dimensions)


def is_over_time(rows: Sequence[PredictionRow]) -> bool:
    """Whether all answered rows are moments of a video, and some video has several."""
    answered = [row for row in rows if row.error is None]
    videos = {(row.slices or {}).get(GROUP) for row in answered if row.moment is not None}
    all_have = all(row.moment is not None and (row.slices or {}).get(GROUP) is not None for row in answered)
    return bool(answered) and all_have and len(videos) < len(answered)


def _measure(measured: MeasuredRows) -> OverTimeMetrics | None:
    return over_time_metrics(measured.rows, measured.settings.axes) if is_over_time(measured.rows) else None


register_metric(Metric("over_time", kinds=("valence_arousal",), measure=_measure))
