"""Settings of a chat endpoint: what to request, how fast, and for how much money at most."""

from __future__ import annotations

import json
import os
import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from lavis_emovit.errors import UserError
from lavis_emovit.outside import looks_like_key
from lavis_emovit.settings import Settings

_KEY_NAME = re.compile(r"api[-_ ]?key|authorization|password|secret|access[-_ ]?token", re.IGNORECASE)
_NO_KEY_IN_ADDRESS = "must hold neither a password nor a query; keys come from the environment (api_key_env)"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED_BODY_KEYS = set("model messages stream stream_options response_format n seed temperature".split())


class ChatSettings(Settings):
    """An OpenAI-compatible chat endpoint and the limits of its use."""

    model: str = Field(min_length=1)
    base_url: str | None = None  # address up to and including `/v1`. None: `OPENAI_BASE_URL`, else OpenAI's own.
    # Environment variable that holds the key. A key cannot be passed in any other way.
    api_key_env: str = "OPENAI_API_KEY"
    api_version: str | None = None  # for Azure's older addresses; `base_url` is then the address of the resource
    # temperature, top_p: sampling. None: the endpoint's default.
    temperature: float | None = Field(default=1.0, ge=0.0, le=2.0)
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    max_output_tokens: int = Field(default=1024, ge=1)  # longest reply; longer ones are cut
    seed: int | None = None  # sent with the number of the sample added, so that samples of one request differ
    # Further keys of the request body, for example `{"reasoning_effort": "low"}`.
    extra_body: dict[str, Any] = Field(default_factory=dict)
    # How JSON is requested: by schema, as any object, or only in the prompt. `auto` starts with the schema and falls
    # back if the endpoint does not support it.
    structured: Literal["auto", "json_schema", "json_object", "text"] = "auto"
    # Name of the output limit in the body; `auto` uses the one that the endpoint accepts.
    token_parameter: Literal["auto", "max_tokens", "max_completion_tokens"] = "auto"
    stream: bool = False  # receive replies in pieces
    timeout_s: float = Field(default=120.0, gt=0.0)
    # Number of calls for a request that fails with transient faults; five times as many where the endpoint only reports
    # that it is busy.
    max_attempts: int = Field(default=6, ge=1, le=100)
    max_in_flight: int = Field(default=64, ge=1, le=1000)
    # rpm, tpm: requests and tokens per minute; the endpoint's headers can lower them.
    rpm: float | None = Field(default=None, gt=0.0)
    tpm: float | None = Field(default=None, gt=0.0)
    max_wait_s: float = Field(default=600.0, gt=0.0)  # a run ends if the endpoint requests a longer pause
    max_failures: int = Field(default=20, ge=1)  # a run ends after that many failed requests in a row
    max_usd: float | None = Field(default=None, ge=0.0)  # hard limit on the cost of the whole ledger, in US dollars
    prices: str | None = None  # file with prices that replace or extend the built-in table
    # image_max_side_px, image_quality, image_detail: size and quality of images that are sent (JPEG).
    image_max_side_px: int = Field(default=768, ge=32, le=2048)
    image_quality: int = Field(default=85, ge=30, le=95)
    image_detail: Literal["auto", "low", "high"] = "auto"

    @field_validator("base_url")
    @classmethod
    def _check_address(cls, value: str | None) -> str | None:
        if value is None:
            return value
        parts = urlsplit(value)
        if not _may_contain_key(value) and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError("must be an address such as http://localhost:8000/v1")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _check_for_keys(self) -> ChatSettings:
        """Settings are written into manifests. Checked as a whole: messages about one field would repeat its value."""
        if self.base_url is not None and _may_contain_key(self.base_url):
            raise ValueError(f"base_url {_NO_KEY_IN_ADDRESS}")
        if not _VARIABLE.fullmatch(self.api_key_env):
            raise ValueError("api_key_env must be the name of an environment variable, not the key itself")
        if looks_like_key(self.model):
            raise ValueError("model must be a name, but looks like a key; keys come from the environment")
        reserved = sorted(self.extra_body.keys() & _RESERVED_BODY_KEYS)
        if reserved:
            raise ValueError(f"extra_body must not set {', '.join(reserved)}; use the settings for them")
        try:
            body = json.dumps(self.extra_body, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"extra_body must be plain JSON ({error})") from None
        if looks_like_key(body) or _KEY_NAME.search(body):
            raise ValueError("extra_body must hold no key or password; keys come from the environment (api_key_env)")
        return self

    def parameters(self) -> dict[str, Any]:
        """The parameters that shape a reply and therefore belong to the fingerprint of a request."""
        values = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_output_tokens": self.max_output_tokens,
            "seed": self.seed,
            "extra_body": self.extra_body or None,
        }
        return {name: value for name, value in values.items() if value is not None}

    def address(self) -> str:
        return (self.base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1").rstrip("/")

    def is_official(self) -> bool:
        """Whether the endpoint is OpenAI's or Azure's, which require a key."""
        host = urlsplit(self.address()).hostname or ""
        return host.endswith((".openai.com", ".azure.com"))

    def api_key(self) -> SecretStr:
        """The key, from the environment. UserError if it is missing where one is needed, or cannot be a key."""
        if self.base_url is None and _may_contain_key(self.address()):
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


def _may_contain_key(address: str) -> bool:
    return any(character in address for character in "@?#")
