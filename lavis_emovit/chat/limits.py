"""Requests and tokens per minute, and one pause for all when the endpoint asks for it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from lavis_emovit.chat.faults import duration_s

_MINUTE_S = 60.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0


class _Budget:
    """So many units a minute, evenly: any 60 seconds see at most `per_minute` units (and one request more than that
    where a single one is larger than a second's share).
    """

    def __init__(self, per_minute: float | None, clock: Callable[[], float]):
        self._clock = clock
        self.per_minute: float | None = None
        self._level = 0.0
        self._time = clock()
        self.set(per_minute)

    def set(self, per_minute: float | None) -> None:
        if per_minute == self.per_minute:
            return
        first = self.per_minute is None
        self.per_minute = per_minute
        if per_minute is not None:
            self._level = self._burst if first else min(self._level, self._burst)

    @property
    def _burst(self) -> float:
        return max(1.0, (self.per_minute or 0.0) / _MINUTE_S)

    @property
    def _rate(self) -> float:
        limit = self.per_minute or 0.0
        return (limit - self._burst if limit > 2.0 else limit) / _MINUTE_S

    def wait_s(self, amount: float) -> float:
        """Seconds until `amount` may be taken; what is larger than the burst waits for a full one and owes the rest."""
        if self.per_minute is None:
            return 0.0
        now = self._clock()
        self._level = min(self._burst, self._level + (now - self._time) * self._rate)
        self._time = now
        return max(0.0, (min(amount, self._burst) - self._level) / self._rate)

    def take(self, amount: float) -> None:
        if self.per_minute is not None:
            self._level -= amount


class RateLimiter:
    """Lets calls pass one by one, no faster than the limits; all of them wait while a pause lasts.

    Args:
        rpm: requests per minute, or None.
        tpm: tokens per minute (input, and the longest output, as endpoints count), or None.
        clock: seconds, for tests.
        seed: of the jitter.
    """

    def __init__(
        self,
        rpm: float | None = None,
        tpm: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        seed: int | None = None,
    ):
        self._clock = clock
        self._own = {"requests": rpm, "tokens": tpm}
        self._budgets = {"requests": _Budget(rpm, clock), "tokens": _Budget(tpm, clock)}
        self._resume_at = 0.0
        self._num_pauses = 0
        self._random = random.Random(seed)
        # Waiting is in order of arrival: a large request is not overtaken for ever.
        self._turn = asyncio.Lock()

    async def acquire(self, tokens: float, stop: asyncio.Event | None = None) -> None:
        """Wait until a request of so many tokens may be sent, or until `stop` is set."""
        async with self._turn:
            while stop is None or not stop.is_set():
                wait = max(
                    self._resume_at - self._clock(),
                    self._budgets["requests"].wait_s(1.0),
                    self._budgets["tokens"].wait_s(tokens),
                )
                if wait <= 0.0:
                    break
                await pause(wait, stop)
            self._budgets["requests"].take(1.0)
            self._budgets["tokens"].take(tokens)

    def give_back(self, tokens: float) -> None:
        """Return the tokens that a finished request had taken and did not use."""
        self._budgets["tokens"].take(-max(0.0, tokens))

    def observe(self, headers: Mapping[str, str]) -> None:
        """Learn from the `x-ratelimit-*` headers of an answer: lower limits hold, an empty budget pauses everybody."""
        for name, budget in self._budgets.items():
            limit = _number(headers.get(f"x-ratelimit-limit-{name}"))
            if limit is not None and limit > 0:
                own = self._own[name]
                budget.set(limit if own is None else min(own, limit))
            if _number(headers.get(f"x-ratelimit-remaining-{name}")) == 0:
                reset = duration_s(headers.get(f"x-ratelimit-reset-{name}", ""))
                if reset:
                    self._resume_at = max(self._resume_at, self._clock() + min(reset, _MINUTE_S))

    def pause(self, asked_s: float | None = None) -> None:
        """The endpoint is too busy: everybody waits, longer each time in a row, and never shorter than it asks."""
        now = self._clock()
        if asked_s is not None:
            self._resume_at = max(self._resume_at, now + asked_s * (1.0 + 0.1 * self._random.random()))
        elif now >= self._resume_at:  # many calls fail together; that is one reason to pause, not many
            longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**self._num_pauses)
            self._resume_at = now + longest * (0.5 + 0.5 * self._random.random())
            self._num_pauses += 1

    def success(self) -> None:
        """A call was answered; the next pause begins short again."""
        self._num_pauses = 0

    def backoff_s(self, attempt: int) -> float:
        """Wait of a single request before its next attempt: exponential, with full jitter from a half on."""
        return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (attempt - 1)) * (0.5 + 0.5 * self._random.random())


async def pause(seconds: float, stop: asyncio.Event | None = None) -> None:
    """Wait so many seconds, or until `stop` is set."""
    if stop is None:
        await asyncio.sleep(seconds)
        return
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(stop.wait(), timeout=seconds)


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
