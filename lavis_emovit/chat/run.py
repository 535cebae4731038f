"""Sends many requests: as fast as the limits allow, each paid once, with every answer in the ledger first."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lavis_emovit.chat.client import ChatClient
from lavis_emovit.chat.faults import ADAPTABLE, FATAL, TRANSIENT, Answer
from lavis_emovit.chat.ledger import FINISHED, Ledger, now
from lavis_emovit.chat.limits import RateLimiter, pause
from lavis_emovit.chat.prices import Price, Usage, likely, price_of, worst_case
from lavis_emovit.chat.progress import RunProgress
from lavis_emovit.chat.request import ChatRequest
from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.distributed.signals import on_interrupt
from lavis_emovit.errors import DataError

logger = logging.getLogger(__name__)

# Attempts in a simpler form that do not count as attempts. There are fewer forms, so more attempts would be a loop.
_MAX_ADAPTATIONS = 4
# A request to a busy endpoint is repeated that many times `max_attempts`.
_BUSY_FACTOR = 5
# An error 500 with the same words that often is no passing one: it ends the request, and as many requests end the run.
_SAME_ERROR_500 = 3
_EXPLANATIONS = {
    "authentication": "the endpoint does not accept the key in {key}",
    "quota": "the account has no credit left",
    "not_found": "the endpoint {address} has no model '{model}', or is not a chat endpoint",
}

OnRow = Callable[[dict[str, Any]], None]


def run_requests(
    requests: Iterable[ChatRequest],
    settings: ChatSettings,
    ledger: Ledger,
    *,
    progress: RunProgress | None = None,
    on_row: OnRow | None = None,
) -> RunProgress:
    """Send every request that the ledger has no reply to, and wait for all of them.

    Requests are read while calls are under way, never collected. Replies are in the ledger afterwards
    (`ledger.finished(request.fingerprint)`); `on_row` is called with every finished row, from the ledger or new. A
    failed request does not stop the others. `progress.stopped` is the reason if the run stops early: the budget, a
    fault that only a person can fix, too many failures in a row, or Ctrl-C. Calls under way are paid, so a stopping run
    waits for them. UserError without a key, for a budget without a price, or if the ledger cannot be written.
    """
    run = _SingleCalls(settings, ledger, progress or RunProgress(), on_row)
    asyncio.run(run.send_all(requests))
    return run.progress


def request_head(request: ChatRequest) -> dict[str, Any]:
    """The part of a row that identifies the request."""
    return {
        "request": request.fingerprint,
        "model": request.model,
        "prompt": request.prompt,
        "sample": request.sample,
        "about": dict(request.about),
    }


def attempt_row(
    head: dict[str, Any], worst: Usage, answer: Answer, attempt: int, price: Price | None, *, batch: str | None = None
) -> dict[str, Any]:
    """The row of one attempt, which begins with the head of its request. Attempts count from 1 in each run.

    If the tokens are not known, the cost is that of `worst`, the most that the request can use. Without a price, there
    is no cost.
    """
    row = {**head, "time": now(), "attempt": attempt, **vars(answer), "batch": batch}
    usage, is_billed = row.pop("usage"), row.pop("may_be_billed")
    row["latency_s"] = round(answer.latency_s, 3)
    del row["retry_after_s"]
    if usage is not None:
        row["usage"] = {"input": usage.input, "cached": usage.cached, "output": usage.output}
    if price is not None and (usage is not None or not is_billed):
        row["usd"] = round(price.usd(usage, batch=batch is not None), 9) if usage is not None else 0.0
    elif price is not None:
        row["usd_bound"] = round(price.usd(worst, batch=batch is not None), 9)
    return {name: value for name, value in row.items() if value is not None}


@dataclass
class Run:
    """State of a run, of single calls or batches."""

    settings: ChatSettings
    ledger: Ledger
    progress: RunProgress
    on_row: OnRow | None
    stopping: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def __post_init__(self) -> None:
        self.price = price_of(self.settings)

    def stop(self, reason: str) -> None:
        if not self.stopping.is_set():
            self.progress.stopped = reason
            self.stopping.set()

    def stop_for_budget(self) -> None:
        self.stop(f"the next request could exceed the limit of ${self.settings.max_usd:g}")

    def finish(self, row: dict[str, Any]) -> None:
        """Count a finished request, and pass its row on."""
        self.progress.done += 1
        if row["status"] != "ok":
            self.progress.rejected[row["status"]] += 1
        if self.on_row is not None:
            self.on_row(row)

    def is_paid(self, request: ChatRequest) -> bool:
        """Whether the ledger has the reply of an earlier run. If so, the request is counted as finished."""
        row = self.ledger.finished(request.fingerprint)
        if row is not None:
            self.progress.from_ledger += 1
            self.finish(row)
        return row is not None

    def count_cost(self, row: dict[str, Any]) -> None:
        self.progress.usd += row.get("usd", row.get("usd_bound", 0.0))
        self.progress.tokens.update(row.get("usage") or {})


class _SingleCalls(Run):
    def __post_init__(self) -> None:
        super().__post_init__()
        self.limiter = RateLimiter(self.settings.rpm, self.settings.tpm, self.stopping)
        self.usd_under_way = 0.0
        self.settled = asyncio.Event()
        self.failures_in_a_row = 0
        self.errors_500: Counter[str] = Counter()  # requests that ended with an error 500 since the last reply
        self.under_way: set[str] = set()

    async def send_all(self, requests: Iterable[ChatRequest]) -> None:
        source = iter(requests)
        async with ChatClient(self.settings, self.limiter.observe) as self.client:
            with on_interrupt(partial(self.stop, "interrupted; calls under way were waited for")):
                workers = [asyncio.create_task(self._work(source)) for _ in range(self.settings.max_in_flight)]
                try:
                    await asyncio.gather(*workers)
                finally:
                    # After an error such as a full disk, paid calls can still finish and be written.
                    self.stopping.set()
                    await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, source: Iterator[ChatRequest]) -> None:
        num_known = 0
        while not self.stopping.is_set():
            request = next(source, None)
            if request is None:
                return
            if request.fingerprint in self.under_way:
                continue
            if self.is_paid(request):
                num_known += 1
                if num_known % 64 == 0:
                    await asyncio.sleep(0)  # let the other workers run
                continue
            self.under_way.add(request.fingerprint)
            try:
                await self._send_until_finished(request)
            except DataError as error:
                # Nothing was sent, and the endpoint is not the reason.
                logger.warning("%s", error)
                self.progress.fail("bad_picture", str(error))
            finally:
                self.under_way.discard(request.fingerprint)

    async def _send_until_finished(self, request: ChatRequest) -> None:
        """Repeat a call until it brings a reply, or until its faults end the request."""
        adaptations = num_same = 0
        last_500: str | None = None
        faults: Counter[str] = Counter()
        while (row := await self._attempt(request, faults.total() + 1)) is not None:
            status = row["status"]
            if status in FINISHED:
                self.failures_in_a_row = 0
                self.errors_500.clear()
                self.limiter.success()
                self.finish(row)
                return
            if status in ADAPTABLE and adaptations < _MAX_ADAPTATIONS:
                adaptations += 1
                continue
            faults[status] += 1
            reason = str(row.get("reason"))
            num_same = num_same + 1 if reason == last_500 else 1
            last_500 = reason if row.get("http") == 500 else None
            is_permanent = last_500 is not None and num_same >= _SAME_ERROR_500
            if status not in TRANSIENT or is_permanent or self._is_enough(faults) or self.stopping.is_set():
                self.errors_500[reason] += is_permanent
                self._fail(status, reason)
                return
            self.progress.retries[status] += 1
            await pause(self.limiter.backoff_s(faults.total()), self.stopping)

    def _is_enough(self, faults: Counter[str]) -> bool:
        """Whether a request has failed often enough. A busy endpoint is not the fault of the request."""
        limit = self.settings.max_attempts
        return faults.total() - faults["rate_limited"] >= limit or faults["rate_limited"] >= _BUSY_FACTOR * limit

    async def _attempt(self, request: ChatRequest, attempt: int) -> dict[str, Any] | None:
        """One call, from waiting for its turn to its row on disk. None if the run stopped before it was sent."""
        expected = likely(request, self.price, float(request.parameters.get("max_output_tokens", 0)))
        tokens = expected.input + expected.output
        await self.limiter.acquire(tokens)
        if self.stopping.is_set():
            return None
        worst = worst_case(request, self.price)
        worst_usd = self.price.usd(worst) if self.price else 0.0
        if not await self._reserve(worst_usd):
            return None
        try:
            if self.stopping.is_set():
                return None
            answer = await self._send(request, worst, attempt)
            row = attempt_row(request_head(request), worst, answer, attempt, self.price)
            await self.ledger.append(row)
        finally:
            self.progress.in_flight -= 1
            self.usd_under_way = max(0.0, self.usd_under_way - worst_usd) if self.progress.in_flight else 0.0
            self.settled.set()
        if answer.usage is not None:
            self.limiter.give_back(tokens - answer.usage.input - answer.usage.output)
        self.count_cost(row)
        if answer.status in ("rate_limited", "server_error"):
            self._pause(answer)
        return row

    async def _reserve(self, usd: float) -> bool:
        """Reserve the most that a call may cost. If it does not fit into the budget, wait for calls under way.

        Most calls cost less than they reserve. False, and the run stops, if the call still does not fit.
        """
        limit = self.settings.max_usd
        while limit is not None and self.ledger.usd_spent + self.usd_under_way + usd > limit:
            if not self.progress.in_flight:
                self.stop_for_budget()
                return False
            self.settled.clear()
            await self.settled.wait()
        self.progress.in_flight += 1
        self.usd_under_way += usd
        if usd > 0.0:
            self.ledger.reserve(self.usd_under_way)
        return True

    async def _send(self, request: ChatRequest, worst: Usage, attempt: int) -> Answer:
        """One call. A cancelled call may be billed, so it gets its row too."""
        try:
            return await self.client.send(request)
        except asyncio.CancelledError:
            answer = Answer("dropped", reason="the run was cancelled while the call was under way")
            self.ledger.append_now(attempt_row(request_head(request), worst, answer, attempt, self.price))
            raise

    def _pause(self, answer: Answer) -> None:
        requested_s = answer.retry_after_s
        if requested_s is not None and requested_s > self.settings.max_wait_s:
            self.stop(
                f"the endpoint requests a pause of {requested_s:.0f} s, longer than max_wait_s "
                f"({self.settings.max_wait_s:g}): {answer.reason}"
            )
        elif answer.status == "rate_limited" or requested_s is not None:
            self.limiter.pause(requested_s)

    def _fail(self, status: str, reason: str) -> None:
        self.progress.fail(status, reason)
        self.failures_in_a_row += 1
        if status in FATAL:
            names = {"key": self.settings.api_key_env, "address": self.settings.address(), "model": self.settings.model}
            self.stop(f"{_EXPLANATIONS[status].format(**names)}: {reason}")
        elif self.errors_500[reason] >= _SAME_ERROR_500:
            self.stop(f"{_SAME_ERROR_500} requests in a row ended with the same error 500: {reason}")
        elif self.failures_in_a_row >= self.settings.max_failures:
            self.stop(f"{self.failures_in_a_row} requests in a row failed, the last one with {status}: {reason}")
