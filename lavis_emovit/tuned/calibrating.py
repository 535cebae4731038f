"""Calibrated confidence: one temperature for the scores of labels, fitted on the validation split of the run."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
from pydantic import Field

from lavis_emovit.checkpoints.tuned_files import CALIBRATION_FILE
from lavis_emovit.errors import ConfigError, DataError, UserError
from lavis_emovit.evaluation.metrics.calibration import calibration, log_softmax, softmax
from lavis_emovit.evaluation.suite.benchmark_data import ImageBatches, OpenBenchmark, open_benchmark
from lavis_emovit.evaluation.suite.requests import request_rows
from lavis_emovit.files import FORBIDDEN, write_json
from lavis_emovit.own_files import read_own
from lavis_emovit.paths import cache_root
from lavis_emovit.settings import Settings
from lavis_emovit.tuned.loading import Tuned
from lavis_emovit.tuned.predictions import Asking

logger = logging.getLogger(__name__)

MAX_IMAGES = 2000  # of the validation split; more would not change the temperature by a percent
MIN_IMAGES = 20
_LOG_TEMPERATURES = (-6.0, 4.0)
# Finer where most labels are: of eight labels, few have more than a tenth.
_EDGES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class ObservedBin(Settings):
    """Labels with a calibrated probability in (low, high], the first bin with 0: how many of them were right.

    Attributes:
        count: pairs of an image and a label.
        right: pairs whose label is that of the image.
        from_share, to_share: 95 % interval of `right / count` (Wilson 1927, "Probable Inference, the Law of Succession,
            and Statistical Inference").
    """

    low: float
    high: float
    count: int
    right: int
    from_share: float
    to_share: float


class Calibration(Settings):
    """The file `calibration.json`: scores divided by `temperature` are the logarithms of calibrated probabilities.

    Attributes:
        weights_sha256, label_set, method: what it belongs to.
        dataset, num_images: what it was fitted on.
        ece_before, ece_after: expected calibration error there, at temperature 1 and at `temperature`.
        bins: of the probabilities of all labels there, empty ones left out; none in a file of an earlier version.
    """

    temperature: float = Field(ge=math.exp(_LOG_TEMPERATURES[0]), le=math.exp(_LOG_TEMPERATURES[1]))
    weights_sha256: str
    label_set: str
    method: str
    dataset: str
    num_images: int
    ece_before: float
    ece_after: float
    bins: tuple[ObservedBin, ...] = ()

    def observed(self, probability: float) -> ObservedBin | None:
        """How often labels with about this probability were right; None if there was no such label."""
        return next(
            (one for one in self.bins if (one.low < probability or not one.low) and probability <= one.high), None
        )


def calibrate(tuned: Tuned, *, batch_size: int = 16, num_workers: int = 0) -> Calibration:
    """The calibration of a tuned model: the one that is kept with it, or a new one, which is then kept.

    Raises:
        UserError: the model has no question for the emotion, or its validation split is not here or too small.
    """
    kept = kept_calibration(tuned)
    if kept is not None:
        return kept
    asking = Asking.of(tuned.asked("emotion"))
    assert asking.label_set is not None
    if asking.method == "generation":
        raise UserError("written answers have no confidence; use a run that scores labels, or leave out --threshold")
    data = _validation(tuned, asking)
    rows = []
    for batch in ImageBatches(data, tuned.adapter, batch_size=batch_size, num_workers=num_workers).rounds(
        "calibrating"
    ):
        rows += request_rows(tuned.adapter, batch, data.settings, asking.method, data.label_set)
    labels = asking.label_set.labels
    used = [row for row in rows if row.scores is not None and row.label in labels]
    if len(used) < MIN_IMAGES:
        raise UserError(f"the validation split has {len(used)} labelled images; calibration needs {MIN_IMAGES}")
    scores_NC = np.array([[(row.scores or {})[label] for label in labels] for row in used])
    true_N = np.array([labels.index(row.label or "") for row in used])
    temperature = fit_temperature(scores_NC, true_N)
    calibrated_NC = softmax(scores_NC / temperature)
    found = Calibration(
        temperature=temperature,
        weights_sha256=tuned.files.weights_sha256,
        label_set=asking.label_set.name,
        method=asking.method,
        dataset=f"{data.settings.dataset}, {data.settings.split}",
        num_images=len(used),
        ece_before=calibration(softmax(scores_NC), true_N).ece,
        ece_after=calibration(calibrated_NC, true_N).ece,
        bins=observed_bins(calibrated_NC, true_N),
    )
    path = _own_place(tuned)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, found.model_dump())
    except OSError as error:
        if error.errno not in FORBIDDEN:
            raise
        logger.warning("%s cannot be written, so the calibration is fitted again next time: %s", path, error.strerror)
    return found


def fit_temperature(scores_NC: np.ndarray, true_N: np.ndarray) -> float:
    """The temperature with the least negative log-likelihood (Guo et al. 2017, "On Calibration of Modern Neural
    Networks", section 4.2).

    Args:
        scores_NC: float [N, C], log-scores of the labels.
        true_N: int [N].
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(scores_NC / np.exp(log_temperature))[np.arange(len(true_N)), true_N].mean())

    return float(np.exp(minimize_scalar(loss, bounds=_LOG_TEMPERATURES, method="bounded").x))


def observed_bins(probabilities_NC: np.ndarray, true_N: np.ndarray) -> tuple[ObservedBin, ...]:
    """How often labels were right, by their probability; empty bins are left out.

    The intervals take pairs of an image and a label as independent. Two labels of one image are never right together,
    so the share varies less than that.

    Args:
        probabilities_NC: float [N, C], of the labels.
        true_N: int [N].
    """
    from scipy.stats import binomtest

    is_true_NC = np.eye(probabilities_NC.shape[1], dtype=bool)[true_N]
    bin_NC = np.clip(np.searchsorted(_EDGES, probabilities_NC, side="left") - 1, 0, len(_EDGES) - 2)
    bins = []
    for number in np.unique(bin_NC).tolist():
        count, right = int((bin_NC == number).sum()), int(is_true_NC[bin_NC == number].sum())
        interval = binomtest(right, count).proportion_ci(method="wilson")
        shares = {"from_share": float(interval.low), "to_share": float(interval.high)}
        bins.append(ObservedBin(low=_EDGES[number], high=_EDGES[number + 1], count=count, right=right, **shares))
    return tuple(bins)


def kept_calibration(tuned: Tuned) -> Calibration | None:
    """The calibration that is kept with a model, if it belongs to its weights, labels and scoring method."""
    asking = Asking.of(tuned.asked("emotion"))
    own = (tuned.files.weights_sha256, asking.label_set.name if asking.label_set else "", asking.method)
    for path in dict.fromkeys((_own_place(tuned), tuned.files.folder / CALIBRATION_FILE)):
        if path.is_file():
            kept = read_own(path, Calibration, "Delete it, and it is fitted again.")
            if (kept.weights_sha256, kept.label_set, kept.method) == own:
                return kept
    return None


def _own_place(tuned: Tuned) -> Path:
    """Where a new calibration is kept: beside the model, or in the cache if a manifest has the sha256 of that file."""
    checkpoint = tuned.files.checkpoint
    if checkpoint is not None and checkpoint[0] == tuned.files.folder and CALIBRATION_FILE in checkpoint[1].files:
        return cache_root() / "calibrations" / tuned.files.weights_sha256 / CALIBRATION_FILE
    return tuned.files.folder / CALIBRATION_FILE


def _validation(tuned: Tuned, asking: Asking) -> OpenBenchmark:
    """The validation split of the dataset that the question comes from."""
    name = asking.benchmark.dataset
    where = f"calibrate where the data of the run are, then copy {CALIBRATION_FILE}, or leave out --threshold"
    if name not in tuned.files.datasets:
        raise UserError(f"{tuned.files.location}: its confidence is not calibrated; {where}")
    settings = asking.benchmark.model_copy(update={"split": "val", "train_split": None, "limit": MAX_IMAGES})
    try:
        return open_benchmark("calibration", settings, tuned.files.datasets[name])
    except (DataError, ConfigError) as error:
        raise UserError(f"the validation split of '{name}' cannot be used: {error}. Or {where}") from None
