"""What is asked of which endpoint, how fast, and for how much money at most."""

from __future__ import annotations

import json
import os
import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator

from lavis_emovit.errors import UserError
from lavis_emovit.settings import Settings

Structured = Literal["auto", "json_schema", "json_object", "text"]
# What looks like a key in a text that is not ours.
KEY_LIKE = re.compile(r"\b(?:sk|key|token)-[\w-]{12,}|\bBearer\s+[\w.~+/-]{8,}=*", re.IGNORECASE)
_KEY_NAME = re.compile(r"api[-_ ]?key|authorization|password|secret|access[-_ ]?token", re.IGNORECASE)
_NO_KEY_IN_ADDRESS = "must hold neither a password nor a query; keys come from the environment (api_key_env)"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BODY_KEYS_OF_OURS = ("model", "messages", "stream", "stream_options", "response_format", "n", "seed", "temperature")


class ChatSettings(Settings):
    """An OpenAI-compatible chat endpoint and the limits of its use.

    Attributes:
        model: the endpoint's name of the model.
        base_url: address up to and with `/v1`; None is OpenAI's own, or `OPENAI_BASE_URL`.
        api_key_env: environment variable that holds the key. There is no other way to give one.
        api_version: set for Azure's older addresses (`base_url` is then the resource's address).
        temperature, top_p: sampling; None leaves the endpoint's own.
        max_output_tokens: the longest reply, in tokens; longer ones come back cut.
        seed: passed on, plus the sample's number, so that samples of one request differ.
        extra_body: further keys of the request body, for example `{"reasoning_effort": "low"}`.
        structured: how JSON is demanded: by schema, as any object, or in words only. `auto` begins with the schema and
            steps down where the endpoint says that it cannot.
        token_parameter: name of the output limit; `auto` takes the endpoint's.
        stream: receive replies piece by piece (the timeout then guards the pauses as well).
        timeout_s: the longest that one call may take, in seconds.
        max_attempts: how often a request is sent when faults that pass come back; five times as often where the
            endpoint only says that it is busy.
        max_in_flight: calls at the same time.
        rpm, tpm: requests and tokens per minute; the endpoint's headers lower them further.
        max_wait_s: an endpoint that asks for a longer pause ends the run.
        max_failures: requests that fail in a row, without a success between, before the run ends.
        max_usd: hard limit on the cost of everything in the ledger, in US dollars.
        prices: file with prices that replace or extend the built-in table.
        image_max_side_px, image_quality, image_detail: bounds of pictures that are sent (JPEG).
    """

    model_config = ConfigDict(allow_inf_nan=False)

    model: str = Field(min_length=1)
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    api_version: str | None = None
    temperature: float | None = Field(default=1.0, ge=0.0, le=2.0)
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    max_output_tokens: int = Field(default=1024, ge=1)
    seed: int | None = None
    extra_body: dict[str, Any] = Field(default_factory=dict)
    structured: Structured = "auto"
    token_parameter: Literal["auto", "max_tokens", "max_completion_tokens"] = "auto"
    stream: bool = False
    timeout_s: float = Field(default=120.0, gt=0.0)
    max_attempts: int = Field(default=6, ge=1, le=100)
    max_in_flight: int = Field(default=64, ge=1, le=1000)
    rpm: float | None = Field(default=None, gt=0.0)
    tpm: float | None = Field(default=None, gt=0.0)
    max_wait_s: float = Field(default=600.0, gt=0.0)
    max_failures: int = Field(default=20, ge=1)
    max_usd: float | None = Field(default=None, ge=0.0)
    prices: str | None = None
    image_max_side_px: int = Field(default=768, ge=32, le=2048)
    image_quality: int = Field(default=85, ge=30, le=95)
    image_detail: Literal["auto", "low", "high"] = "auto"

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is None:
            return value
        parts = urlsplit(value)
        if not _may_hide_a_key(value) and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError("must be an address such as http://localhost:8000/v1")
        return value.rstrip("/")

    @field_validator("extra_body")
    @classmethod
    def _body_leaves_ours_alone(cls, value: dict[str, Any]) -> dict[str, Any]:
        ours = sorted(set(value) & set(_BODY_KEYS_OF_OURS))
        if ours:
            raise ValueError(f"must not set {', '.join(ours)}; there are settings for that")
        return value

    @model_validator(mode="after")
    def _holds_no_key(self) -> ChatSettings:
        """Settings go into manifests. A rule of the whole, for messages about a single key repeat its value."""
        if self.base_url is not None and _may_hide_a_key(self.base_url):
            raise ValueError(f"base_url {_NO_KEY_IN_ADDRESS}")
        if not _VARIABLE.fullmatch(self.api_key_env):
            raise ValueError("api_key_env must be the name of an environment variable, not the key itself")
        if KEY_LIKE.search(self.model):
            raise ValueError("model must be a name, and this looks like a key; keys come from the environment")
        body = json.dumps(self.extra_body, default=str)
        if KEY_LIKE.search(body) or _KEY_NAME.search(body):
            raise ValueError("extra_body must hold no key or password; keys come from the environment (api_key_env)")
        return self

    def parameters(self) -> dict[str, Any]:
        """The parameters that shape a reply, and so belong to a request's fingerprint."""
        values = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_output_tokens": self.max_output_tokens,
            "seed": self.seed,
            "extra_body": self.extra_body or None,
        }
        return {name: value for name, value in values.items() if value is not None}

    def address(self) -> str:
        """The address that calls go to."""
        return (self.base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1").rstrip("/")

    def is_official(self) -> bool:
        """Whether the address is OpenAI's or Azure's, where a key is a must."""
        host = urlsplit(self.address()).hostname or ""
        return host.endswith((".openai.com", ".azure.com"))

    def api_key(self) -> SecretStr:
        """The key, from the environment.

        Raises:
            UserError: the endpoint needs one and the variable is not set, it holds what no key can be, or
                `OPENAI_BASE_URL` holds a password.
        """
        if self.base_url is None and _may_hide_a_key(self.address()):
            raise UserError(f"the environment variable OPENAI_BASE_URL {_NO_KEY_IN_ADDRESS}")
        key = os.environ.get(self.api_key_env, "").strip()
        if not all("!" <= character <= "~" for character in key):
            raise UserError(
                f"the environment variable {self.api_key_env} holds blanks, line ends or characters that no key has; "
                "set it again"
            )
        if not key and self.is_official():
            raise UserError(
                f"the environment variable {self.api_key_env} holds no key for {self.address()}. Set it (`export "
                f"{self.api_key_env}=...`), or name another variable with `api_key_env`."
            )
        return SecretStr(key or "none")


def _may_hide_a_key(address: str) -> bool:
    return any(character in address for character in "@?#")
