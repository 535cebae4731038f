"""Batch mode: requests are uploaded as a file, and answered within a day for half the price.

A batch is recorded in the ledger before it is sent (`batch_planned`), so a run that was killed at any moment finds its
batches again and sends nothing twice. Requests of a batch that expired are submitted again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from pydantic import Field

from lavis_emovit.chat.client import ChatClient
from lavis_emovit.chat.faults import FATAL, TRANSIENT, Answer, classify_error, classify_exception
from lavis_emovit.chat.ledger import FINISHED, Ledger
from lavis_emovit.chat.limits import pause
from lavis_emovit.chat.prices import Usage, worst_case
from lavis_emovit.chat.progress import RunProgress
from lavis_emovit.chat.request import ChatRequest
from lavis_emovit.chat.run import OnRow, Run, attempt_row, request_head
from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.distributed.signals import on_interrupt
from lavis_emovit.errors import DataError, UserError
from lavis_emovit.files import atomic_writer, read_file
from lavis_emovit.own_files import Written, parse_as

logger = logging.getLogger(__name__)

# The Batch API's own limits are 50,000 requests and 200 MB a file.
MAX_REQUESTS = 50_000
MAX_BYTES = 190_000_000
_ENDED = frozenset({"completed", "expired", "cancelled", "failed"})
_MAX_ROUNDS = 5
POLL_S = 30.0  # between two questions whether a batch has ended
_CUSTOM_ID = re.compile(r'"custom_id"\s*:\s*"([0-9a-f]{64})"')
_ROWS_AT_ONCE = 1000
_Tokens = Annotated[int, Field(ge=0, le=10**12)]


def run_batches(
    requests: Iterable[ChatRequest],
    settings: ChatSettings,
    ledger: Ledger,
    *,
    wait: bool = True,
    abandon_lost: bool = False,
    progress: RunProgress | None = None,
    on_row: OnRow | None = None,
) -> RunProgress:
    """As `run_requests`, in batches: collect earlier ones, submit what the ledger has no reply to, and wait for it.

    `requests` must allow iterating more than once, because expired requests are submitted again. Batches under way
    count towards `max_usd` with their worst case. Without `wait`, it returns after submitting; the same call later
    collects. UserError also if the endpoint refuses a batch, or no longer has one that is under way. `abandon_lost`
    submits the requests of such batches again, which may pay for them twice.
    """
    settings = settings.model_copy(update={"stream": False})
    run = _Batches(settings, ledger, progress or RunProgress(), on_row, wait, abandon_lost)
    return asyncio.run(run.run(requests))


def open_submissions(ledger: Ledger) -> dict[str, dict[str, Any]]:
    """Submissions that have not ended, by name, with the contents of their events."""
    submissions: dict[str, dict[str, Any]] = {}
    for event in ledger.events:
        if event["event"] == "batch_ended":
            submissions.pop(event["submission"], None)
        elif event["event"] in ("batch_planned", "batch_submitted"):
            submissions.setdefault(event["submission"], {}).update(event)
    return submissions


class _Head(Written):
    """The head of a row of the ledger; see `request_head`."""

    request: str = Field(pattern="^[0-9a-f]{64}$")
    demands_json: bool = False


class _Listed(Written):
    """A line of the list of a batch's requests: the head of its row, and the tokens that it may cost."""

    head: _Head
    worst: tuple[_Tokens, _Tokens]


