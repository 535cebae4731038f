"""What all metrics are made of: frozen results, and an interval."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Result(BaseModel):
    """Base of every result: frozen, and nothing but its fields goes in or out."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Interval(Result):
    """A confidence interval; `level` is 0.95 for 95 %."""

    low: float
    high: float
    level: float
