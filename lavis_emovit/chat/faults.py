"""The outcome of a call: a reply, or a fault of a class that says what it means for the run."""

from __future__ import annotations

import asyncio
import email.utils
import math
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from lavis_emovit.chat.prices import Usage

# Passes by itself: the call is repeated.
TRANSIENT = frozenset({"rate_limited", "server_error", "timeout", "dropped", "malformed"})
# Only a person can fix it: the run ends.
FATAL = frozenset({"authentication", "quota", "not_found"})
# The endpoint lacks an optional feature: the call is repeated in a simpler form, see `client.py`.
ADAPTABLE = frozenset({"schema_unsupported", "parameter_unsupported"})
# All other classes (`bad_request`, `expired`) end the request, not the run.

_BY_HTTP_STATUS = {
    401: "authentication", 402: "quota", 403: "authentication", 404: "not_found", 408: "timeout", 409: "server_error",
    429: "rate_limited",
}  # fmt: skip
_QUOTA = re.compile(r"insufficient_quota|exceeded your current quota|billing|credit balance|payment required", re.I)
_FILTERED = re.compile(
    r"content[_ ]?(?:filter|policy|management|moderation)|responsible ?ai|safety system|requires moderation|"
    r"(?:input|prompt|content|image|text|message|request)s? (?:\w+ ){0,3}flagged|"
    r"(?:input|prompt|content|image)s? (?:\w+ ){0,3}blocked|"
    r"data_inspection_failed|inappropriate content",
    re.I,
)
_SCHEMA = re.compile(r"response_format|json_schema|json_object|structured output|guided|grammar", re.I)
_TOKEN_PARAMETER = re.compile(r"max_completion_tokens|max_tokens", re.I)
_UNSUPPORTED = re.compile(
    r"not support|unsupported|unknown|unrecogni[sz]ed|not permitted|extra (?:inputs|fields)|invalid", re.I
)
# Some errors are whole web pages.
_MAX_MESSAGE = 1000
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Answer:
    """The outcome of one call. Most fields have the name and order of the keys of a ledger row."""

    status: str  # `ok`, another status of `ledger.FINISHED`, or a class of fault
    latency_s: float = 0.0
    served_by: str | None = None  # the model that the endpoint reports
    reply_id: str | None = None
    finish: str | None = None  # the endpoint's `finish_reason`
    http: int | None = None  # status code of an error
    reason: str | None = None  # why the status is not `ok`
    reply: str | None = None  # the raw text of the model
    # The likeliest tokens in place of the first one that is not blank, or the choices of the request, each with its
    # log-probability (natural log); None if the endpoint returned none.
    logprobs: list[list[str | float]] | None = None
    usage: Usage | None = None
    retry_after_s: float | None = None  # the pause that the endpoint requests
    may_be_billed: bool = True  # False if the endpoint has certainly not done the work


def classify_exception(error: BaseException) -> Answer:
    """The class of an exception of the `openai` client, or of a call that took too long."""
    import aiohttp
    import openai

    if isinstance(error, openai.APIStatusError):
        return classify_error(error.status_code, error.body, retry_after_s(error.response.headers))
    # aiohttp's own exception decides: openai reports a connection that broke after sending as a connect timeout, and
    # taking that call for one that was not sent would let a run exceed its budget.
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    not_sent = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)
    was_sent = not any(isinstance(cause, not_sent) for cause in causes)
    if any(isinstance(cause, (asyncio.TimeoutError, TimeoutError)) for cause in causes):
        return Answer("timeout", reason="no answer within the time limit", may_be_billed=was_sent)
    if isinstance(error, openai.APIConnectionError):
        return Answer("dropped", reason=f"{type(causes[-1]).__name__}: {causes[-1]}", may_be_billed=was_sent)
    # The client lets through what its HTTP library does not expect. The call may be paid, so it needs its row.
    return Answer("malformed", reason=f"{type(error).__name__}: {error}")


def classify_error(http: int, error: object, wait_s: float | None = None) -> Answer:
    """The class of an error, from its HTTP status code and its error object, which may have any form.

    `http` is 200 if the error is inside of a successful answer and names no status.
    """
    details = error if isinstance(error, Mapping) else {"message": error}
    message = _message(details)
    text = f"{details.get('code') or ''} {details.get('type') or ''} {message}"
    status = _BY_HTTP_STATUS.get(http) or ("bad_request" if 400 <= http < 500 else "server_error")
    if http in (200, 403, 429) and _QUOTA.search(text):
        status = "quota"
    elif (status == "bad_request" or http in (200, 403)) and _FILTERED.search(text):
        status = "refused"  # the input, not the key, is at fault
    elif status == "bad_request" and _UNSUPPORTED.search(text):
        if _SCHEMA.search(text):
            status = "schema_unsupported"
        elif _TOKEN_PARAMETER.search(text):
            status = "parameter_unsupported"
    reason = message or f"HTTP {http}"
    return Answer(status, http=http, reason=reason, retry_after_s=wait_s, may_be_billed=status == "timeout")


def _message(details: Mapping[object, object]) -> str:
    """The message of an error: OpenAI's `message`, FastAPI's `detail` (a text or a list), or a text `error`."""
    found = next((details[name] for name in ("message", "detail", "error") if details.get(name)), None)
    if isinstance(found, Mapping):
        return _message(found) or str(found)
    if isinstance(found, list):
        items = [item if isinstance(item, Mapping) else {"msg": item} for item in found]
        return "; ".join(
            f"{'.'.join(map(str, place)) if isinstance(place := item.get('loc'), list) else 'error'}: "
            f"{item.get('msg') or item.get('message') or item}"
            for item in items
        )
    if found is None:
        found = dict(details) if any(details.values()) else ""
    return str(found)[:_MAX_MESSAGE]


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer requests to wait, in `retry-after-ms`, else in `retry-after`, which may also be a date."""
    for name, unit_s in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        with suppress(KeyError, ValueError):
            return max(0.0, float(headers[name]) * unit_s)
    with suppress(KeyError, TypeError, ValueError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    return None


def header_number(text: str | None) -> float | None:
    """A number in a rate-limit header, or the seconds of a duration (`1s`, `6m0s`, `120ms`); None if it is neither."""
    parts = _DURATION.findall(text or "")
    if parts:
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)
    with suppress(ValueError):
        number = float(text or "")
        return number if math.isfinite(number) else None
    return None
