"""Who writes: a chat model, through requests that are the same for the same record, or the offline writer."""

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
    """Turns records into requests.

    Attributes:
        settings: endpoint and parameters.
        prompt: system message.
        purpose: what the requests are for (`conversation`, `caption`, ...).
        schema: JSON schema of the reply.
        image_root: where picture paths start; None sends no pictures.
        facts: what is told about a picture; empty tells nothing (captions and attributes).
    """

    settings: ChatSettings
    prompt: Prompt
    purpose: str
    schema: Mapping[str, Any] | None = None
    image_root: Path | None = None
    facts: Sequence[FactName] = ALL_FACTS

    @property
    def name(self) -> str:
        """As provenance has it."""
        return f"chat:{self.settings.model}"

    def request(self, record: EmotionRecord, sample: int = 0, more: str = "") -> ChatRequest:
        """The request for a record.

        Args:
            record: what is known.
            sample: number of the sample; another one is another request.
            more: further text behind the facts (the pair that a judge looks at).

        Raises:
            DataError: the picture cannot be read.
        """
        known = facts_text(record, self.facts)
        text = f"Known about the picture:\n{known}" if known else "What does this picture show?"
        pictures: tuple[ChatImage, ...] = ()
        if self.image_root is not None and record.box is not None:
            text = f"The second picture is a part of the first one: the person that this is about.\n{text}"
        if self.image_root is not None:
            settings = self.settings
            whole = image_of(
                self.image_root / record.image,
                settings.image_max_side_px,
                settings.image_quality,
                settings.image_detail,
            )
            pictures = (whole,) if record.box is None else (whole, replace(whole, box=record.box))
        return ChatRequest(
            model=self.settings.model,
            messages=(
                Message("system", self.prompt.text),
                Message("user", f"{text}\n\n{more}" if more else text, pictures),
            ),
            parameters=self.settings.parameters(),
            prompt=self.prompt.name,
            schema=self.schema,
            sample=sample,
            about={"record": record.id, "kind": self.purpose},
        )