@dataclass
class _Batches(Run):
    wait: bool
    abandon_lost: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        self.folder = self.ledger.path.with_name(self.ledger.path.name + ".batches")
        self.requested: set[str] = set()
        self.given_up: set[str] = set()
        self.unanswered: dict[str, tuple[str, str]] = {}  # request to send again -> class and reason of its last fault

    async def run(self, requests: Iterable[ChatRequest]) -> RunProgress:
        async with ChatClient(self.settings) as self.client:
            try:
                with on_interrupt(partial(self.stop, "interrupted; batches continue and are collected later")):
                    await self._submit_and_collect(requests)
            except (UserError, OSError):
                raise
            except Exception as error:  # an endpoint can send anything in place of a batch
                fault = classify_exception(error)
                raise UserError(
                    f"the endpoint {self.settings.address()} did not take the batch ({fault.status}: "
                    f"{self.client.scrub(str(fault.reason))}). Nothing is lost: the same command resumes from here."
                ) from error
        # While waiting, this counts everything that is under way; in the end, only requests of this call.
        under_way = self.requested & self._under_way()
        self.progress.in_flight = len(under_way)
        for request, last in self.unanswered.items():
            if request not in self.ledger and request not in under_way:
                self.progress.fail(*last)
        return self.progress

    async def _submit_and_collect(self, requests: Iterable[ChatRequest]) -> None:
        for request in requests:
            if request.fingerprint not in self.requested:
                self.requested.add(request.fingerprint)
                self.is_paid(request)
        await self._find_lost()
        for _ in range(_MAX_ROUNDS):
            await self._collect()
            if self.stopping.is_set() or not await self._submit(requests) or not self.wait:
                return
        await self._collect()

    def finish(self, row: dict[str, Any]) -> None:
        if row["request"] in self.requested:  # batches of other steps can end in the meantime
            super().finish(row)

    def _heads(self, submission: str) -> Iterator[tuple[dict[str, Any], Usage, bool]]:
        """Of each request of a batch: the head of its row, its highest usage, and whether it demands JSON."""
        path = self.folder / f"{submission}.requests.jsonl"
        try:
            # Only line feeds end a line; `splitlines` would also cut within ids.
            lines = read_file(path).split(b"\n")
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read ({error.strerror}). The answers of the batch {submission} cannot be recorded "
                "without this list of its requests. Put it back."
            ) from None
        for number, line in enumerate(lines, start=1):
            if not line:
                continue
            try:
                entry = parse_as(line, _Listed)
            except ValueError:
                raise DataError(
                    f"{path}:{number}: not a request of this batch, so its answer cannot be recorded. The file was "
                    "edited; put it back."
                ) from None
            head = entry.head.model_dump(exclude_unset=True)
            yield head, Usage(*entry.worst), head.pop("demands_json", False)

    def _under_way(self) -> set[str]:
        return {head["request"] for name in open_submissions(self.ledger) for head, _, _ in self._heads(name)}

    async def _find_lost(self) -> None:
        """Find batches of a run that was killed after it submitted them and before it recorded that."""
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

    async def _collect(self) -> None:
        """Record the results of open batches; with `wait`, until no batch is open."""
        while True:
            under_way = 0
            lost: dict[str, tuple[dict[str, Any], Answer]] = {}
            for name, entry in open_submissions(self.ledger).items():
                try:
                    batch = await self.client.api.batches.retrieve(entry["batch"])
                    if not isinstance(batch.status, str):
                        raise TypeError(f"no batch in the answer: {str(batch)[:200]}")
                    if batch.status in _ENDED:
                        await self._record(name, batch)
                    else:
                        under_way += entry["requests"]
                except Exception as error:
                    fault = classify_exception(error)
                    if fault.status != "not_found":
                        raise
                    lost[name] = entry, fault
            await self._settle_lost(lost)
            self.progress.in_flight = under_way
            if not under_way or not self.wait or self.stopping.is_set():
                return
            await pause(POLL_S, self.stopping)

    async def _settle_lost(self, lost: dict[str, tuple[dict[str, Any], Answer]]) -> None:
        """Abandon batches, or their result files, that the endpoint no longer has; UserError without permission."""
        for name, (entry, fault) in lost.items():
            if not self.abandon_lost:
                raise UserError(
                    f"{self.ledger.path}: the endpoint {self.settings.address()} no longer has the batch "
                    f"{entry['batch']} with {entry['requests']} requests, or its results "
                    f"({self.client.scrub(str(fault.reason))}). Check address and key first: another account cannot "
                    "see it. If it expired or was deleted, add --abandon-batches: its requests stay in the ledger at "
                    "their highest cost, and are sent and paid again."
                )
            # The batch may be billed, so the requests cost the most that they can.
            missing = Answer("expired", http=fault.http, reason=f"the endpoint lost the batch: {fault.reason}")
            rows = [
                attempt_row(head, worst, self.client.scrubbed(missing), 1, self.price, batch=entry["batch"])
                for head, worst, _ in self._heads(name)
                if head["request"] not in self.ledger
            ]
            await self._end(name, rows, "abandoned")

    async def _record(self, name: str, batch: Any) -> None:
        heads = {head["request"]: (head, worst, demands_json) for head, worst, demands_json in self._heads(name)}
        rows, num_requests = [], len(heads)
        for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
            content = await self.client.api.files.content(file_id)
            for line in filter(str.strip, content.text.split("\n")):
                # Found without parsing: a line that cannot be parsed is paid too.
                named = _CUSTOM_ID.search(line)
                if named is None or named[1] not in heads:
                    logger.warning("%s: ignored a line that cannot be read or belongs to no open request", file_id)
                    continue
                head, worst, demands_json = heads.pop(named[1])
                if head["request"] not in self.ledger:
                    answer = self.client.read(partial(self._answer, line, demands_json=demands_json), line)
                    rows.append(attempt_row(head, worst, answer, 1, self.price, batch=batch.id))
        # Requests in neither file were not answered.
        num_missing = len(heads)
        missing = Answer("expired", reason=f"the batch ended as {batch.status} without an answer")
        rows += [attempt_row(head, worst, missing, 1, None, batch=batch.id) for head, worst, _ in heads.values()]
        await self._end(name, rows, batch.status)
        if batch.status in ("failed", "cancelled"):
            found = getattr(batch.errors, "data", None) or []
            errors = self.client.scrub("; ".join(str(getattr(item, "message", item)) for item in found))
            self.stop(f"the batch {batch.id} {batch.status}: {errors or 'no reason given'}")
        elif batch.status == "completed" and num_missing == num_requests:
            # Sending them again would get, and pay for, the same nothing.
            self.stop(f"the batch {batch.id} completed without an answer to any of its {num_requests} requests")

    async def _end(self, name: str, rows: list[dict[str, Any]], batch_status: str) -> None:
        """Write and count the rows of a batch, then its end."""
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            await asyncio.gather(*map(self.ledger.append, rows[start : start + _ROWS_AT_ONCE]))
        for row in rows:
            status, reason = row["status"], str(row.get("reason"))
            self.count_cost(row)
            if status in FINISHED:
                self.finish(row)
                continue
            if status == "expired" or status in TRANSIENT:
                self.progress.retries[status] += 1
            else:
                self.given_up.add(row["request"])
            if row["request"] in self.requested:
                self.unanswered[row["request"]] = status, reason
            if status in FATAL:
                self.stop(f"{status}: {reason}")
        self.ledger.append_now({"event": "batch_ended", "submission": name, "status": batch_status})

    def _answer(self, line: str, *, demands_json: bool) -> Answer:
        entry = json.loads(line)
        response = entry.get("response") or {}
        body = response.get("body") or {}
        http = int(response.get("status_code") or 0)  # some endpoints send it as text
        if http == 200:
            return self.client.read_completion(body, demands_json=demands_json)
        error = entry.get("error") or (body.get("error") if isinstance(body, dict) else None) or body
        if isinstance(error, dict) and error.get("code") in ("batch_expired", "batch_cancelled"):
            return Answer("expired", reason=str(error.get("message")), may_be_billed=False)
        return classify_error(http or 200, error)

    async def _submit(self, requests: Iterable[ChatRequest]) -> bool:
        """Submit all requests without a reply that are in no open batch. False if there are none."""
        taken = self._under_way() | self.given_up
        left_usd = float("inf")
        if self.settings.max_usd is not None:
            under_way = sum(entry.get("usd_bound") or 0.0 for entry in open_submissions(self.ledger).values())
            left_usd = self.settings.max_usd - self.ledger.usd_spent - under_way
        submitted = False
        parts: list[tuple[dict[str, Any], bytes]] = []
        size, usd = 0, 0.0
        for request in requests:
            if request.fingerprint in self.ledger or request.fingerprint in taken:
                continue
            taken.add(request.fingerprint)
            worst = worst_case(request, self.price)
            cost = self.price.usd(worst, batch=True) if self.price else 0.0
            if usd + cost > left_usd:
                self.stop_for_budget()
                break
            try:
                body = self.client.body(request)
            except DataError as error:
                logger.warning("%s", error)
                self.progress.fail("bad_picture", str(error))
                self.given_up.add(request.fingerprint)
                continue
            line = {"custom_id": request.fingerprint, "method": "POST", "url": "/v1/chat/completions", "body": body}
            data = json.dumps(line, ensure_ascii=False).encode() + b"\n"
            if parts and (len(parts) >= MAX_REQUESTS or size + len(data) > MAX_BYTES):
                await self._send(parts, usd)
                submitted = True
                left_usd -= usd
                parts, size, usd = [], 0, 0.0
            head = {**request_head(request), "demands_json": "response_format" in body}
            parts.append(({"head": head, "worst": [worst.input, worst.output]}, data))
            size += len(data)
            usd += cost
        if parts:
            await self._send(parts, usd)
        return submitted or bool(parts)

    async def _send(self, parts: list[tuple[dict[str, Any], bytes]], usd: float) -> None:
        name = uuid.uuid4().hex[:16]
        with atomic_writer(self.folder / f"{name}.requests.jsonl") as list_file:
            list_file.writelines(json.dumps(entry, ensure_ascii=False) + "\n" for entry, _ in parts)
        self.ledger.append_now(
            {"event": "batch_planned", "submission": name, "requests": len(parts), "usd_bound": round(usd, 6)}
        )
        content = b"".join(data for _, data in parts)
        file = await self.client.api.files.create(file=(f"{name}.jsonl", content), purpose="batch")
        batch = await self.client.api.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"submission": name},
        )
        self.ledger.append_now({"event": "batch_submitted", "submission": name, "batch": batch.id})
        self.progress.in_flight += len(parts)
