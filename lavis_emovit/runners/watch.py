"""What is measured beside a step: how much of it was padding, how fast it was, and whether its loss is out of line."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from lavis_emovit.models.lengths import PassSizes
from lavis_emovit.models.protocol import EmotionModel
from lavis_emovit.runners.flops import peak_flops
from lavis_emovit.runners.settings import RunSettings

WINDOW_STEPS = 100
MIN_STEPS = 20
# The median absolute deviation of a normal distribution, times this, is its standard deviation.
MAD_TO_SIGMA = 1.4826
# Below this share of the median, deviations are noise: a loss that hardly moves must not flag its own rounding.
LEAST_SIGMA_SHARE = 0.02


class LossWatch:
    """Flags losses far above those of the steps before: more than `mads` robust deviations over their median.

    The deviation is 1.4826 times the median absolute deviation of the last 100 steps (Leys et al. 2013,
    https://doi.org/10.1016/j.jesp.2013.03.013), and at least 2 % of their median; the first 20 steps flag nothing.
    Flagged losses enter the window too, so that a run that has moved to another level is not flagged for ever.
    """

    def __init__(self, mads: float | None, earlier_losses: Iterable[float] = ()):
        self._mads = mads
        self._losses: deque[float] = deque(earlier_losses, maxlen=WINDOW_STEPS)

    def is_spike(self, loss: float) -> bool:
        """Whether the loss of the next step is out of line; it belongs to the window from now on."""
        limit = self.limit()
        self._losses.append(loss)
        return limit is not None and loss > limit

    def limit(self) -> float | None:
        """What a loss may reach without being flagged, or None while there are too few steps to say."""
        if self._mads is None or len(self._losses) < MIN_STEPS:
            return None
        median = statistics.median(self._losses)
        deviation = MAD_TO_SIGMA * statistics.median(abs(loss - median) for loss in self._losses)
        return median + self._mads * max(deviation, LEAST_SIGMA_SHARE * abs(median))


@dataclass(frozen=True)
class RankStep:
    """What one rank did in a step.

    Attributes:
        num_images: pictures of its micro-batches.
        sizes: what its forward passes ran over, where the model tells.
        memory_gib: resident host memory of its process.
        gpu_memory_gib: most memory that was allocated on its GPU in the step, or None.
    """

    num_images: int
    sizes: PassSizes | None
    memory_gib: float
    gpu_memory_gib: float | None


class StepMeter:
    """Turns what a step ran over into measured fields of the log.

    Args:
        model: an emotion model; without `AnswerLoss.sizes` only time and memory are measured.
        settings: for the precision and `run.peak_tflops`.
        device: where the rank computes.
    """

    def __init__(self, model: EmotionModel, settings: RunSettings, device: torch.device):
        self._device = device
        self._flops = model.step_flops()
        self._peak = _peak(settings, device)
        self._process = psutil.Process()

    def take(self, num_images: int, sizes: PassSizes | None) -> RankStep:
        """What this rank did since the last call."""
        gpu_memory = None
        if self._device.type == "cuda":
            gpu_memory = torch.cuda.max_memory_allocated(self._device) / 2**30
            torch.cuda.reset_peak_memory_stats(self._device)
        return RankStep(num_images, sizes, self._process.memory_info().rss / 2**30, gpu_memory)

    def fields(self, ranks: list[RankStep], step_s: float) -> dict[str, Any]:
        """The fields of a step's row that are measured, over all ranks.

        Args:
            ranks: what each rank did.
            step_s: seconds of the step.
        """
        row: dict[str, Any] = {}
        told = [rank.sizes for rank in ranks if rank.sizes is not None]
        if told:
            sizes = told[0]
            for other in told[1:]:
                sizes = sizes + other
            row["tokens_per_s"] = sum(sizes.real_positions) / step_s
            row["padding_share"] = sizes.padding_share
            if self._flops is not None and self._peak is not None:
                row["mfu"] = self._flops.total(sizes) / step_s / (self._peak * len(ranks))
        row["memory_gib"] = max(rank.memory_gib for rank in ranks)
        on_gpu = [rank.gpu_memory_gib for rank in ranks if rank.gpu_memory_gib is not None]
        return {**row, "gpu_memory_gib": max(on_gpu)} if on_gpu else row


# Fields of a row that are clock times or follow from them, or from the state of the machine.
MEASURED_FIELDS = frozenset(
    {"step_s", "read_s", "samples_per_s", "tokens_per_s", "mfu", "memory_gib", "gpu_memory_gib"}
)


def computed_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the log without what differs between two runs that compute the same."""
    return {key: value for key, value in row.items() if key not in MEASURED_FIELDS}


def _peak(settings: RunSettings, device: torch.device) -> float | None:
    if settings.peak_tflops is not None:
        return settings.peak_tflops * 1e12
    if device.type != "cuda":
        return None
    return peak_flops(torch.cuda.get_device_name(device), is_half=settings.amp != "off")
