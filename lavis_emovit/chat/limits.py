"""Requests and tokens per minute, and one pause for all calls when the endpoint asks for it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Mapping
from typing import Any

from aiolimiter import AsyncLimiter

from lavis_emovit.chat.faults import header_number

_MINUTE_S = 60.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0


class RateLimiter:
    """Lets calls start one by one, no faster than the limits per minute (None: no limit). A pause holds all back.

    Endpoints count the input plus the longest possible output as tokens. `stop` ends all waiting when it is set.
    """

    def __init__(self, rpm: float | None = None, tpm: float | None = None, stop: asyncio.Event | None = None):
        self._stop = stop or asyncio.Event()
        self._settings = {"requests": rpm, "tokens": tpm}
        self._per_minute = {name: limit for name, limit in self._settings.items() if limit is not None}
        self._limiters = {name: _limiter(limit) for name, limit in self._per_minute.items()}
        self._unused_tokens = 0.0
        self._resume_at = 0.0
        self._num_pauses = 0
        # A generator of its own leaves the global one, which seeds control, alone.
        self._random = random.Random()
        # Calls wait in order of arrival. AsyncLimiter alone would let small requests overtake a large one forever.
        self._turn = asyncio.Lock()

    async def acquire(self, tokens: float) -> None:
        """Wait until a request of that many tokens may be sent."""
        async with self._turn:
            reused = min(tokens, self._unused_tokens)
            self._unused_tokens -= reused
            for name, amount in (("requests", 1.0), ("tokens", tokens - reused)):
                while name in self._limiters and amount > 0.0 and not self._stop.is_set():
                    limiter = self._limiters[name]
                    part = min(amount, limiter.max_rate)
                    amount -= part
                    if limiter.has_capacity(part):
                        await limiter.acquire(part)
                    else:
                        await _unless(self._stop, limiter.acquire(part))
            while (wait_s := self._resume_at - _now()) > 0.0 and not self._stop.is_set():
                await pause(wait_s, self._stop)

    def give_back(self, tokens: float) -> None:
        """Return tokens that a finished request had acquired and did not use."""
        if "tokens" in self._limiters and tokens > 0.0:
            # Without the upper bound, what is returned before a quiet time would allow a burst after it.
            most = max(tokens, self._limiters["tokens"].max_rate)
            self._unused_tokens = min(most, self._unused_tokens + tokens)

    async def observe(self, headers: Mapping[str, str]) -> None:
        """Follow the `x-ratelimit-*` headers of an answer: lower limits apply, and used-up ones pause all calls."""
        for name, own in self._settings.items():
            limit = header_number(headers.get(f"x-ratelimit-limit-{name}"))
            if limit is not None and limit > 0.0:
                await self._set(name, limit if own is None else min(own, limit))
            if header_number(headers.get(f"x-ratelimit-remaining-{name}")) == 0.0:
                reset_s = header_number(headers.get(f"x-ratelimit-reset-{name}")) or 0.0
                self._resume_at = max(self._resume_at, _now() + min(reset_s, _MINUTE_S))

    def pause(self, requested_s: float | None = None) -> None:
        """Hold all calls back: at least as long as the endpoint requests, else longer with each pause in a row."""
        if requested_s is not None:
            self._resume_at = max(self._resume_at, _now() + requested_s * (1.0 + 0.1 * self._random.random()))
        elif _now() >= self._resume_at:  # many calls fail together, which is one reason to pause
            self._resume_at = _now() + self.backoff_s(self._num_pauses + 1)
            self._num_pauses += 1

    def success(self) -> None:
        """A call was answered, so the next pause is a short one again."""
        self._num_pauses = 0

    def backoff_s(self, attempt: int) -> float:
        """Wait before the next attempt: exponential, with jitter that takes off up to a half."""
        return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (attempt - 1)) * (0.5 + 0.5 * self._random.random())

    async def _set(self, name: str, per_minute: float) -> None:
        if self._per_minute.get(name) == per_minute:
            return
        limiter = _limiter(per_minute)
        if name in self._limiters:
            await limiter.acquire(limiter.max_rate)  # does not wait; a change of limits is no reason for a burst
        self._per_minute[name], self._limiters[name] = per_minute, limiter


async def pause(seconds: float, stop: asyncio.Event) -> None:
    """Wait that many seconds, or until `stop` is set."""
    await _unless(stop, asyncio.sleep(seconds))


async def _unless(stop: asyncio.Event, waiting: Coroutine[Any, Any, Any]) -> None:
    """Await `waiting`, but give it up as soon as `stop` is set."""
    tasks = [asyncio.create_task(waiting), asyncio.create_task(stop.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _limiter(per_minute: float) -> AsyncLimiter:
    """Lets a second's share through at once and the rest evenly, so that no 60 seconds see more than `per_minute`."""
    burst = max(1.0, per_minute / _MINUTE_S)
    rest = per_minute - burst if per_minute > 2.0 else per_minute
    return AsyncLimiter(burst, _MINUTE_S * burst / rest)


def _now() -> float:
    return asyncio.get_running_loop().time()
