"""Measures a step: padding, speed, memory, and whether its loss is out of line."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import psutil
import torch

from lavis_emovit.models.lengths import PassSizes, add_sizes
from lavis_emovit.models.protocol import EmotionModel
from lavis_emovit.runners.gpus import peak_flops
from lavis_emovit.runners.settings import RunSettings

WINDOW_STEPS = 100
MIN_STEPS = 20
# The median absolute deviation of a normal distribution, times this, is its standard deviation.
MAD_TO_SIGMA = 1.4826
# A smaller share of the median is noise; otherwise a constant loss would flag its own rounding.
MIN_SIGMA_SHARE = 0.02


class LossWatch:
    """Flags losses that are more than `mads` robust deviations above the median of the last 100 steps.

    The deviation is 1.4826 times the median absolute deviation (Leys et al. 2013,
    https://doi.org/10.1016/j.jesp.2013.03.013), and at least 2 % of the median. The first 20 steps are never flagged.
    Flagged losses enter the window too, so that a new level of the loss is not flagged forever. A model may train with
    two losses in turn, of which one does without its language model; where the kind changes, a new window begins.
    """

    def __init__(self, mads: float | None, earlier_steps: Iterable[tuple[float, bool]] = ()):
        """`earlier_steps`: the loss of each, and whether the language model ran."""
        self._mads = mads
        self._losses: deque[float] = deque(maxlen=WINDOW_STEPS)
        self._ran = True
        for loss, ran in earlier_steps:
            self._add(loss, ran)

    def is_spike(self, loss: float, ran: bool = True) -> bool:
        """Whether the loss of the next step is out of line; adds it to the window."""
        limit = self.limit() if ran == self._ran else None
        self._add(loss, ran)
        return limit is not None and loss > limit

    def _add(self, loss: float, ran: bool) -> None:
        if ran != self._ran:
            self._losses.clear()
            self._ran = ran
        self._losses.append(loss)

    def limit(self) -> float | None:
        """The largest loss that is not flagged, or None while there are too few steps."""
        if self._mads is None or len(self._losses) < MIN_STEPS:
            return None
        median = statistics.median(self._losses)
        deviation = MAD_TO_SIGMA * statistics.median(abs(loss - median) for loss in self._losses)
        return median + self._mads * max(deviation, MIN_SIGMA_SHARE * abs(median))


@dataclass(frozen=True)
class RankStep:
    """What one rank did in a step."""

    num_images: int
    sizes: PassSizes | None  # what its forward passes ran over, if the model measures it
    memory_gib: float  # resident host memory of its process
    gpu_memory_gib: float | None  # peak of the memory allocated on its GPU


class StepMeter:
    """Computes the measured fields of a step's row; only time and memory if the model's losses have no `sizes`."""

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

    def fields(self, ranks: Sequence[RankStep], step_s: float) -> dict[str, Any]:
        """The measured fields of a step that took `step_s` seconds, over all ranks."""
        row: dict[str, Any] = {}
        sizes = reduce(add_sizes, (rank.sizes for rank in ranks))
        if sizes is not None:
            row["tokens_per_s"] = sum(sizes.real_positions) / step_s
            row["padding_share"] = sizes.padding_share
            if self._flops is not None and self._peak is not None:
                row["mfu"] = self._flops.total(sizes) / step_s / (self._peak * len(ranks))
        row["memory_gib"] = max(rank.memory_gib for rank in ranks)
        on_gpu = [rank.gpu_memory_gib for rank in ranks if rank.gpu_memory_gib is not None]
        return {**row, "gpu_memory_gib": max(on_gpu)} if on_gpu else row


# Fields of a row that depend on the clock or on the state of the machine.
MEASURED_FIELDS = frozenset(
    {"step_s", "read_s", "samples_per_s", "tokens_per_s", "mfu", "memory_gib", "gpu_memory_gib"}
)


def computed_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the log without the fields that differ between two equal runs."""
    return {key: value for key, value in row.items() if key not in MEASURED_FIELDS}


def _peak(settings: RunSettings, device: torch.device) -> float | None:
    if settings.peak_tflops is not None:
        return settings.peak_tflops * 1e12
    if device.type != "cuda":
        return None
    return peak_flops(torch.cuda.get_device_name(device), is_half=settings.amp != "off")
