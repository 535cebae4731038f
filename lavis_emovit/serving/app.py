"""The HTTP side: routes, keys, limits, one line in the log for each request, and counts.

POST /v1/chat/completions   GET /v1/models   GET /health (alive)   GET /ready (503 while stopping or full)
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import SecretStr
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lavis_emovit.distributed.cores import usable_cpus
from lavis_emovit.errors import DataError
from lavis_emovit.files import load_json
from lavis_emovit.models.row_writing import RowSettings
from lavis_emovit.models.writing import Piece
from lavis_emovit.serving.batching import Batching, Job, Place, cannot_be_answered
from lavis_emovit.serving.server import is_local
from lavis_emovit.serving.wire import ApiError, CompletionRequest, ReplyHead, image_bytes, read_request, usage

logger = logging.getLogger(__name__)

_TEXT_BYTES = 1 << 20  # of a request, besides its image
_READING_S = 30.0  # a client that sends slower loses its place in the queue


@dataclass(frozen=True)
class Limits:
    """What a request may ask for.

    Attributes:
        max_tokens: of an answer.
        default_tokens: of an answer, if the request has no limit.
        image_bytes: of the file.
        image_pixels: of the image, see `decode_image`.
    """

    max_tokens: int = 512
    default_tokens: int = 64
    image_bytes: int = 20 << 20
    image_pixels: int = 50_000_000


@dataclass(frozen=True)
class Served:
    """What is served, and to whom.

    Attributes:
        name: of the model for clients.
        fingerprint: identifies its weights.
        key: that requests must have; None: anybody who reaches the port is served.
        local_only: refuse requests for another host than this machine, which a web page in a browser could send.
        counts: outcomes -> numbers of requests to `/v1`.
    """

    name: str
    fingerprint: str
    batching: Batching
    limits: Limits = Limits()
    key: SecretStr | None = None
    local_only: bool = True
    counts: Counter[str] = field(default_factory=Counter)


def make_app(served: Served) -> FastAPI:
    """The application; it starts the model's thread, and waits for it at the end."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        served.batching.start()
        yield
        await asyncio.to_thread(served.batching.close)

    # No pages of documentation: they load scripts from elsewhere.
    app = FastAPI(lifespan=lifespan, openapi_url=None)
    app.add_middleware(_Accounting, served=served)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected_error)
    app.include_router(_routes(served))
    return app


