"""From records to requests for a chat model; the same record always gives the same request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lavis_emovit.chat.images import ChatImage, image_of
from lavis_emovit.chat.request import ChatRequest, Message
from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.generation.facts import ALL_FACTS, FactName, facts_text
from lavis_emovit.generation.prompts import Prompt
from lavis_emovit.records import EmotionRecord


@dataclass(frozen=True)
class ChatWriter:
    settings: ChatSettings
    prompt: Prompt
    purpose: str  # purpose of the requests (`conversation`, `caption`, ...)
    schema: Mapping[str, Any] | None = None  # JSON schema of the reply
    image_root: Path | None = None  # folder that image paths are relative to; None sends no images
    facts: Sequence[FactName] = ALL_FACTS  # facts in the request; empty for captions and attributes

    @property
    def name(self) -> str:  # in provenance
        return f"chat:{self.settings.model}"

    def request(self, record: EmotionRecord, sample: int = 0, more: str = "") -> ChatRequest:
        """The request for a record, with `more` after the facts. DataError if the image cannot be read."""
        known = facts_text(record, self.facts)
        text = f"Known about the picture:\n{known}" if known else "What does this picture show?"
        images: tuple[ChatImage, ...] = ()
        if self.image_root is not None:
            settings = self.settings
            whole = image_of(
                self.image_root / record.image,
                settings.image_max_side_px,
                settings.image_quality,
                settings.image_detail,
            )
            images = (whole,)
            if record.box is not None:
                text = f"The second picture is a part of the first one: the person that this is about.\n{text}"
                images = (whole, replace(whole, box=record.box))
        return ChatRequest(
            model=self.settings.model,
            messages=(
                Message("system", self.prompt.text),
                Message("user", f"{text}\n\n{more}" if more else text, images),
            ),
            parameters=self.settings.parameters(),
            prompt=self.prompt.name,
            schema=self.schema,
            sample=sample,
            about={"record": record.id, "kind": self.purpose},
        )
