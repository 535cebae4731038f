"""What can go wrong with a call, class by class, and what each class means for the run."""

from __future__ import annotations

import asyncio
import email.utils
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Passes by itself: the request is sent again.
TRANSIENT = frozenset({"rate_limited", "server_error", "timeout", "dropped", "malformed"})
# Nothing but a person helps: the run ends.
FATAL = frozenset({"authentication", "quota", "not_found"})
# The endpoint lacks something that we can do without: sent again in another form, see `client.py`.
ADAPTABLE = frozenset({"schema_unsupported", "parameter_unsupported"})
# Everything else (`bad_request`, `expired`) ends the request, not the run.

# Whether the endpoint may have done the work, although no answer came.
MAY_BE_BILLED = frozenset({"timeout", "dropped", "malformed"})

_QUOTA = re.compile(r"insufficient_quota|exceeded your current quota|billing|credit balance|payment required", re.I)
_FILTERED = re.compile(r"content[_ ]?(?:filter|policy|management)|responsible ?ai|safety system", re.I)
_SCHEMA = re.compile(r"response_format|json_schema|json_object|structured output|guided|grammar", re.I)
_OTHER_TOKEN_PARAMETER = re.compile(r"max_completion_tokens|max_tokens", re.I)
_UNSUPPORTED = re.compile(
    r"not support|unsupported|unknown|unrecogni[sz]ed|not permitted|extra (?:inputs|fields)|invalid", re.I
)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Fault:
    """A call that brought no reply.

    Attributes:
        status: its class, as the ledger names it.
        message: what the endpoint said.
        http: status code, where there was an HTTP answer.
        retry_after_s: the pause that the endpoint asks for.
        was_sent: False where no connection came about.
    """

    status: str
    message: str
    http: int | None = None
    retry_after_s: float | None = None
    was_sent: bool = True


def classify_exception(error: BaseException) -> Fault:
    """The class of an exception of the `openai` client (or of a call that took too long)."""
    import openai

    if isinstance(error, (openai.APITimeoutError, asyncio.TimeoutError, TimeoutError)):
        sent = type(error.__cause__).__name__ not in ("ConnectTimeout", "PoolTimeout")
        return Fault("timeout", "no answer within the time limit", was_sent=sent)
    if isinstance(error, openai.APIStatusError):
        headers = {name.lower(): value for name, value in error.response.headers.items()}
        code, message = _code_and_message(error)
        return classify_status(error.status_code, code, message, retry_after_s(headers))
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__
        sent = type(cause).__name__ not in ("ConnectError", "ConnectTimeout", "UnsupportedProtocol")
        return Fault("dropped", f"{type(cause).__name__ if cause else 'connection'}: {cause or error}", was_sent=sent)
    if isinstance(error, openai.OpenAIError):
        return Fault("malformed", f"{type(error).__name__}: {error}")
    raise error


def classify_status(http: int, code: str, message: str, wait_s: float | None = None) -> Fault:
    """The class of an HTTP answer that is no success.

    Args:
        http: the status code.
        code: `code` and `type` of the protocol's error object, joined; may be empty.
        message: the error's text.
        wait_s: the pause that the answer asks for.
    """
    text = f"{code} {message}"
    if http == 402 or (http in (403, 429) and _QUOTA.search(text)):
        status = "quota"
    elif http in (401, 403):
        status = "authentication"
    elif http == 404:
        status = "not_found"
    elif http == 429:
        status = "rate_limited"
    elif http == 408:
        status = "timeout"
    elif http >= 500 or http == 409:
        status = "server_error"
    elif _FILTERED.search(text):
        status = "refused"
    elif _SCHEMA.search(text) and _UNSUPPORTED.search(text):
        status = "schema_unsupported"
    elif _OTHER_TOKEN_PARAMETER.search(text) and _UNSUPPORTED.search(text):
        status = "parameter_unsupported"
    else:
        status = "bad_request"
    return Fault(status, message or f"HTTP {http}", http, wait_s)


def _code_and_message(error: Any) -> tuple[str, str]:
    body = error.body if isinstance(error.body, Mapping) else {}
    inner = body.get("error", body)
    if isinstance(inner, Mapping):
        code = " ".join(str(inner.get(key) or "") for key in ("code", "type"))
        return code, str(inner.get("message") or error.message)
    return "", str(inner or error.message)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The pause that an answer's headers ask for, in seconds; names are in lower case.

    `retry-after-ms` wins over `retry-after`, which holds seconds or a date.
    """
    milliseconds, value = headers.get("retry-after-ms"), headers.get("retry-after")
    try:
        if milliseconds is not None:
            return max(0.0, float(milliseconds) / 1000)
        if value is not None:
            return max(0.0, float(value))
    except ValueError:
        pass
    if value is None:
        return None
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def duration_s(text: str) -> float | None:
    """Seconds of a duration as rate-limit headers give it (`1s`, `6m0s`, `120ms`, or a plain number)."""
    parts = _DURATION.findall(text)
    if parts:
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)
    try:
        return float(text)
    except ValueError:
        return None
