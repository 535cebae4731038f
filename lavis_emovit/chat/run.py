"""Asking many requests: as fast as the limits allow, each paid once, every answer in the ledger first."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from lavis_emovit.chat.budget import Budget, BudgetReached
from lavis_emovit.chat.client import Answer, ChatClient
from lavis_emovit.chat.faults import ADAPTABLE, FATAL, MAY_BE_BILLED, TRANSIENT, Fault
from lavis_emovit.chat.ledger import FINISHED, Ledger, now
from lavis_emovit.chat.limits import RateLimiter, pause
from lavis_emovit.chat.prices import Price, Usage, likely, load_prices, worst_case
from lavis_emovit.chat.progress import RunProgress
from lavis_emovit.chat.request import ChatRequest
from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.errors import DataError

logger = logging.getLogger(__name__)

# Statuses after which the same call in a simpler form is worth a try; more of them than forms exist is a loop.
_MAX_ADAPTATIONS = 4
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# So many times `max_attempts` a request is sent again to an endpoint that is busy.
_BUSY_FACTOR = 5

OnRow = Callable[[dict[str, Any]], None]


def run_requests(
    requests: Iterable[ChatRequest],
    settings: ChatSettings,
    ledger: Ledger,
    *,
    progress: RunProgress | None = None,
    on_row: OnRow | None = None,
) -> RunProgress:
    """Ask every request that the ledger has no reply to, and wait for all of them.

    Replies are read from the ledger afterwards (`ledger.finished(request.fingerprint)`). A request that fails does not
    stop the others; what stops a run stands in `progress.stopped`: the budget, a fault that only a person can mend, too
    many failures in a row, or Ctrl-C, which lets calls under way come to their end, since they are paid.

    Args:
        requests: read as the calls go on, never gathered.
        settings: endpoint and limits.
        ledger: open; knows what is paid.
        progress: counters to keep up to date, for a display.
        on_row: called with the row of every finished request, from the ledger or new.

    Raises:
        UserError: no key, no price though a budget is set, or a ledger that cannot be written.
    """
    return asyncio.run(ask_all(requests, settings, ledger, progress=progress, on_row=on_row))


async def ask_all(
    requests: Iterable[ChatRequest],
    settings: ChatSettings,
    ledger: Ledger,
    *,
    progress: RunProgress | None = None,
    on_row: OnRow | None = None,
) -> RunProgress:
    """As `run_requests`, inside an event loop."""
    table = load_prices(settings.prices)
    price = table.require(settings.model) if settings.max_usd is not None else table.find(settings.model)
    limiter = RateLimiter(settings.rpm, settings.tpm)
    async with ChatClient(settings, on_headers=limiter.observe) as client:
        run = _Run(settings, client, ledger, limiter, price, progress or RunProgress(), on_row)
        # What is under way is paid, so it is waited for and written down.
        with interruptible(run.stop, "interrupted; calls under way were waited for"):
            await run.all(requests)
    return run.progress


def request_head(request: ChatRequest) -> dict[str, Any]:
    """What a row says about the request itself."""
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
    """The ledger's row of one attempt.

    Args:
        head: see `request_head`.
        worst: the most tokens that the request can use.
        answer: what came of the call.
        attempt: number of the call within its run, from 1.
        price: of the model, or None; then the row has no cost.
        batch: id of the batch that it was part of.
    """
    row: dict[str, Any] = {
        **head,
        "time": now(),
        "attempt": attempt,
        "status": answer.status,
        "latency_s": round(answer.latency_s, 3),
    }
    optional = {
        "served_by": answer.model,
        "reply_id": answer.reply_id,
        "finish": answer.finish,
        "http": answer.fault.http if answer.fault else None,
        "reason": answer.message or None,
        "reply": answer.text,
        "batch": batch,
    }
    row.update({name: value for name, value in optional.items() if value is not None})
    if answer.usage is not None:
        row["usage"] = {"input": answer.usage.input, "cached": answer.usage.cached, "output": answer.usage.output}
    if price is not None:
        row.update(_cost(worst, answer, price, batch is not None))
    return row


def _cost(worst: Usage, answer: Answer, price: Price, batch: bool) -> dict[str, float]:
    """`usd` where the cost is known, else `usd_bound`, the most that it can be."""
    if answer.usage is not None:
        return {"usd": round(price.usd(answer.usage, batch=batch), 9)}
    fault = answer.fault
    if fault is not None and not (fault.status in MAY_BE_BILLED and fault.was_sent):
        return {"usd": 0.0}
    return {"usd_bound": round(price.usd(worst, batch=batch), 9)}


class _Run:
    """The state of one run."""

    def __init__(
        self,
        settings: ChatSettings,
        client: ChatClient,
        ledger: Ledger,
        limiter: RateLimiter,
        price: Price | None,
        progress: RunProgress,
        on_row: OnRow | None,
    ):
        self.settings = settings
        self.client = client
        self.ledger = ledger
        self.limiter = limiter
        self.price = price
        self.progress = progress
        self.on_row = on_row
        self.budget = Budget(ledger, settings.max_usd)
        self.failures_in_a_row = 0
        self.under_way: set[str] = set()
        self.stopping = asyncio.Event()

    async def all(self, requests: Iterable[ChatRequest]) -> None:
        source = iter(requests)
        workers = [asyncio.create_task(self._work(source)) for _ in range(self.settings.max_in_flight)]
        try:
            await asyncio.gather(*workers)
        finally:
            # An error of our own (a full disk) ends the run; calls that are paid still get their chance to be written.
            self.stopping.set()
            await asyncio.gather(*workers, return_exceptions=True)

    def stop(self, reason: str) -> None:
        """Send nothing more; calls under way come to their end."""
        if not self.stopping.is_set():
            self.progress.stopped = reason
            self.stopping.set()

    async def _work(self, source: Iterator[ChatRequest]) -> None:
        num_known = 0
        while not self.stopping.is_set():
            request = next(source, None)
            if request is None:
                return
            if request.fingerprint in self.under_way:
                continue
            row = self.ledger.finished(request.fingerprint)
            if row is not None:
                self.progress.from_ledger += 1
                self._finish(row)
                num_known += 1
                if num_known % 64 == 0:
                    await asyncio.sleep(0)  # let the display and the other workers have their turn
                continue
            self.under_way.add(request.fingerprint)
            try:
                await self._ask_until_done(request)
            except BudgetReached:
                self.stop(f"the next request could exceed the limit of ${self.settings.max_usd:g}")
            finally:
                self.under_way.discard(request.fingerprint)

    async def _ask_until_done(self, request: ChatRequest) -> None:
        attempt = adaptations = 0
        faults: Counter[str] = Counter()
        while True:
            attempt += 1
            try:
                row = await self._attempt(request, attempt)
            except DataError as error:
                # Nothing was sent, and it says nothing about the endpoint.
                logger.warning("%s", error)
                self.progress.failed["bad_picture"] += 1
                return
            if row is None:
                return
            status = row["status"]
            if status in FINISHED:
                self.failures_in_a_row = 0
                self.limiter.success()
                self._finish(row)
                return
            if status in FATAL:
                self._fail(status, str(row.get("reason")))
                self.stop(_explain(status, str(row.get("reason")), self.settings))
                return
            if status in ADAPTABLE and adaptations < _MAX_ADAPTATIONS:
                adaptations += 1
                attempt -= 1
                continue
            faults[status] += 1
            if status not in TRANSIENT or self._is_enough(faults) or self.stopping.is_set():
                self._fail(status, str(row.get("reason")))
                return
            self.progress.retries[status] += 1
            await pause(self.limiter.backoff_s(attempt), self.stopping)

    def _is_enough(self, faults: Counter[str]) -> bool:
        """Whether a request has failed often enough. That the endpoint is busy is not the request's fault."""
        limit = self.settings.max_attempts
        return faults.total() - faults["rate_limited"] >= limit or faults["rate_limited"] >= _BUSY_FACTOR * limit

    async def _attempt(self, request: ChatRequest, attempt: int) -> dict[str, Any] | None:
        """One call, from waiting for its turn to its row on disk; None where the run stopped before it was sent."""
        expected = likely(request, self.price, float(request.parameters.get("max_output_tokens", 0)))
        tokens = expected.input + expected.output
        await self.limiter.acquire(tokens, self.stopping)
        worst = worst_case(request, self.price)
        worst_usd = self.price.usd(worst) if self.price else 0.0
        if self.stopping.is_set():
            return None
        await self.budget.reserve(worst_usd)
        self.progress.in_flight += 1
        try:
            if self.stopping.is_set():
                return None
            answer = await self._ask(request, worst, attempt)
            row = attempt_row(request_head(request), worst, answer, attempt, self.price)
            await self.ledger.append(row)
        finally:
            self.progress.in_flight -= 1
            self.budget.settle(worst_usd)
        used = answer.usage
        self.limiter.give_back(tokens - (used.input + used.output if used else tokens))
        self.progress.usd += row.get("usd", row.get("usd_bound", 0.0))
        self.progress.tokens.update(row.get("usage") or {})
        if answer.status in ("rate_limited", "server_error"):
            self._pause(answer)
        return row

    async def _ask(self, request: ChatRequest, worst: Usage, attempt: int) -> Answer:
        """One call; one that is broken off from outside may be billed all the same, so it gets its row."""
        try:
            return await self.client.ask(request)
        except asyncio.CancelledError:
            fault = Fault("dropped", "the run was broken off while the call was under way")
            answer = Answer(fault.status, message=fault.message, fault=fault)
            self.ledger.append_now(attempt_row(request_head(request), worst, answer, attempt, self.price))
            raise

    def _pause(self, answer: Answer) -> None:
        asked_s = answer.fault.retry_after_s if answer.fault else None
        if asked_s is not None and asked_s > self.settings.max_wait_s:
            self.stop(
                f"the endpoint asks to wait {asked_s:.0f} s, longer than max_wait_s ({self.settings.max_wait_s:g}): "
                f"{answer.message}"
            )
        elif answer.status == "rate_limited" or asked_s is not None:
            self.limiter.pause(asked_s)

    def _finish(self, row: dict[str, Any]) -> None:
        self.progress.done += 1
        if row["status"] != "ok":
            self.progress.rejected[row["status"]] += 1
        if self.on_row is not None:
            self.on_row(row)

    def _fail(self, status: str, reason: str) -> None:
        self.progress.failed[status] += 1
        self.failures_in_a_row += 1
        if self.failures_in_a_row >= self.settings.max_failures:
            self.stop(f"{self.failures_in_a_row} requests in a row failed, the last one with {status}: {reason}")


def _explain(status: str, reason: str, settings: ChatSettings) -> str:
    what = {
        "authentication": f"the endpoint does not accept the key in {settings.api_key_env}",
        "quota": "the account has no credit left",
        "not_found": f"the endpoint {settings.address()} knows no model '{settings.model}', or is no chat endpoint",
    }[status]
    return f"{what}: {reason}"


@contextmanager
def interruptible(stop: Callable[[str], None], reason: str) -> Iterator[None]:
    """Ctrl-C or a request to end (SIGTERM) stops a run gently the first time; the second time, at once.

    Args:
        stop: called the first time, with `reason`.
    """
    loop = asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            if loop.remove_signal_handler(number) and handler is not None:
                signal.signal(number, handler)

    def interrupt() -> None:
        restore()
        stop(reason)

    try:
        for number in _SIGNALS:
            loop.add_signal_handler(number, interrupt)
    except (NotImplementedError, RuntimeError):
        yield
        return
    try:
        yield
    finally:
        restore()
