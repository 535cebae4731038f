"""Where in time a model looked: how much each frame of a clip matters to its answer."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np

from lavis_emovit.emotion.labels import LabelSet
from lavis_emovit.errors import first_line
from lavis_emovit.evaluation.adapters.base import LanguageModel
from lavis_emovit.evaluation.benchmark_rows import BenchmarkRows
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings, Method
from lavis_emovit.evaluation.metrics.calibration import log_softmax
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.evaluation.questions import questions_about
from lavis_emovit.evaluation.report.images import mistakes
from lavis_emovit.evaluation.suite.benchmark_data import OpenBenchmark
from lavis_emovit.evaluation.suite.requests import Prepared, prepare

logger = logging.getLogger(__name__)

# More would be too narrow on a page, and F frames need F + 1 answers.
MAX_FRAMES = 32


def frame_effects(
    model: LanguageModel,
    prepared: Prepared,
    benchmark: BenchmarkSettings,
    method: Method,
    label_set: LabelSet | None,
    answer: str | None,
    *,
    batch_size: int,
) -> tuple[float, ...] | None:
    """How much each frame raises the log-probability of the answer, among all candidates (natural log).

    It is occlusion (Zeiler and Fergus 2014, https://arxiv.org/abs/1311.2901) over time, so it needs no attention and
    works for every model that scores clips: log p(answer | clip) - log p(answer | clip in which the film stands still
    at this frame). There, the frame shows what the one before it shows, the first what the second shows. A frame like
    the one before has no effect, and two that show the same may each have little: the effects do not add up to
    anything. A negative one speaks against the answer.

    Args:
        answer: a candidate of the benchmark's question, in its first variant.
        method: `generation` counts as `likelihood`.
        batch_size: most clips of a pass.

    Returns:
        F numbers; None if the item is no clip of 2 to `MAX_FRAMES` frames, the answer no candidate of one question, or
        the model failed.
    """
    if prepared.frames_s is None or prepared.image is None or not 2 <= len(prepared.frames_s) <= MAX_FRAMES:
        return None
    scoring: Method = "likelihood" if method == "generation" else method
    about = prepared.item.record, prepared.item.truth, benchmark, benchmark.variants[0], scoring, label_set
    questions = questions_about(*about)
    if len(questions) != 1 or answer not in questions[0].candidates:
        return None
    column = questions[0].candidates.index(answer)
    clips = [prepared.image, *model.still_at_each_frame(prepared.image, len(prepared.frames_s))]
    log_shares = []
    for start in range(0, len(clips), batch_size):
        some = clips[start : start + batch_size]
        found = model.score(some, range(len(some)), questions * len(some), scoring)
        if not all(isinstance(scores, Sequence) and not isinstance(scores, str) for scores in found):
            return None  # no answer of one of them
        log_shares += log_softmax(np.array(found, dtype=float))[:, column].tolist()
    effects = tuple(log_shares[0] - share for share in log_shares[1:])
    return effects if effects and all(map(math.isfinite, effects)) else None


def with_frame_effects(
    model: LanguageModel,
    benchmark: OpenBenchmark,
    name: str,
    method: Method,
    rows: Sequence[PredictionRow],
    num_images: int,
    *,
    batch_size: int,
) -> dict[str, PredictionRow]:
    """The rows of clips that the report of a suite can show as mistakes of this model, with their effects, by instance
    id; the effects are empty where there are none.

    Args:
        name: of the model in the suite.

    Rows that have been here before are left out.
    """
    one = BenchmarkRows(benchmark.name, benchmark.settings, benchmark.label_set, {(name, method): rows})
    missing = {
        row.record_id: row
        for row in mistakes(one, (name, method))[:num_images]
        if row.frame_effects is None
        and row.frames_s
        and 2 <= len(row.frames_s) <= MAX_FRAMES
        and row.prediction
        and row.question_id == row.record_id
    }
    found: dict[str, PredictionRow] = {}
    for item in benchmark.items() if missing else ():
        if (row := missing.pop(item.record.id, None)) is not None:
            try:
                effects = frame_effects(
                    model,
                    prepare(item, model),
                    benchmark.settings,
                    method,
                    benchmark.label_set,
                    row.prediction,
                    batch_size=batch_size,
                )
            except Exception as error:  # of the model, such as too little memory; the answers are complete without it
                logger.warning("no effects of frames of %s: %s", row.record_id, first_line(error))
                effects = None
            found[row.instance_id] = row.model_copy(update={"frame_effects": effects or ()})
        if not missing:
            break
    return found
