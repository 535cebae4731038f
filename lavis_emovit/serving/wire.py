"""Requests and replies in the form of OpenAI's chat completions, and its errors.

The fields are those of `openai.types.chat.completion_create_params`. A field that would change the answer in a way that
the model cannot is refused by name, unless its value asks for nothing.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from lavis_emovit.models.writing import Token
from lavis_emovit.settings import Settings, nearest_name, parse_settings

# Field that models here cannot follow -> values of it that ask for nothing; null does so everywhere.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "metadata": ({},),
    "modalities": (["text"],),
    "moderation": (),
    "n": (1,),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "presence_penalty": (0,),
    "prompt_cache_key": (),
    "prompt_cache_options": (),
    "prompt_cache_retention": (),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "verbosity": (),
    "web_search_options": (),
}
MAX_STOPS = 4
_LONGEST_MESSAGE = 600  # characters of an error, which may quote the request
_DATA_URL = "data:"


class ApiError(Exception):
    """An error that the client gets in OpenAI's form.

    Attributes:
        status: of HTTP.
        param: the field at fault.
        code: of the kind of error, for programs.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        if len(message) > _LONGEST_MESSAGE:
            message = f"{message[:_LONGEST_MESSAGE]} ..."
        # A text of JSON may have half of a character, which no answer can contain.
        super().__init__(message.encode(errors="replace").decode())
        self.status, self.param, self.code, self.headers = status, param, code, headers

    def body(self) -> dict[str, Any]:
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


class ImageUrl(Settings):
    """`detail` has no effect: a model reads all images at its own size."""

    url: str
    detail: Literal["auto", "low", "high"] = "auto"


class Part(Settings):
    """A text or an image."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: ImageUrl | None = None

    @model_validator(mode="after")
    def _has_what_its_type_says(self) -> Part:
        given = [name for name in ("text", "image_url") if getattr(self, name) is not None]
        if given != [self.type]:
            raise ValueError(f"a part of type '{self.type}' needs '{self.type}' alone")
        return self


class Message(Settings):
    role: Literal["system", "developer", "user"]
    content: tuple[Part, ...] = Field(min_length=1)

    @field_validator("role", mode="before")
    @classmethod
    def _has_no_answers(cls, value: Any) -> Any:
        if value in ("assistant", "tool", "function"):
            raise ValueError("a model here answers one question and reads no earlier answers; send the question alone")
        return value

    @field_validator("content", mode="before")
    @classmethod
    def _text_is_a_part(cls, value: Any) -> Any:
        return [{"type": "text", "text": value}] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _images_are_from_the_user(self) -> Message:
        if self.role != "user" and any(part.image_url is not None for part in self.content):
            raise ValueError(f"a message of the role '{self.role}' has text only")
        return self


class StreamOptions(Settings):
    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class CompletionRequest(Settings):
    """What a client asks for, see `read_request`.

    Attributes:
        temperature: 0 by default, as the model was evaluated; OpenAI's default is 1.
        user, safety_identifier: accepted, and neither used nor kept.
    """

    model: str
    messages: tuple[Message, ...] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    seed: int | None = None
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = Field(default=(), max_length=MAX_STOPS)
    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=20)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    user: str | None = None
    safety_identifier: str | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_together(self) -> CompletionRequest:
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens are two names of one limit; send one of them")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if "stream_options" in self.model_fields_set and not self.stream:
            raise ValueError("stream_options needs stream: true")
        return self

    @property
    def longest(self) -> int | None:
        """The most tokens that the answer may have, if the client says so."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def question(self) -> str:
        """All texts, each in a paragraph of its own: system messages first, as a model here has one text to read."""
        system = [text for message in self.messages if message.role != "user" for text in _texts(message)]
        user = [text for message in self.messages if message.role == "user" for text in _texts(message)]
        return "\n\n".join([*system, *user])

    def image_url(self) -> tuple[str, str]:
        """The field and the address of the image. ApiError unless there is exactly one."""
        found = [
            (f"messages.{number}.content.{place}.image_url.url", part.image_url.url)
            for number, message in enumerate(self.messages)
            for place, part in enumerate(message.content)
            if part.image_url is not None
        ]
        if len(found) != 1:
            text = f"a question here is about one image, but the messages have {len(found)}"
            raise ApiError(400, f"{text}; send one part of type image_url", param="messages", code="one_image")
        return found[0]


def _texts(message: Message) -> list[str]:
    return [part.text for part in message.content if part.text is not None]


