"""Batch mode: requests go up as a file, answers come down as a file within a day, for half the price.

The ledger is the same. What is under way is written down before it is sent (`batch_planned`), so that a run that is
killed at any moment finds its batches again and sends nothing twice. A batch that expires brings what was done by then;
the rest is submitted again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lavis_emovit.chat.client import Answer, ChatClient
from lavis_emovit.chat.faults import FATAL, TRANSIENT, Fault, classify_exception, classify_status
from lavis_emovit.chat.ledger import FINISHED, Ledger
from lavis_emovit.chat.limits import pause
from lavis_emovit.chat.prices import Price, Usage, load_prices, worst_case
from lavis_emovit.chat.progress import RunProgress
from lavis_emovit.chat.request import ChatRequest
from lavis_emovit.chat.run import OnRow, attempt_row, interruptible, request_head
from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.errors import DataError, UserError

logger = logging.getLogger(__name__)

# The Batch API's own limits are 50,000 requests and 200 MB a file.
MAX_REQUESTS = 50_000
MAX_BYTES = 190_000_000
_ENDED = frozenset({"completed", "expired", "cancelled", "failed"})
_MAX_ROUNDS = 5


def run_batches(
    requests: Iterable[ChatRequest],
    settings: ChatSettings,
    ledger: Ledger,
    *,
    wait: bool = True,
    poll_s: float = 30.0,
    progress: RunProgress | None = None,
    on_row: OnRow | None = None,
    max_requests: int = MAX_REQUESTS,
    max_bytes: int = MAX_BYTES,
) -> RunProgress:
    """Collect what earlier batches brought, submit what the ledger has no reply to, and wait for it.

    Args:
        requests: can be read more than once (a list, or an object that makes iterators), since what expires is
            submitted again.
        settings: endpoint; its `max_usd` counts batches under way with their worst case.
        ledger: open.
        wait: False returns after submitting; the same call later collects.
        poll_s: pause between looks at the batches, in seconds.
        progress: counters to keep up to date.
        on_row: called with the row of every finished request, from the ledger or new.
        max_requests, max_bytes: size of one batch.

    Raises:
        UserError: as `run_requests`, and for an endpoint that refuses the batch.
    """
    settings = settings.model_copy(update={"stream": False})
    table = load_prices(settings.prices)
    price = table.require(settings.model) if settings.max_usd is not None else table.find(settings.model)
    run = _BatchRun(settings, ledger, price, progress or RunProgress(), on_row, poll_s, max_requests, max_bytes)
    return asyncio.run(run.all(requests, wait))


def open_submissions(ledger: Ledger) -> dict[str, dict[str, Any]]:
    """Submissions that have not ended, by name, with all that their events say."""
    submissions: dict[str, dict[str, Any]] = {}
    for event in ledger.events:
        if event["event"] == "batch_ended":
            submissions.pop(event["submission"], None)
        elif event["event"] in ("batch_planned", "batch_submitted"):
            submissions.setdefault(event["submission"], {}).update(event)
    return submissions


class _BatchRun:
    def __init__(
        self,
        settings: ChatSettings,
        ledger: Ledger,
        price: Price | None,
        progress: RunProgress,
        on_row: OnRow | None,
        poll_s: float,
        max_requests: int,
        max_bytes: int,
    ):
        self.settings = settings
        self.ledger = ledger
        self.price = price
        self.progress = progress
        self.on_row = on_row
        self.poll_s = poll_s
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self.folder = ledger.path.with_name(ledger.path.name + ".batches")
        self.asked: set[str] = set()
        self.seen: set[str] = set()
        self.given_up: set[str] = set()
        self.stopping = asyncio.Event()

    async def all(self, requests: Iterable[ChatRequest], wait: bool) -> RunProgress:
        async with ChatClient(self.settings) as client:
            self.client = client
            try:
                with interruptible(
                    self.stop, "interrupted; batches under way go on without us and are collected later"
                ):
                    await self._rounds(requests, wait)
            except (UserError, OSError):
                raise
            except Exception as error:
                fault = classify_exception(error)
                raise UserError(
                    f"the endpoint {self.settings.address()} did not take the batch ({fault.status}: "
                    f"{client.scrub(fault.message)}). Nothing is lost: the same command goes on from here."
                ) from None
        # While it waits, the display shows everything that is under way; the caller wants to know of its own requests.
        self.progress.in_flight = len(self.asked & self._under_way())
        return self.progress

    def stop(self, reason: str) -> None:
        """Submit nothing more, and wait no longer."""
        self.progress.stopped = reason
        self.stopping.set()

    async def _rounds(self, requests: Iterable[ChatRequest], wait: bool) -> None:
        self._count_known(requests)
        await self._find_lost()
        for _ in range(_MAX_ROUNDS):
            await self._collect(wait)
            if self.progress.stopped is not None:
                return
            if not await self._submit(requests) or not wait:
                return
        await self._collect(wait)

    # ---- What is open ----

    def _heads(self, submission: str) -> Iterator[tuple[dict[str, Any], Usage]]:
        path = self.folder / f"{submission}.requests.jsonl"
        try:
            # Only line feeds end a line; `splitlines` would cut at others that stand in ids.
            lines = path.read_text(encoding="utf-8").split("\n")
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read ({error.strerror}). It says what the batch {submission} was asked; without "
                "it the batch's answers cannot be written down. Put it back."
            ) from None
        for line in filter(None, lines):
            entry = json.loads(line)
            yield entry["head"], Usage(*entry["worst"])

    def _under_way(self) -> set[str]:
        """Fingerprints of all requests in open batches."""
        return {head["request"] for name in open_submissions(self.ledger) for head, _ in self._heads(name)}

    def _count_known(self, requests: Iterable[ChatRequest]) -> None:
        for request in requests:
            self.asked.add(request.fingerprint)
            row = self.ledger.finished(request.fingerprint)
            if row is not None and request.fingerprint not in self.seen:
                self.progress.from_ledger += 1
                self._finish(row)

    async def _find_lost(self) -> None:
        """Batches of a run that was killed between submitting and writing it down."""
        lost = {name for name, entry in open_submissions(self.ledger).items() if "batch" not in entry}
        if not lost:
            return
        async for batch in self.client.api.batches.list(limit=100):
            name = (batch.metadata or {}).get("submission")
            if name in lost:
                self.ledger.append_now({"event": "batch_submitted", "submission": name, "batch": batch.id})
                lost.discard(name)
        for name in lost:
            self.ledger.append_now({"event": "batch_ended", "submission": name, "status": "never submitted"})

    # ---- Down ----

    async def _collect(self, wait: bool) -> None:
        """Write down what open batches brought; with `wait`, until none is open."""
        while True:
            under_way = 0
            for name, entry in open_submissions(self.ledger).items():
                batch = await self.client.api.batches.retrieve(entry["batch"])
                if batch.status in _ENDED:
                    await self._write_down(name, batch)
                else:
                    under_way += entry["requests"]
            self.progress.in_flight = under_way
            if not under_way or not wait or self.progress.stopped is not None:
                return
            await pause(self.poll_s, self.stopping)

    async def _write_down(self, name: str, batch: Any) -> None:
        heads = {head["request"]: (head, worst) for head, worst in self._heads(name)}
        rows = []
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id is None:
                continue
            content = await self.client.api.files.content(file_id)
            for line in content.text.split("\n"):
                if line.strip():
                    rows += self._row(_entry(line, file_id), heads, batch.id)
        # Whatever the files leave out was not done.
        for head, worst in heads.values():
            fault = Fault("expired", f"the batch ended as {batch.status} without an answer")
            rows.append(
                attempt_row(head, worst, Answer("expired", message=fault.message, fault=fault), 1, None, batch=batch.id)
            )
        for start in range(0, len(rows), 1000):
            await asyncio.gather(*map(self.ledger.append, rows[start : start + 1000]))
        for row in rows:
            self.progress.usd += row.get("usd", row.get("usd_bound", 0.0))
            self.progress.tokens.update(row.get("usage") or {})
            if row["status"] in FINISHED:
                self._finish(row)
            elif row["status"] != "expired":
                self.progress.failed[row["status"]] += 1
                if row["status"] not in TRANSIENT:
                    self.given_up.add(row["request"])
                if row["status"] in FATAL:
                    self.progress.stopped = f"{row['status']}: {row.get('reason')}"
        self.ledger.append_now({"event": "batch_ended", "submission": name, "status": batch.status})
        if batch.status in ("failed", "cancelled"):
            errors = "; ".join(str(item.message) for item in (batch.errors.data if batch.errors else []) or [])
            self.progress.stopped = f"the batch {batch.id} {batch.status}: {errors or 'no reason given'}"

    def _row(self, line: dict[str, Any], heads: dict[str, Any], batch_id: str) -> list[dict[str, Any]]:
        """The row of one line of a result file; none for a request that is written down already."""
        head, worst = heads.pop(str(line.get("custom_id")), (None, None))
        if head is None or head["request"] in self.ledger:
            return []
        response = line.get("response") or {}
        body = response.get("body") or {}
        error = line.get("error") or (body.get("error") if isinstance(body, dict) else None) or {}
        if response.get("status_code") == 200:
            answer = self.client.read_completion(body, demands_json=bool(head.get("demands_json")))
        elif error.get("code") in ("batch_expired", "batch_cancelled"):
            answer = Answer("expired", message=str(error.get("message")), fault=Fault("expired", ""))
        else:
            message = self.client.scrub(str(error.get("message") or error))
            code = f"{error.get('code')} {error.get('type')}"
            fault = classify_status(int(response.get("status_code") or 500), code, message)
            answer = Answer(fault.status, message=message, fault=fault)
        head = {key: value for key, value in head.items() if key != "demands_json"}
        return [attempt_row(head, worst, answer, 1, self.price, batch=batch_id)]

    def _finish(self, row: dict[str, Any]) -> None:
        if row["request"] not in self.asked:
            return  # of another step, whose batch came back meanwhile
        self.seen.add(row["request"])
        self.progress.done += 1
        if row["status"] != "ok":
            self.progress.rejected[row["status"]] += 1
        if self.on_row is not None:
            self.on_row(row)

    # ---- Up ----

    async def _submit(self, requests: Iterable[ChatRequest]) -> bool:
        """Submit everything that has no reply and is in no open batch; False where there is nothing."""
        open_batches = open_submissions(self.ledger)
        taken = self._under_way() | self.given_up
        left_usd = None
        if self.settings.max_usd is not None:
            under_way = sum(entry.get("usd_bound", 0.0) for entry in open_batches.values())
            left_usd = self.settings.max_usd - self.ledger.usd_spent - under_way
        submitted = False
        parts: list[tuple[dict[str, Any], Usage, bytes]] = []
        size, usd = 0, 0.0
        for request in requests:
            if request.fingerprint in self.ledger or request.fingerprint in taken:
                continue
            taken.add(request.fingerprint)
            worst = worst_case(request, self.price)
            cost = self.price.usd(worst, batch=True) if self.price else 0.0
            if left_usd is not None and usd + cost > left_usd:
                self.progress.stopped = f"the next request could exceed the limit of ${self.settings.max_usd:g}"
                break
            try:
                body = self.client.body(request)
            except DataError as error:
                logger.warning("%s", error)
                self.progress.failed["bad_picture"] += 1
                self.given_up.add(request.fingerprint)
                continue
            line = {"custom_id": request.fingerprint, "method": "POST", "url": "/v1/chat/completions", "body": body}
            data = json.dumps(line, ensure_ascii=False).encode() + b"\n"
            if parts and (len(parts) >= self.max_requests or size + len(data) > self.max_bytes):
                await self._send(parts, usd)
                submitted, left_usd = True, None if left_usd is None else left_usd - usd
                parts, size, usd = [], 0, 0.0
            parts.append(({**request_head(request), "demands_json": "response_format" in body}, worst, data))
            size += len(data)
            usd += cost
        if parts:
            await self._send(parts, usd)
            submitted = True
        return submitted

    async def _send(self, parts: list[tuple[dict[str, Any], Usage, bytes]], usd: float) -> None:
        name = uuid.uuid4().hex[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        heads = [{"head": head, "worst": [worst.input, worst.output]} for head, worst, _ in parts]
        _write_flushed(
            self.folder / f"{name}.requests.jsonl",
            "".join(json.dumps(head, ensure_ascii=False) + "\n" for head in heads).encode(),
        )
        self.ledger.append_now(
            {"event": "batch_planned", "submission": name, "requests": len(parts), "usd_bound": round(usd, 6)}
        )
        content = b"".join(data for _, _, data in parts)
        file = await self.client.api.files.create(file=(f"{name}.jsonl", content), purpose="batch")
        batch = await self.client.api.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"submission": name},
        )
        self.ledger.append_now({"event": "batch_submitted", "submission": name, "batch": batch.id})
        self.progress.in_flight += len(parts)


def _entry(line: str, file_id: str) -> dict[str, Any]:
    """A line of a result file; its request counts as not answered where the line cannot be read."""
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    if isinstance(entry, dict):
        return entry
    logger.warning("a line of the batch's file %s cannot be read; its request is sent again", file_id)
    return {}


def _write_flushed(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
