"""Any model behind an OpenAI-compatible endpoint; it writes, and its answers are read strictly.

Every reply goes to a ledger first. Where the temperature is 0 the ledger serves as a cache between runs; replies that
are drawn by chance are never taken from another run.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from lavis_emovit.chat.images import ChatImage
from lavis_emovit.chat.ledger import Ledger
from lavis_emovit.chat.request import ChatRequest, Message
from lavis_emovit.chat.run import run_requests
from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.errors import UserError
from lavis_emovit.evaluation.adapters.base import Failure
from lavis_emovit.evaluation.benchmarks import Method
from lavis_emovit.evaluation.endpoints import checked_endpoint
from lavis_emovit.evaluation.questions import Question
from lavis_emovit.images import decode_image
from lavis_emovit.settings import Settings


class ChatModelSettings(Settings):
    """`adapter: chat`; the settings of the endpoint stand below `chat`, with temperature 0 where none is given."""

    adapter: Literal["chat"]
    chat: dict[str, Any] = Field(min_length=1)

    @field_validator("chat")
    @classmethod
    def _endpoint_is_valid(cls, value: dict[str, Any]) -> dict[str, Any]:
        return checked_endpoint(value)

    def endpoint(self) -> ChatSettings:
        """The endpoint's settings."""
        return ChatSettings.model_validate({"temperature": 0.0, **self.chat})


class ChatModel:
    """See `lavis_emovit.evaluation.adapters.base.LanguageModel`.

    Args:
        settings: the endpoint.
        ledger_path: where replies are kept.
    """

    methods: frozenset[Method] = frozenset({"generation"})

    @property
    def pictures_at_once(self) -> int:
        """Twice what may be in flight, so that the last calls of a batch seldom wait alone."""
        return 2 * self.settings.max_in_flight

    def __init__(self, settings: ChatModelSettings, ledger_path: Path):
        self.settings = settings.endpoint()
        self._ledger = Ledger(ledger_path)
        self._pictures = PictureFiles(self.settings)

    def identity(self) -> dict[str, Any]:
        """The model's name, the address that it is asked at, and what shapes its replies."""
        return {
            "adapter": "chat",
            "model": self.settings.model,
            "address": self.settings.address(),
            **self.settings.parameters(),
            "image_max_side_px": self.settings.image_max_side_px,
            "image_quality": self.settings.image_quality,
            "image_detail": self.settings.image_detail,
        }

    def prepare(self, image_bytes: bytes) -> bytes:
        """The bytes themselves, after a look whether they are a picture."""
        decode_image(image_bytes, min_side_px=self.settings.image_max_side_px)
        return image_bytes

    def score(
        self, pictures: Sequence[Any], image_index: Sequence[int], questions: Sequence[Question], method: Method
    ) -> list[list[float]]:
        """Endpoints give no likelihood of a text that one chooses; `methods` says so."""
        raise UserError("a chat endpoint has no candidate likelihoods; ask it by generation")

    def write(
        self, pictures: Sequence[bytes], image_index: Sequence[int], questions: Sequence[Question]
    ) -> list[str | Failure]:
        """See `LanguageModel.write`."""
        shown = [self._pictures.put(data) for data in pictures]
        requests = [self._request(shown[place], question) for place, question in zip(image_index, questions)]
        progress = run_requests(requests, self.settings, self._ledger)
        if progress.stopped:
            raise UserError(
                f"{self.settings.model}: {progress.stopped}. Started again, the evaluation goes on from here."
            )
        self._pictures.clear()
        answers: list[str | Failure] = []
        for request in requests:
            row = self._ledger.finished(request.fingerprint)
            if row is None:
                answers.append(Failure(f"no answer after all attempts ({', '.join(sorted(progress.failed))})"))
            else:
                # A refusal is an answer, and so is one that reached the limit; the reader decides what it says.
                answers.append(str(row.get("reply") or row.get("reason") or ""))
        return answers

    def close(self) -> None:
        """Let go of the ledger."""
        self._ledger.close()
        self._pictures.close()

    def _request(self, picture: ChatImage, question: Question) -> ChatRequest:
        parameters = {**self.settings.parameters(), "max_output_tokens": question.max_new_tokens}
        message = Message("user", question.text, (picture,))
        return ChatRequest(self.settings.model, (message,), parameters, prompt=f"evaluation/{question.key}")


class PictureFiles:
    """Pictures out of shards as the files that requests are made of; a context manager that leaves none behind."""

    def __init__(self, settings: ChatSettings):
        self._settings = settings
        self._folder = tempfile.TemporaryDirectory(prefix="emovit-pictures-")

    def __enter__(self) -> PictureFiles:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def put(self, data: bytes) -> ChatImage:
        """Write a picture, once for the same bytes."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = Path(self._folder.name, sha256)
        if not path.exists():
            path.write_bytes(data)
        chat = self._settings
        return ChatImage(path, sha256, chat.image_max_side_px, chat.image_quality, chat.image_detail)

    def clear(self) -> None:
        """Delete the files; what is put again is written again."""
        for path in Path(self._folder.name).iterdir():
            path.unlink()

    def close(self) -> None:
        """Delete the folder."""
        self._folder.cleanup()
