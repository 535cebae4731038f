"""LAVIS processor `emovit_text`: formats a question for training and inference."""

from __future__ import annotations

import re
from typing import Any

from lavis.common.registry import registry
from lavis.processors.base_processor import BaseProcessor

from lavis_emovit.processors.settings import TextSettings, read_processor_settings


@registry.register_processor("emovit_text")
class EmovitTextProcessor(BaseProcessor):
    """Normalises white space; optionally limits the words or applies the treatment of the original EmoVIT code."""

    def __init__(self, settings: TextSettings | None = None):
        self.settings = settings or TextSettings()
        self._original: Any = None
        if self.settings.original:
            from lavis.processors.blip_processors import BlipCaptionProcessor

            self._original = BlipCaptionProcessor(max_words=self.settings.max_words or 50)

    def __call__(self, item: str) -> str:
        """The text with single spaces; line breaks are kept. TypeError for anything but a string."""
        if not isinstance(item, str):
            raise TypeError(f"expected a text, a single string, not {item!r}")
        if self._original is not None:
            return self._original(item)
        lines = [re.sub(r"[^\S\n]+", " ", line).strip() for line in item.strip().splitlines()]
        if self.settings.max_words is not None:
            return " ".join(" ".join(lines).split(" ")[: self.settings.max_words])
        return "\n".join(lines)

    @classmethod
    def from_config(cls, cfg: Any = None) -> EmovitTextProcessor:
        return cls(read_processor_settings(TextSettings, cfg))
