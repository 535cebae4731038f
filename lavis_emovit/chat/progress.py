"""Counters of a run of chat requests, and their display."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lavis_emovit.progress import polled, progress


@dataclass
class RunProgress:
    total: int | None = None
    done: int = 0  # finished requests, including those that the ledger had (`from_ledger`)
    from_ledger: int = 0
    in_flight: int = 0
    failed: Counter[str] = field(default_factory=Counter)  # requests without a reply, by class of fault
    rejected: Counter[str] = field(default_factory=Counter)  # replies that cannot be used, by reason
    retries: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)  # `input`, `cached` and `output` of new replies
    usd: float = 0.0
    stopped: str | None = None  # why the run ended early, or None
    reasons: dict[str, str] = field(default_factory=dict)  # class of fault -> the last reason

    def fail(self, status: str, reason: str) -> None:
        """Count a request without a reply."""
        self.failed[status] += 1
        self.reasons[status] = reason

    def nothing_answered(self) -> str | None:
        """Why no request at all was answered, or None if one was, or if none failed."""
        statuses = [status for status, _ in self.failed.most_common() if status != "bad_picture"]
        if self.done or self.in_flight or not statuses:
            return None
        count = sum(self.failed[status] for status in statuses)
        return f"none of the {count} requests was answered ({statuses[0]}: {self.reasons.get(statuses[0], 'unknown')})"

    def note(self) -> str:
        """All counters but `done` and `total`, on one line."""
        parts = [f"{self.in_flight} in flight"]
        if self.from_ledger:
            parts.append(f"{self.from_ledger} already paid")
        for name, counts in (("rejected", self.rejected), ("failed", self.failed), ("retries", self.retries)):
            if counts:
                kinds = ", ".join(f"{kind} {count}" for kind, count in counts.most_common())
                parts.append(f"{counts.total()} {name} ({kinds})")
        if self.tokens:
            parts.append(f"{self.tokens['input']} + {self.tokens['output']} tokens")
        if self.usd:
            parts.append(f"${self.usd:.4f}")
        return " · ".join(parts)


@contextmanager
def show_progress(label: str, run: RunProgress) -> Iterator[None]:
    """Show the counters of a run while the block runs."""
    with (
        progress(label, run.total) as line,
        polled(lambda: line.update(run.done + run.failed.total(), run.total, run.note(), run.from_ledger)),
    ):
        yield
