"""A chat model behind an endpoint as a teacher: it states probabilities of the expressions of the face in an image."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lavis_emovit.chat.json_text import find_json, object_schema
from lavis_emovit.chat.ledger import Ledger, decode_row
from lavis_emovit.chat.prices import price_of
from lavis_emovit.chat.request import ChatRequest, Message, image_of
from lavis_emovit.chat.run import run_requests
from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.emotion.labels_faces import EXPRESSIONS7
from lavis_emovit.errors import UserError
from lavis_emovit.files import atomic_writer, cut_name, read_file
from lavis_emovit.teachers.faces import Answer, Face

CHAT = "chat:"  # before the name of the model
_PROMPT = (
    "You judge facial expressions. Look only at the face of the person whom the image is about, which is the largest "
    "one or the one in the middle. For each expression, state from 0 to 100 how probable it is that the face shows it; "
    "all together are 100. If no face can be seen well enough to judge it, set has_face to false and all numbers to 0. "
    "Reply with one JSON object and nothing else."
)
_NUMBER = {"type": "number", "minimum": 0, "maximum": 100}


_SCHEMA = object_schema(
    has_face={"type": "boolean"}, expressions=object_schema(**dict.fromkeys(EXPRESSIONS7.labels, _NUMBER))
)


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


_PROMPT_VERSION = _short_hash(f"{_PROMPT}{json.dumps(_SCHEMA)}")


@dataclass(frozen=True)
class ChatTeacher:
    """See `AnyTeacher`. Its replies and their costs are in a ledger of its own in `folder`.

    It does not find faces: its one face is all of the image. Its version is that of the prompt and of the settings that
    shape a reply.
    """

    settings: ChatSettings
    folder: Path

    names_expressions = True

    @property
    def name(self) -> str:
        return f"{CHAT}{self.settings.model}"

    @property
    def title(self) -> str:
        chat = self.settings
        image = [chat.image_max_side_px, chat.image_quality, chat.image_detail]
        shaping = json.dumps([_PROMPT_VERSION, chat.parameters(), image], sort_keys=True)
        return f"{self.name} {_short_hash(shaping)}"

    def require(self) -> None:
        """UserError without a key, or for a limit of costs without a price."""
        self.settings.api_key()
        price_of(self.settings)

    def open(self) -> ChatAsking:
        self.require()
        return ChatAsking(self.name, self.settings, Ledger(ledger_of(self.settings.model, self.folder)))


def ledger_of(model: str, folder: Path) -> Path:
    """The file of a model's ledger. In earlier versions `a/b` and `a:b` shared one, from which its rows are copied.

    The shared one may be open, as that of the model `a-b`, which appends no rows of other models.
    """
    plain = cut_name(re.sub(r"[^\w.-]+", "-", model))
    shared = folder / f"ledger-{plain}.jsonl"
    if plain == model:
        return shared
    own = folder / f"ledger-{plain}-{_short_hash(model)}.jsonl"
    if shared.exists() and not own.exists():
        lines = read_file(shared).splitlines(keepends=True)
        rows = [(decode_row(line) or {}, line) for line in lines]
        # Rows without a model may be costs of any model; a damaged one is an error when the copy is opened.
        kept = [line for row, line in rows if row.get("model", model) == model]
        if any(row.get("model") == model for row, _ in rows):
            with atomic_writer(own, "wb") as file:
                file.writelines(kept)
    return own


class ChatAsking:
    """An open ledger and its endpoint. Use it as a context manager."""

    num_restarts = 0

    def __init__(self, name: str, settings: ChatSettings, ledger: Ledger):
        self._name, self._settings, self._ledger = name, settings, ledger

    def __enter__(self) -> ChatAsking:
        return self

    def __exit__(self, *exc: object) -> None:
        self._ledger.close()

    def annotate(self, images: Sequence[Image.Image]) -> list[Answer]:
        """The answer about each RGB image; all requests are under way at the same time, and each is paid once.

        UserError if the run stops: the budget, a fault that only a person can fix, or too many failures in a row.
        """
        with tempfile.TemporaryDirectory() as folder:
            requests = [self._request(image, Path(folder) / f"{number}.bmp") for number, image in enumerate(images)]
            progress = run_requests(requests, self._settings, self._ledger)
        if progress.stopped is not None:
            raise UserError(
                f"teacher '{self._name}' stopped: {progress.stopped}. Run the same command again to resume; nothing is "
                "paid twice."
            )
        status, reason = next(iter(progress.reasons.items()), ("error", "no reply"))
        failed = Answer(fault="timeout" if status == "timeout" else "error", reason=f"{status}: {reason}")
        rows = [self._ledger.finished(request.fingerprint) for request in requests]
        return [failed if row is None else _read(row, image) for row, image in zip(rows, images)]

    def _request(self, image: Image.Image, path: Path) -> ChatRequest:
        image.save(path)
        chat = self._settings
        shown = image_of(path, chat.image_max_side_px, chat.image_quality, chat.image_detail)
        return ChatRequest(
            model=chat.model,
            messages=(Message("system", _PROMPT), Message("user", "Which expression does the face show?", (shown,))),
            parameters=chat.parameters(),
            prompt=f"expressions/{_PROMPT_VERSION}",
            schema=_SCHEMA,
        )


def _read(row: dict[str, Any], image: Image.Image) -> Answer:
    """The answer in a finished row; replies are never repaired."""
    if row["status"] != "ok":
        return Answer(fault="error", reason=f"the reply is {row['status']}")
    value = find_json(str(row.get("reply")))
    found = value.get("expressions") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(found, dict) or not isinstance(value.get("has_face"), bool):
        return Answer(fault="error", reason="the reply is not one JSON object with has_face and expressions")
    if not value["has_face"]:
        return Answer()
    # Booleans are integers to Python.
    are_numbers = all(type(share) in (int, float) and 0 <= share <= 100 for share in found.values())
    if set(found) != set(EXPRESSIONS7.labels) or not are_numbers or not any(found.values()):
        return Answer(fault="error", reason="the reply does not have a number from 0 to 100 for each expression")
    return Answer(faces=(Face(box=(0.0, 0.0, float(image.width), float(image.height)), expressions=found),))
