"""Base class of the results of metrics, and intervals."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Result(BaseModel):
    """Base of every result: frozen, without extra fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Interval(Result):
    """A confidence interval; `level` is 0.95 for 95 %."""

    low: float
    high: float
    level: float
