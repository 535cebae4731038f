"""One request to a chat model, and the fingerprint that identifies it in the ledger."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lavis_emovit.chat.images import ChatImage


@dataclass(frozen=True)
class Message:
    """One message: images, followed by a text."""

    role: str
    text: str
    images: tuple[ChatImage, ...] = ()

    def body(self) -> dict[str, Any]:
        """The message in the form of the chat-completions protocol. Reads and encodes the images."""
        if not self.images:
            return {"role": self.role, "content": self.text}
        parts: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": image.data_url(), "detail": image.detail}}
            for image in self.images
        ]
        return {"role": self.role, "content": [*parts, {"type": "text", "text": self.text}]}


@dataclass(frozen=True)
class ChatRequest:
    model: str
    messages: tuple[Message, ...]
    parameters: Mapping[str, Any]  # what shapes the reply (temperature, seed, ...), see `ChatSettings.parameters`
    prompt: str  # name and version of the prompt, for example `conversation/1`
    schema: Mapping[str, Any] | None = None  # JSON schema of the reply, or None for free text
    sample: int = 0  # number of the sample, from 0. The same request can be sent many times; each sample is paid once.
    # What the request is for (`record`, `kind`, ...). Written into the ledger, not part of the fingerprint.
    about: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        """sha256, in hex, of everything but `about`. Images count by the hash of their files, endpoints not at all."""
        content = {
            "model": self.model,
            "messages": [
                [message.role, message.text, [image.identity() for image in message.images]]
                for message in self.messages
            ],
            "parameters": dict(self.parameters),
            "prompt": self.prompt,
            "schema": self.schema,
            "sample": self.sample,
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def num_text_bytes(self) -> int:
        """UTF-8 bytes of all texts and the schema. No byte-level tokeniser makes more tokens of them."""
        size = sum(len(message.text.encode("utf-8", "surrogatepass")) for message in self.messages)
        return size + (len(json.dumps(self.schema)) if self.schema else 0)

    def num_images(self) -> int:
        return sum(len(message.images) for message in self.messages)