def read_request(content: Any) -> CompletionRequest:
    """A request from JSON. ApiError names all fields that are unknown, wrong or cannot be followed."""
    if not isinstance(content, dict):
        raise ApiError(400, f"the body should be a JSON object, not {type(content).__name__}", code="invalid_body")
    given = {name: value for name, value in content.items() if value is not None}
    for name, neutral in NEUTRAL.items():
        if name in given and given.pop(name) not in neutral:
            text = f"{name}: this model cannot follow it; remove it"
            raise ApiError(400, text, param=name, code="unsupported_parameter")
    known = CompletionRequest.model_fields
    for name in given:
        if name not in known:
            text = f"{name}: unknown field{nearest_name(name, [*known, *NEUTRAL])}"
            raise ApiError(400, text, param=name, code="unknown_parameter")
    request, problems = parse_settings(CompletionRequest, given, "")
    if request is None:
        lines = [problem.removeprefix(".").removeprefix(": ") for problem in problems]
        param = lines[0].partition(":")[0] if problems[0].startswith(".") and problems[0][1] != ":" else None
        raise ApiError(400, "; ".join(lines), param=param, code="invalid_value")
    try:
        request.question.encode()
    except UnicodeEncodeError:
        raise ApiError(400, "the messages have half of a surrogate pair, which is no text", param="messages") from None
    if not request.question.strip():
        raise ApiError(400, "the messages have no text; ask a question about the image", param="messages")
    return request


def image_bytes(url: str, param: str, most_bytes: int) -> bytes:
    """The bytes of an image in a `data:` URL. ApiError for any other address, as this server fetches nothing."""

    def refuse(reason: str, code: str = "invalid_image") -> ApiError:
        return ApiError(400, f"{param}: {reason}", param=param, code=code)

    head, found, encoded = url.partition(",")
    if not head.startswith(_DATA_URL):
        reason = "only images inside the request are read; send 'data:image/jpeg;base64,...'"
        raise refuse(f"{reason}, not '{url[:40]}'", "image_url_not_allowed")
    if not found or not head.endswith(";base64"):
        raise refuse("expected 'data:image/jpeg;base64,' and the encoded image")
    if len(encoded) > -(-most_bytes // 3) * 4:
        raise refuse(f"the image has more than {most_bytes:,} bytes", "image_too_large")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise refuse(f"not base64 ({error})") from None


@dataclass(frozen=True)
class ReplyHead:
    """What all parts of a reply have in common."""

    identifier: str
    model: str
    fingerprint: str
    created: int

    @classmethod
    def new(cls, identifier: str, model: str, fingerprint: str) -> ReplyHead:
        return cls(f"chatcmpl-{identifier}", model, fingerprint, int(time.time()))

    def _fields(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.identifier,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }

    def completion(
        self, text: str, finish: str, tokens: Sequence[Token] | None, usage: dict[str, int]
    ) -> dict[str, Any]:
        """The whole reply."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": _log_probabilities(tokens),
            "finish_reason": finish,
        }
        return {**self._fields("chat.completion"), "choices": [choice], "usage": usage}

    def chunk(
        self, delta: Mapping[str, Any], finish: str | None = None, tokens: Sequence[Token] | None = None
    ) -> dict[str, Any]:
        """A part of a stream."""
        choice = {"index": 0, "delta": delta, "logprobs": _log_probabilities(tokens), "finish_reason": finish}
        return {**self._fields("chat.completion.chunk"), "choices": [choice]}

    def usage_chunk(self, usage: dict[str, int]) -> dict[str, Any]:
        """The last part of a stream, if the client asked for it."""
        return {**self._fields("chat.completion.chunk"), "choices": [], "usage": usage}


def usage(num_prompt: int, num_completion: int) -> dict[str, int]:
    """Numbers of tokens, those of the image among the prompt's."""
    total = num_prompt + num_completion
    return {"prompt_tokens": num_prompt, "completion_tokens": num_completion, "total_tokens": total}


def _log_probabilities(tokens: Sequence[Token] | None) -> dict[str, Any] | None:
    if tokens is None:
        return None

    def entry(text: str, value: float) -> dict[str, Any]:
        # A token may be a part of a character, whose bytes the tokenizer does not tell.
        whole = "\N{REPLACEMENT CHARACTER}" not in text
        return {"token": text, "logprob": value, "bytes": list(text.encode()) if whole else None}

    content = [
        {**entry(token.text, token.log_probability), "top_logprobs": [entry(*one) for one in token.likeliest]}
        for token in tokens
    ]
    return {"content": content, "refusal": None}
