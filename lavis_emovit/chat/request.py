"""One request to a chat model with its texts and images, and the fingerprint that identifies it in the ledger."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from lavis_emovit.boxes import Box, part_of
from lavis_emovit.chat.scratch import Scratch
from lavis_emovit.clips.video import Video
from lavis_emovit.errors import DataError
from lavis_emovit.files import file_sha256, read_file
from lavis_emovit.images import decode_image


@dataclass(frozen=True)
class ChatImage:
    path: Path
    sha256: str  # of the bytes of the file. The fingerprint contains the hash, not the path.
    max_side_px: int = 768  # limit of the longer side, in pixels; smaller images keep their size
    quality: int = 85  # of the JPEG that is sent
    detail: str = "auto"  # `auto`, `low` or `high`, sent with the image
    # The part to show, as (left, top, right, bottom) in pixels of the upright image. None: all of it.
    box: Box | None = None
    trim: float = 0.0  # share of width and height that is cut from each side, below 0.5
    is_mirrored: bool = False  # left and right exchanged
    time_s: float | None = None  # the file is a video, of which the frame at this time is shown

    def identity(self) -> dict[str, Any]:
        """The part of the fingerprint that stands for this image."""
        identity: dict[str, Any] = {key: getattr(self, key) for key in ("sha256", "max_side_px", "quality", "detail")}
        box = None if self.box is None else list(self.box)
        changes = {"box": box, "trim": self.trim, "is_mirrored": self.is_mirrored}
        identity |= {name: value for name, value in changes.items() if value}
        return identity if self.time_s is None else {**identity, "time_s": self.time_s}

    def data_url(self) -> str:
        """The image as `data:image/jpeg;base64,...`: upright, RGB on white, at most `max_side_px` wide and high."""
        return _data_url(self)


@functools.lru_cache(maxsize=16)
def _data_url(image: ChatImage) -> str:
    pixels = _still(image) if image.time_s is None else _frame(image, image.time_s)
    if image.box is not None:
        pixels = _in_box(pixels, image.box, image.path)
    if image.trim:
        wide, high = int(image.trim * pixels.width), int(image.trim * pixels.height)
        pixels = pixels.crop((wide, high, pixels.width - wide, pixels.height - high))
    if image.is_mirrored:
        pixels = ImageOps.mirror(pixels)
    pixels.thumbnail((image.max_side_px, image.max_side_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    pixels.save(buffer, "JPEG", quality=image.quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _still(image: ChatImage) -> Image.Image:
    try:
        data = read_file(image.path)
    except OSError as error:
        raise DataError(f"{image.path}: the image cannot be read ({error.strerror})") from None
    if hashlib.sha256(data).hexdigest() != image.sha256:
        raise DataError(f"{image.path}: the image changed while it was used; start again")
    # Boxes are in pixels of the full size.
    return load_rgb(data, image.path, image.max_side_px if image.box is None else None)


def _frame(image: ChatImage, time_s: float) -> Image.Image:
    # A video may be too large for memory, so its hash is the remembered one.
    if image_of(image.path).sha256 != image.sha256:
        raise DataError(f"{image.path}: the video changed while it was used; start again")
    try:
        with Video(image.path) as video:
            ((_, pixels),) = video.frames_at([time_s])
    except DataError as error:
        raise DataError(f"{image.path}: {error}") from None
    except OSError as error:
        raise DataError(f"{image.path}: the video cannot be read ({error.strerror})") from None
    return pixels.convert("RGB")


def _in_box(pixels: Image.Image, box: Box, path: Path) -> Image.Image:
    try:
        return pixels.crop(part_of(box, pixels.size))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def load_rgb(data: bytes, path: Path, min_side_px: int | None = None) -> Image.Image:
    """As `lavis_emovit.images.decode_image`, but errors name the file that the bytes are from."""
    try:
        return decode_image(data, min_side_px=min_side_px)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def image_of(path: Path, max_side_px: int = 768, quality: int = 85, detail: str = "auto") -> ChatImage:
    """The image of a file, with the file's hash."""
    try:
        state = path.stat()
        sha256 = _file_sha256(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise DataError(f"{path}: the image cannot be read ({error.strerror})") from None
    return ChatImage(path, sha256, max_side_px, quality, detail)


def _file_sha256(path: Path, size: int, mtime_ns: int) -> str:
    """The hash of a file. Every step needs those of the same files, so they are remembered on disk."""
    file = f"{size} {mtime_ns} {path}"
    found = _hashes().execute("SELECT sha256 FROM scratch WHERE file = ?", (file,)).fetchone()
    if found is None:
        found = (file_sha256(path),)
        _hashes().execute("INSERT INTO scratch VALUES (?, ?)", (file, *found))
    return str(found[0])


@functools.cache
def _hashes() -> Scratch:
    return Scratch("file TEXT PRIMARY KEY, sha256 TEXT")


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
    # Answers to choose from. If there are any, no text is written: see `decisions.py`.
    choices: tuple[str, ...] = ()

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
            **({"choices": self.choices} if self.choices else {}),
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def num_text_bytes(self) -> int:
        """UTF-8 bytes of all texts, the choices and the schema. No byte-level tokeniser makes more tokens of them."""
        texts = [*(message.text for message in self.messages), *self.choices]
        size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
        return size + (len(json.dumps(self.schema)) if self.schema else 0)

    def num_images(self) -> int:
        return sum(len(message.images) for message in self.messages)
