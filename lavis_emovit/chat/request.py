"""One request to a chat model, and the fingerprint by which the ledger knows it."""

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
    """One message: text and, in front of it, pictures."""

    role: str
    text: str
    images: tuple[ChatImage, ...] = ()

    def body(self) -> dict[str, Any]:
        """The message as the protocol has it; pictures are decoded and encoded here.

        Raises:
            DataError: a picture that cannot be used.
        """
        if not self.images:
            return {"role": self.role, "content": self.text}
        parts: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": image.data_url(), "detail": image.detail}}
            for image in self.images
        ]
        return {"role": self.role, "content": [*parts, {"type": "text", "text": self.text}]}


@dataclass(frozen=True)
class ChatRequest:
    """What is asked of a model.

    Attributes:
        model: the model's name.
        messages: in order, the system's first.
        parameters: what shapes the reply (temperature, seed, ...), see `ChatSettings.parameters`.
        prompt: name and version of the prompt, for example `conversation/1`.
        schema: JSON schema of the reply, or None for free text.
        sample: number of the sample, from 0. The same request may be asked many times; each sample is paid once.
        about: what the request is for (`record`, `kind`, ...); written into the ledger, no part of the fingerprint.
    """

    model: str
    messages: tuple[Message, ...]
    parameters: Mapping[str, Any]
    prompt: str
    schema: Mapping[str, Any] | None = None
    sample: int = 0
    about: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        """sha256, in hex, over model, messages, parameters, schema, prompt version and sample number.

        Pictures count by the hash of their files. The endpoint's address does not count: the same model behind another
        address is the same model.
        """
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
        """Bytes of all texts and the schema, in UTF-8: no byte-level tokeniser makes more tokens of them."""
        size = sum(len(message.text.encode("utf-8", "surrogatepass")) for message in self.messages)
        return size + (len(json.dumps(self.schema)) if self.schema else 0)

    def num_images(self) -> int:
        """Pictures in all messages."""
        return sum(len(message.images) for message in self.messages)
