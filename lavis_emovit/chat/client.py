"""One call to an OpenAI-compatible endpoint, and its outcome."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import takewhile
from typing import Any

from lavis_emovit.chat.decisions import decision_body, read_decision
from lavis_emovit.chat.faults import Answer, classify_error, classify_exception
from lavis_emovit.chat.json_text import json_values
from lavis_emovit.chat.prices import Usage
from lavis_emovit.chat.request import ChatRequest
from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.outside import scrub, without_thoughts

_LIBRARY_LOGGERS = ("openai", "httpx", "httpx2", "httpcore", "httpcore2")
_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")
# Only these end a line of a stream; str.splitlines would also cut within texts.
_LINE_END = re.compile(r"\r\n|\n|\r")
# Types of the parts of a reply that are the reply; others are reasoning or pictures.
_TEXT_PARTS = ("text", "output_text")
# A body without end must not fill the memory. The files are those of batches.
_MAX_REPLY_BYTES, _MAX_FILE_BYTES = 1 << 26, 1 << 30
_MAX_TOKENS = 10**9  # no reply has more, so a higher count is an error of the endpoint
_FALLBACKS = {"json_schema": "json_object", "json_object": "text"}
_OTHER_PARAMETER = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}

OnHeaders = Callable[[Mapping[str, str]], Awaitable[None]]


class ChatClient:
    """Calls to one endpoint; `api` is its `openai` client. `on_headers` receives the headers of every HTTP answer."""

    def __init__(self, settings: ChatSettings, on_headers: OnHeaders | None = None):
        import openai

        # At debug level, these log whole requests with images and headers.
        for name in _LIBRARY_LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
        self.settings = settings
        self._key = settings.api_key()
        self._structured: str = "json_schema" if settings.structured == "auto" else settings.structured
        self._token_parameter: str = settings.token_parameter
        if self._token_parameter == "auto":
            self._token_parameter = "max_completion_tokens" if settings.is_official() else "max_tokens"

        async def on_response(response: Any) -> None:
            is_file = "/files/" in response.request.url.path
            response.stream = _limited(response.stream, _MAX_FILE_BYTES if is_file else _MAX_REPLY_BYTES)
            if on_headers is not None:
                await on_headers(response.headers)

        limits = type(openai.DEFAULT_CONNECTION_LIMITS)(max_connections=settings.max_in_flight)
        common: dict[str, Any] = {
            "api_key": self._key.get_secret_value(),
            # Every attempt gets its row in the ledger, so the client must not repeat calls by itself.
            "max_retries": 0,
            "timeout": settings.timeout_s,
            # On aiohttp, a call takes 40 % less processor time than on the default transport.
            "http_client": openai.DefaultAioHttpClient(limits=limits, event_hooks={"response": [on_response]}),
        }
        if settings.api_version is not None:
            self.api: Any = openai.AsyncAzureOpenAI(
                azure_endpoint=settings.address(), api_version=settings.api_version, **common
            )
        else:
            self.api = openai.AsyncOpenAI(base_url=settings.address(), **common)

    async def __aenter__(self) -> ChatClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.api.close()

    def body(self, request: ChatRequest) -> dict[str, Any]:
        """The JSON body of a request in the form that the endpoint accepts. Reads and encodes images."""
        parameters = dict(request.parameters)
        body: dict[str, Any] = {"model": request.model, "messages": [message.body() for message in request.messages]}
        if "max_output_tokens" in parameters:
            body[self._token_parameter] = parameters.pop("max_output_tokens")
        if "seed" in parameters:
            body["seed"] = parameters.pop("seed") + request.sample
        body |= {**parameters.pop("extra_body", {}), **parameters}
        form = self._structured if request.schema is not None else "text"
        if form == "json_schema":
            schema = {"name": "reply", "strict": True, "schema": request.schema}
            body["response_format"] = {"type": form, "json_schema": schema}
        elif form == "json_object":
            body["response_format"] = {"type": form}
        if self.settings.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body

    async def send(self, request: ChatRequest) -> Answer:
        """Send a request once. Only an image that cannot be used raises (DataError); other faults are answers."""
        form = self._structured, self._token_parameter
        make_body = partial(decision_body if request.choices else self.body, request)
        body = await asyncio.to_thread(make_body) if request.num_images() else make_body()
        begin = time.perf_counter()
        try:
            call = self.api.post("/systemone" if request.choices else "/chat/completions", cast_to=str, body=body)
            text = await asyncio.wait_for(call, timeout=self.settings.timeout_s)
        except Exception as error:
            answer = self.scrubbed(self._fall_back(classify_exception(error), *form))
        else:
            if request.choices:
                answer = self.read(lambda: read_decision(json.loads(text), request), text)
            else:
                answer = self.read(lambda: self._read(text, demands_json="response_format" in body), text)
        return replace(answer, latency_s=time.perf_counter() - begin)

    def read(self, reader: Callable[[], Answer], source: str) -> Answer:
        """The outcome that a reader finds in an answer. Any failure of it is an outcome too, because it is paid."""
        try:
            return self.scrubbed(reader())
        except Exception as error:  # an endpoint can send anything
            reason = f"{type(error).__name__}: {str(error)[:200]}: {source[:200]!r}"
            return self.scrubbed(Answer("malformed", http=200, reason=reason))

    def read_completion(self, content: Any, *, demands_json: bool) -> Answer:
        """The outcome that a parsed completion object stands for."""
        fields = content if isinstance(content, dict) else {}
        usage, error = _usage(fields.get("usage")), fields.get("error")
        if error and not fields.get("choices"):
            # Some routers answer 200 with an error inside.
            code = str(error.get("code") or "") if isinstance(error, dict) else ""
            return classify_error(int(code) if re.fullmatch("[45][0-9]{2}", code) else 200, error)
        try:
            choice = fields["choices"][0]
            finish, message = choice.get("finish_reason"), dict(choice["message"])
        except (LookupError, TypeError, ValueError, AttributeError):
            shown = f"no message in the reply: {json.dumps(content)[:200]}"
            return Answer("malformed", http=200, reason=shown, usage=usage)
        refusal, text = message.get("refusal"), _text_of(message.get("content"))
        status, reason = _status_of_reply(text, refusal, finish, demands_json)
        if refusal and not (text or "").strip():
            text = str(refusal)
        return Answer(
            status,
            served_by=str(fields["model"]) if fields.get("model") else None,
            reply_id=str(fields["id"]) if fields.get("id") else None,
            finish=str(finish) if finish is not None else None,
            reason=reason,
            reply=text,
            logprobs=_first_logprobs(choice.get("logprobs")),
            usage=usage,
        )

    def scrubbed(self, answer: Answer) -> Answer:
        """The answer with every text scrubbed."""
        texts: dict[str, Any] = {
            name: self.scrub(value) for name, value in vars(answer).items() if isinstance(value, str)
        }
        return replace(answer, **texts)

    def scrub(self, text: str) -> str:
        """A text without secrets, our key among them, and without lone surrogates, which UTF-8 cannot encode."""
        if _LONE_SURROGATE.search(text):
            # Joins pairs that a stream split; lone ones become a replacement character.
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return scrub(text, self._key.get_secret_value())

    def _read(self, text: str, *, demands_json: bool) -> Answer:
        """The outcome of a successful HTTP answer, whole or as a stream of events."""
        # Some endpoints ignore the request for a stream.
        is_stream = self.settings.stream and text.lstrip("\ufeff\r\n ").startswith(("data:", ":", "event:", "id:"))
        content = _join_events(text) if is_stream else json.loads(text)
        return self.read_completion(content, demands_json=demands_json)

    def _fall_back(self, answer: Answer, structured: str, parameter: str) -> Answer:
        """Use a simpler form from now on if the endpoint does not support that of a call and there is a simpler one.

        Other calls of the old form that fail are just repeated.
        """
        if answer.status == "schema_unsupported":
            if self.settings.structured != "auto" or structured == "text":
                return replace(answer, status="bad_request")
            if structured == self._structured:
                self._structured = _FALLBACKS[structured]
        elif answer.status == "parameter_unsupported":
            if self.settings.token_parameter != "auto":
                return replace(answer, status="bad_request")
            self._token_parameter = _OTHER_PARAMETER[parameter]
        return answer


def _limited(stream: Any, most_bytes: int) -> Any:
    """The stream of a response, which fails after that many bytes."""
    # The base class belongs to the HTTP library that openai uses, which its versions choose.
    base = next(cls for cls in type(stream).__mro__ if cls.__name__ == "AsyncByteStream")

    class Limited(base):  # type: ignore[misc, valid-type]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            left = most_bytes
            async for piece in stream:
                left -= len(piece)
                if left < 0:
                    raise ValueError(f"the answer has more than {most_bytes} bytes")
                yield piece

        async def aclose(self) -> None:
            await stream.aclose()

    return Limited()


def _status_of_reply(text: str | None, refusal: Any, finish: Any, demands_json: bool) -> tuple[str, str | None]:
    """Status and reason. The reasons are written into ledgers, and evaluations read them as answers."""
    if refusal or finish == "content_filter":
        return "refused", "the model refused" if refusal else "the endpoint's filter stopped the reply"
    if finish == "length":
        return "cut", "the reply reached the output limit (max_output_tokens)"
    if text is None or not without_thoughts(text).strip():
        return "empty", "the reply holds no text"
    if demands_json and not json_values(text):
        return "bad_json", "JSON was demanded, and the reply holds none that can be read"
    return "ok", None


def _text_of(content: Any) -> str | None:
    """The text of a message or of a piece of it; some endpoints send parts, as in requests."""
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict) and part.get("type", "text") in _TEXT_PARTS]
        return "".join(str(part.get("text") or "") for part in parts)
    return content if isinstance(content, str) else None


def _first_logprobs(found: Any) -> list[list[str | float]] | None:
    """The likeliest tokens in place of the first token that is not blank, with their log-probabilities."""
    tokens = found.get("content") if isinstance(found, dict) else None
    for token in tokens or []:
        if str(token["token"]).strip():
            pairs = ((str(one["token"]), float(one["logprob"])) for one in token.get("top_logprobs") or [])
            # JSON has no infinity, which some endpoints send for what cannot come.
            return [[name, value] for name, value in pairs if math.isfinite(value)] or None
    return None


def _usage(usage: Any) -> Usage | None:
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    counts: list[Any] = [usage.get("prompt_tokens"), usage.get("completion_tokens"), cached or 0]
    return Usage(*counts) if all(type(count) is int and 0 <= count <= _MAX_TOKENS for count in counts) else None


def _join_events(text: str) -> dict[str, Any]:
    """The completion object of a stream. ValueError, TypeError or AttributeError if it is broken."""
    whole: dict[str, Any] = {}
    content = refusal = ""
    finish = None
    logprobs: list[Any] = []
    events = [line[5:].strip() for line in _LINE_END.split(text) if line.startswith("data:")]
    for event in takewhile("[DONE]".__ne__, events):
        chunk = json.loads(event)
        if chunk.get("error"):
            return {"error": chunk["error"]}
        for name in ("id", "model", "usage"):
            whole[name] = chunk.get(name) or whole.get(name)
        # Some endpoints stream several choices, interleaved.
        for choice in chunk.get("choices") or []:
            if choice.get("index"):
                continue
            delta = choice.get("delta") or {}
            content += _text_of(delta.get("content")) or ""
            refusal += delta.get("refusal") or ""
            logprobs += (choice.get("logprobs") or {}).get("content") or []
            finish = choice.get("finish_reason") or finish
    if finish is None and "[DONE]" not in events:
        raise ValueError("the stream broke off")
    message = {"role": "assistant", "content": content, "refusal": refusal or None}
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": {"content": logprobs}}
    return {**whole, "choices": [choice]}
