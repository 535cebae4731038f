"""How far a run is: plain numbers, for whoever shows them."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class RunProgress:
    """Counters of a run that goes on.

    Attributes:
        total: requests of the run, or None while unknown.
        done: requests that are finished, with those that the ledger had (`from_ledger`).
        in_flight: calls under way.
        failed: requests without a reply in this run, by class.
        rejected: replies that cannot be used, by reason.
        retries: calls that were sent again, by class of fault.
        tokens: `input`, `cached` and `output` of this run.
        usd: cost of this run, in US dollars.
        stopped: why the run ended early, or None.
    """

    total: int | None = None
    done: int = 0
    from_ledger: int = 0
    in_flight: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    usd: float = 0.0
    stopped: str | None = None
    began: float = field(default_factory=time.monotonic)

    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began

    def remaining_s(self) -> float | None:
        """Seconds to go at the speed of this run; None before the first reply, or where the total is unknown."""
        paid = self.done - self.from_ledger + sum(self.failed.values())
        if self.total is None or not paid:
            return None
        left = max(0, self.total - self.done - sum(self.failed.values()))
        return left * self.elapsed_s() / paid

    def line(self) -> str:
        """The state in one line of text."""
        total = f"/{self.total}" if self.total is not None else ""
        parts = [f"{self.done}{total} done", f"{self.in_flight} in flight"]
        if self.from_ledger:
            parts.append(f"{self.from_ledger} of them paid before")
        for name, counts in (("rejected", self.rejected), ("failed", self.failed), ("sent again", self.retries)):
            if counts:
                kinds = ", ".join(f"{kind} {count}" for kind, count in counts.most_common())
                parts.append(f"{sum(counts.values())} {name} ({kinds})")
        if self.tokens:
            parts.append(f"{self.tokens['input']} + {self.tokens['output']} tokens")
        if self.usd:
            parts.append(f"${self.usd:.4f}")
        left = self.remaining_s()
        if left is not None:
            parts.append(f"{format_seconds(left)} left")
        return " · ".join(parts)


def format_seconds(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
