"""One call to an OpenAI-compatible endpoint, and what came of it."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lavis_emovit.chat.faults import Fault, classify_exception, classify_status
from lavis_emovit.chat.json_text import find_json
from lavis_emovit.chat.prices import Usage
from lavis_emovit.chat.request import ChatRequest
from lavis_emovit.chat.settings import KEY_LIKE, ChatSettings

# httpx looks at every connection of a pool for every request, so many small pools are faster than one large one.
_CONNECTIONS_PER_POOL = 8
_LIBRARY_LOGGERS = ("openai", "httpx", "httpx2", "httpcore", "httpcore2")
_HALF_CHARACTER = re.compile(r"[\ud800-\udfff]")
# Only these end a line of a stream; str.splitlines would cut inside of texts.
_LINE_END = re.compile(r"\r\n|\n|\r")
_STEPS_DOWN = {"json_schema": "json_object", "json_object": "text"}


@dataclass(frozen=True)
class Answer:
    """What came of one call.

    Attributes:
        status: `ok` or a class of fault, see `ledger.FINISHED` and `faults.py`.
        text: the raw reply, or None.
        message: why, where it is not `ok`.
        usage: tokens, where the endpoint counts them.
        finish: the endpoint's `finish_reason`.
        model: the model that the endpoint says it used.
        reply_id: the endpoint's id of the reply.
        fault: the fault, where no reply came.
        latency_s: how long it took, in seconds.
    """

    status: str
    text: str | None = None
    message: str = ""
    usage: Usage | None = None
    finish: str | None = None
    model: str | None = None
    reply_id: str | None = None
    fault: Fault | None = None
    latency_s: float = 0.0


class ChatClient:
    """Calls to one endpoint. Use it as an asynchronous context manager.

    Args:
        settings: the endpoint.
        on_headers: called with the headers of every HTTP answer, names in lower case.
    """

    def __init__(self, settings: ChatSettings, on_headers: Callable[[Mapping[str, str]], None] | None = None):
        import openai

        # On debug level these print whole requests; neither pictures nor headers belong into a log.
        for name in _LIBRARY_LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
        self.settings = settings
        self._key = settings.api_key()
        self._on_headers = on_headers
        self._structured: str = "json_schema" if settings.structured == "auto" else settings.structured
        self._token_parameter: str = settings.token_parameter
        if self._token_parameter == "auto":
            self._token_parameter = "max_completion_tokens" if settings.is_official() else "max_tokens"
        num_pools = -(-settings.max_in_flight // _CONNECTIONS_PER_POOL)
        http_options = _http_options(openai, settings)
        self._pools = [self._make_pool(openai, http_options) for _ in range(num_pools)]
        self._next_pool = 0

    def _make_pool(self, openai: Any, http_options: Mapping[str, Any]) -> Any:
        http_client = openai.DefaultAsyncHttpxClient(event_hooks={"response": [self._see_headers]}, **http_options)
        common: dict[str, Any] = {
            "api_key": self._key.get_secret_value(),
            "max_retries": 0,
            "timeout": self.settings.timeout_s,
            "http_client": http_client,
        }
        if self.settings.api_version is not None:
            return openai.AsyncAzureOpenAI(
                azure_endpoint=self.settings.address(), api_version=self.settings.api_version, **common
            )
        return openai.AsyncOpenAI(base_url=self.settings.address(), **common)

    @property
    def api(self) -> Any:
        """An `openai` client, for the calls that are no chat (files and batches)."""
        return self._pools[0]

    async def __aenter__(self) -> ChatClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for pool in self._pools:
            await pool.close()

    def body(self, request: ChatRequest) -> dict[str, Any]:
        """The JSON body of a request, as the endpoint wants it. Reads and encodes pictures.

        Raises:
            DataError: a picture that cannot be used.
        """
        parameters = dict(request.parameters)
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [message.body() for message in request.messages],
        }
        output_tokens = parameters.pop("max_output_tokens", None)
        if output_tokens is not None:
            body[self._token_parameter] = output_tokens
        seed = parameters.pop("seed", None)
        if seed is not None:
            body["seed"] = seed + request.sample
        body.update(parameters.pop("extra_body", None) or {})
        body.update(parameters)
        if request.schema is not None and self._structured == "json_schema":
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "reply", "strict": True, "schema": request.schema},
            }
        elif request.schema is not None and self._structured == "json_object":
            body["response_format"] = {"type": "json_object"}
        if self.settings.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body

    async def ask(self, request: ChatRequest) -> Answer:
        """Send a request once. Every fault of the endpoint or the way to it is an answer, not an exception.

        Raises:
            DataError: a picture of the request that cannot be used; nothing was sent.
        """
        form = self._structured, self._token_parameter
        if request.num_images():
            body = await asyncio.to_thread(self.body, request)
        else:
            body = self.body(request)
        pool = self._pools[self._next_pool]
        self._next_pool = (self._next_pool + 1) % len(self._pools)
        begin = time.perf_counter()
        try:
            text = await asyncio.wait_for(
                pool.post("/chat/completions", cast_to=str, body=body), timeout=self.settings.timeout_s
            )
        except asyncio.CancelledError:
            raise
        except Exception as error:
            fault = classify_exception(error)
            if fault.status in ("schema_unsupported", "parameter_unsupported"):
                fault = self._step_down(fault, form)
            message = self.scrub(fault.message)
            answer = Answer(fault.status, message=message, fault=fault)
        else:
            answer = self.read_reply(text, demands_json="response_format" in body)
        return replace(answer, latency_s=time.perf_counter() - begin)

    def read_reply(self, text: str, *, demands_json: bool) -> Answer:
        """Read the body of a successful HTTP answer, whole or as a stream of events."""
        try:
            content = _join_events(text) if self.settings.stream and _is_stream(text) else json.loads(text)
        except ValueError as error:
            message = self.scrub(f"{error}: {text[:200]!r}")
            return Answer("malformed", message=message, fault=Fault("malformed", message, 200))
        return self.read_completion(content, demands_json=demands_json)

    def read_completion(self, content: Any, *, demands_json: bool) -> Answer:
        """The class of a parsed completion object."""
        usage = _usage(content)
        choices = content.get("choices") if isinstance(content, dict) else None
        error = content.get("error") if isinstance(content, dict) else None
        if error and not choices:
            return self._error_in_reply(error)
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(choice, dict) or not isinstance(message, dict):
            shown = self.scrub(f"no message in the reply: {json.dumps(content)[:200]}")
            return Answer("malformed", message=shown, usage=usage, fault=Fault("malformed", shown, 200))
        finish = choice.get("finish_reason")
        text = message.get("content")
        if isinstance(text, list):  # some endpoints give parts here as well
            text = "".join(str(part.get("text") or "") for part in text if isinstance(part, dict))
        text = self.scrub(text) if isinstance(text, str) else None
        status, why = _status_of_reply(text, message.get("refusal"), finish, demands_json)
        if status == "refused" and not (text or "").strip() and message.get("refusal"):
            text = self.scrub(str(message["refusal"]))
        return Answer(
            status,
            text=text,
            message=why,
            usage=usage,
            finish=str(finish) if finish is not None else None,
            model=str(content["model"]) if content.get("model") else None,
            reply_id=str(content["id"]) if content.get("id") else None,
        )

    def scrub(self, text: str) -> str:
        """A text without our key, without what looks like one, and without half characters, which no file can hold."""
        if _HALF_CHARACTER.search(text):
            # Halves that a stream had torn apart find each other again; lonely ones become a question mark.
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        key = self._key.get_secret_value()
        if len(key) >= 6 and key in text:
            text = text.replace(key, "***")
        return KEY_LIKE.sub("***", text) if ("-" in text or "earer" in text) else text

    def _error_in_reply(self, error: Any) -> Answer:
        """Some routers answer 200 with an error inside."""
        details = error if isinstance(error, dict) else {"message": str(error)}
        code = str(details.get("code") or details.get("type") or "")
        http = int(code) if code.isdigit() and 400 <= int(code) < 600 else 502
        fault = classify_status(http, code, self.scrub(str(details.get("message") or details)))
        return Answer(fault.status, message=fault.message, fault=fault)

    def _step_down(self, fault: Fault, form: tuple[str, str]) -> Fault:
        """Ask in a simpler form from now on, where there is one; other calls that fail in the old form just repeat."""
        structured, parameter = form
        if fault.status == "schema_unsupported":
            if self.settings.structured != "auto" or structured == "text":
                return Fault("bad_request", fault.message, fault.http)
            if structured == self._structured:
                self._structured = _STEPS_DOWN[structured]
        else:
            other = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}[parameter]
            if self.settings.token_parameter != "auto":
                return Fault("bad_request", fault.message, fault.http)
            self._token_parameter = other
        return fault

    async def _see_headers(self, response: Any) -> None:
        if self._on_headers is not None:
            self._on_headers({name.lower(): value for name, value in response.headers.items()})


def _http_options(openai: Any, settings: ChatSettings) -> dict[str, Any]:
    """Limits of a pool and the TLS context, which all pools share, since reading the certificates takes its time."""
    # Whichever HTTP library this version of openai stands on.
    library = importlib.import_module(type(openai.DEFAULT_CONNECTION_LIMITS).__module__.partition(".")[0])
    return {
        "limits": library.Limits(
            max_connections=settings.max_in_flight, max_keepalive_connections=_CONNECTIONS_PER_POOL
        ),
        "verify": library.create_ssl_context(),
    }


def _status_of_reply(text: str | None, refusal: Any, finish: Any, demands_json: bool) -> tuple[str, str]:
    if refusal or finish == "content_filter":
        return "refused", "the model refused" if refusal else "the endpoint's filter stopped the reply"
    if finish == "length":
        return "cut", "the reply reached the output limit (max_output_tokens)"
    if text is None or not text.strip():
        return "empty", "the reply holds no text"
    if demands_json and find_json(text) is None:
        return "bad_json", "JSON was demanded, and the reply holds none that can be read"
    return "ok", ""


def _usage(content: Any) -> Usage | None:
    usage = content.get("usage") if isinstance(content, dict) else None
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    numbers = [usage.get("prompt_tokens"), usage.get("completion_tokens"), cached or 0]
    counts = [number for number in numbers if isinstance(number, int) and number >= 0]
    return Usage(*counts) if len(counts) == len(numbers) else None


def _is_stream(text: str) -> bool:
    return text.lstrip("\ufeff\r\n ").startswith(("data:", ":", "event:", "id:"))


def _join_events(text: str) -> dict[str, Any]:
    """The completion object that a stream of chunks adds up to.

    Raises:
        ValueError: the stream broke off, or holds something else than chunks.
    """
    whole: dict[str, Any] = {}
    content: list[str] = []
    refusal: list[str] = []
    finish = None
    ended = False
    for line in _LINE_END.split(text):
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            ended = True
            break
        chunk = json.loads(data)
        if not isinstance(chunk, dict):
            raise ValueError("a chunk of the stream is no object")
        if chunk.get("error"):
            return {"error": chunk["error"]}
        for name in ("id", "model", "usage"):
            whole[name] = chunk.get(name) or whole.get(name)
        for choice in chunk.get("choices") or []:
            delta = choice.get("delta") or {}
            content.append(delta.get("content") or "")
            refusal.append(delta.get("refusal") or "")
            finish = choice.get("finish_reason") or finish
    if finish is None and not ended:
        raise ValueError("the stream broke off")
    message = {"role": "assistant", "content": "".join(content), "refusal": "".join(refusal) or None}
    return {**whole, "choices": [{"index": 0, "message": message, "finish_reason": finish}]}