def _routes(served: Served) -> APIRouter:
    async def check_caller(request: Request) -> None:
        _check_caller(served, request)

    health, v1 = APIRouter(), APIRouter(prefix="/v1", dependencies=[Depends(check_caller)])
    completions = Completions(served)
    created = int(time.time())
    model = {"id": served.name, "object": "model", "created": created, "owned_by": "emovit"}

    @health.get("/health")
    async def alive() -> dict[str, Any]:
        return {"status": "stopping" if served.batching.is_draining else "ok", **_state()}

    @health.get("/ready")
    async def ready() -> JSONResponse:
        return JSONResponse({"ready": served.batching.has_room, **_state()}, 200 if served.batching.has_room else 503)

    def _state() -> dict[str, Any]:
        return {"waiting": served.batching.num_waiting, "requests": dict(served.counts)}

    @v1.get("/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model]}

    @v1.get("/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        completions.check_model(name)
        return model

    v1.add_api_route("/chat/completions", completions.answer, methods=["POST"], response_model=None)
    health.include_router(v1)
    return health


def _check_caller(served: Served, request: Request) -> None:
    if served.local_only and not is_local(request.url.hostname or ""):
        text = f"this server answers requests for this machine only, not for '{request.url.hostname}'"
        raise ApiError(403, text, code="wrong_host")
    if served.key is None:
        return
    given = request.headers.get("authorization", "")
    wanted = f"Bearer {served.key.get_secret_value()}"
    if not hmac.compare_digest(given.encode(), wanted.encode()):
        text = "no API key, or a wrong one; send 'Authorization: Bearer ...'"
        raise ApiError(401, text, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


class Completions:
    """`POST /v1/chat/completions`."""

    def __init__(self, served: Served):
        self._served, self._limits = served, served.limits
        self._readers = ThreadPoolExecutor(usable_cpus(), thread_name_prefix="emovit-image")

    async def answer(self, request: Request) -> JSONResponse | StreamingResponse:
        """One answer, whole or as a stream of events."""
        pieces: asyncio.Queue[Piece | ApiError] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def send(piece: Piece | ApiError) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        batching = self._served.batching
        with batching.place() as place:
            # Nothing here keeps the body, so that only its prepared image waits for the model.
            job = await loop.run_in_executor(self._readers, self._job, await self._body(request, place), send)
            batching.put(job, place)
        head = ReplyHead.new(uuid.uuid4().hex, self._served.name, self._served.fingerprint)
        piece = await _while_connected(request, job, pieces.get())
        if isinstance(piece, ApiError):
            raise piece
        if job.is_stream:
            events = _events(request, head, job, piece, pieces)
            return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        _note(request, job, piece)
        tokens = piece.tokens if job.settings.num_likeliest is not None else None
        return JSONResponse(
            head.completion(piece.text, piece.finish or "stop", tokens, usage(job.num_prompt_tokens, piece.num_tokens))
        )

    def check_model(self, name: str) -> None:
        """ApiError unless it is the name of the model."""
        if name != self._served.name:
            text = f"the model '{name}' is not served here, but '{self._served.name}'"
            raise ApiError(404, text, param="model", code="model_not_found")

    def _row_settings(self, wanted: CompletionRequest) -> RowSettings:
        longest = wanted.longest or self._limits.default_tokens
        if longest > self._limits.max_tokens:
            param = "max_tokens" if wanted.max_tokens else "max_completion_tokens"
            text = f"{param}: {longest}, but an answer has at most {self._limits.max_tokens} tokens here"
            raise ApiError(400, text, param=param, code="invalid_value")
        num_likeliest = wanted.top_logprobs if wanted.logprobs else None
        return RowSettings(longest, wanted.temperature, wanted.top_p, wanted.seed, num_likeliest)

    async def _body(self, request: Request, place: Place) -> bytes:
        # A form of a web page elsewhere can send any other type without asking this server first.
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise ApiError(415, "the Content-Type should be application/json", code="invalid_body")
        most = -(-self._limits.image_bytes // 3) * 4 + _TEXT_BYTES
        try:
            return await asyncio.wait_for(self._received(request, most, place), _READING_S)
        except asyncio.TimeoutError:
            raise ApiError(408, f"the request was not complete after {_READING_S:.0f} s", code="timeout") from None

    async def _received(self, request: Request, most_bytes: int, place: Place) -> bytes:
        announced = request.headers.get("content-length", "")
        num_bytes = int(announced) if announced.isdecimal() else 0
        body = bytearray()
        if num_bytes <= most_bytes:
            self._served.batching.hold(place, num_bytes)
            async for part in request.stream():
                body += part
                num_bytes = max(num_bytes, len(body))
                if num_bytes > most_bytes:
                    break
                self._served.batching.hold(place, num_bytes)
        if num_bytes > most_bytes:
            raise ApiError(413, f"the request has more than {most_bytes:,} bytes", code="request_too_large")
        return bytes(body)

    def _job(self, body: bytes, send: Callable[[Piece | ApiError], None]) -> Job:
        """What a request asks the model for, in a thread: images are large, also as JSON."""
        wanted = read_request(_json(body))
        self.check_model(wanted.model)
        settings = self._row_settings(wanted)
        param, url = wanted.image_url()
        data = image_bytes(url, param, self._limits.image_bytes)
        try:
            image = self._served.batching.prepare(data, self._limits.image_pixels)
        except DataError as error:
            raise ApiError(400, f"{param}: {error}", param=param, code="invalid_image") from None
        num_prompt = self._num_prompt_tokens(image, wanted.question, settings.max_tokens)
        usage = wanted.stream_options.include_usage
        return Job(image, wanted.question, num_prompt, settings, wanted.stop, wanted.stream, usage, send)

    def _num_prompt_tokens(self, image: Any, question: str, longest: int) -> int:
        """ApiError for a question that, with the longest answer, exceeds the model's context."""
        batching = self._served.batching
        try:
            num_prompt = batching.num_prompt_tokens(image, question)
        except ValueError as error:
            raise cannot_be_answered(error) from None
        context = batching.context_tokens
        if context is not None and num_prompt + longest > context:
            text = (
                f"{num_prompt} tokens of the image and the question and up to {longest} of the answer are "
                f"{num_prompt + longest}, but the model's context is {context}; shorten the question, or send a lower "
                "max_tokens"
            )
            raise ApiError(400, text, param="messages", code="context_length_exceeded")
        return num_prompt


def _json(body: bytes) -> Any:
    try:
        return load_json(body, unique_keys=True)
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON ({error})", code="invalid_body") from None


async def _while_connected(request: Request, job: Job, waiting: Any) -> Any:
    """The result of `waiting`; if the client leaves, its job is dropped."""
    task = asyncio.ensure_future(waiting)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    except BaseException:
        job.is_wanted = False
        raise
    finally:
        task.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _events(
    request: Request, head: ReplyHead, job: Job, first: Piece, pieces: asyncio.Queue[Any]
) -> AsyncIterator[str]:
    """The events of a stream. An error in its middle is an event too, as the status is sent already."""
    piece: Piece | ApiError = first
    delta: dict[str, Any] = {"role": "assistant", "refusal": None}
    try:
        while isinstance(piece, Piece):
            if piece.text or piece.tokens or delta:
                tokens = piece.tokens if job.settings.num_likeliest is not None else None
                yield _event(head.chunk({**delta, "content": piece.text}, tokens=tokens))
            delta = {}
            if piece.finish is not None:
                _note(request, job, piece)
                yield _event(head.chunk({}, piece.finish))
                if job.include_usage:
                    yield _event(head.usage_chunk(usage(job.num_prompt_tokens, piece.num_tokens)))
                yield "data: [DONE]\n\n"
                return
            piece = await pieces.get()
        request.scope[_NOTE].outcome = "failed"
        yield _event(piece.body())
    finally:
        job.is_wanted = False


def _event(content: Any) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


# One line and one count for each request

_NOTE = "emovit_note"


@dataclass
class _RequestNote:
    """What is noted about a request while it is answered."""

    outcome: str | None = None
    detail: str = ""


def _note(request: Request, job: Job, last: Piece) -> None:
    note = request.scope[_NOTE]
    note.outcome = "answered"
    note.detail = f", {job.num_prompt_tokens} + {last.num_tokens} tokens, {last.finish}"


class _Accounting:
    """Counts requests to `/v1` by their outcome and logs a line about each, without texts and images."""

    def __init__(self, app: ASGIApp, served: Served):
        self._app, self._served = app, served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        note = scope[_NOTE] = _RequestNote()
        begin, status = time.monotonic(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with suppress(ClientDisconnect):
            try:
                await self._app(scope, receive, noting)
            except Exception as error:
                note.outcome = "dropped" if isinstance(error, ClientDisconnect) else "failed"
                raise
            finally:
                outcome = note.outcome or _outcome(scope, status)
                self._served.counts[outcome] += 1
                milliseconds = 1000 * (time.monotonic() - begin)
                line = (
                    f"{scope['method']} {scope['path']!r} {status or '-'} {outcome}, {milliseconds:.0f} ms{note.detail}"
                )
                logger.info("%s", line)


def _outcome(scope: Scope, status: int) -> str:
    if status >= 500 and status != 503:
        return "failed"
    if status >= 400:
        return "refused"
    # A list of models, or an answer that its client did not wait for.
    return "dropped" if scope["method"] == "POST" else "answered"


async def _api_error(request: Request, error: Any) -> JSONResponse:
    return JSONResponse(error.body(), error.status, headers=error.headers)


async def _http_error(request: Request, error: Any) -> JSONResponse:
    text = f"{request.method} {request.url.path}: {error.detail}"
    return await _api_error(request, ApiError(error.status_code, text, headers=error.headers))


async def _unexpected_error(request: Request, error: Exception) -> JSONResponse:
    # The server logs it with its traceback.
    return await _api_error(request, ApiError(500, f"an error of the server ({type(error).__name__})"))
