"""Any model behind an OpenAI-compatible endpoint. It writes answers, which are read strictly, and may score candidates.

Every reply goes to a ledger first. At temperature 0 the ledger is a cache that suites share; sampled replies are never
taken from another suite.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from PIL import Image
from pydantic import Field

from lavis_emovit.boxes import Box, images_of_pair
from lavis_emovit.chat.ledger import Ledger
from lavis_emovit.chat.progress import RunProgress
from lavis_emovit.chat.request import ChatImage, ChatRequest, Message
from lavis_emovit.chat.run import run_requests
from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.errors import ConfigError, UserError
from lavis_emovit.evaluation.adapters.base import Failure, LanguageModel, ModelPlace, register_adapter
from lavis_emovit.evaluation.adapters.chat_likelihood import Form, scores_of_row, scoring_request
from lavis_emovit.evaluation.adapters.chat_probe import EndpointFacts, probe_endpoint
from lavis_emovit.evaluation.benchmarks import Method
from lavis_emovit.evaluation.endpoints import Endpoint
from lavis_emovit.evaluation.questions import Question
from lavis_emovit.files import cut_name
from lavis_emovit.images import decode_image, jpeg_of
from lavis_emovit.settings import Settings

_NO_PROBABILITIES = "the endpoint returned no log-probabilities"
_REFUSED = "I cannot answer, because the endpoint refused the request."


class ChatModelSettings(Settings):
    """`adapter: chat`.

    Attributes:
        chat: settings of the endpoint, with temperature 0 by default.
        likelihood: how the endpoint scores candidates: by `logprobs` of the first token, by `systemone` (see
            `chat_likelihood.py`), or not at all (`none`); `auto` takes what the probe finds.
        top_logprobs: number of tokens whose log-probabilities are requested; some endpoints allow fewer than 20.
        probe: find out with a few short requests what the endpoint honours, once for each ledger.
    """

    adapter: Literal["chat"]
    chat: Endpoint
    likelihood: Literal["auto", "logprobs", "systemone", "none"] = "auto"
    top_logprobs: int = Field(default=20, ge=2, le=20)
    probe: bool = True

    def endpoint(self) -> ChatSettings:
        return ChatSettings.model_validate({"temperature": 0.0, **self.chat})


class _Pair(NamedTuple):
    """Two images in one file, which are sent as two."""

    data: bytes
    boxes: Sequence[Box]


class ChatModel(LanguageModel):
    """A model behind an endpoint; its replies are kept in the ledger at `ledger_path`."""

    scores_any_text = False
    reads_pairs = True

    @property
    def images_at_once(self) -> int:
        """Twice the number of requests in flight, so that few of them wait for the end of a batch."""
        return 2 * self.settings.max_in_flight

    def __init__(self, settings: ChatModelSettings, ledger_path: Path):
        self.settings, self._entry = settings.endpoint(), settings
        self._ledger = Ledger(ledger_path)
        self._files = ImageFiles(self.settings)

    @cached_property
    def _found(self) -> EndpointFacts:
        image = self._files.put(jpeg_of(Image.new("RGB", (64, 64), "grey")))
        return probe_endpoint(self.settings, self._ledger, self._entry.top_logprobs, image)

    @property
    def form(self) -> Form | None:
        """How candidates are scored."""
        if self._entry.likelihood == "auto":
            return self._found.form if self._entry.probe else None
        return None if self._entry.likelihood == "none" else self._entry.likelihood

    @property
    def methods(self) -> frozenset[Method]:  # type: ignore[override]
        return frozenset({"generation"} if self.form is None else {"generation", "likelihood"})

    def facts(self) -> dict[str, str]:
        names = {None: "none", "logprobs": "log-probabilities of the first token", "systemone": "System One"}
        return {**self._found.shown(), "candidates scored by": names[self.form]} if self._entry.probe else {}

    def identity(self) -> dict[str, Any]:
        by_tokens = {"top_logprobs": self._entry.top_logprobs} if self.form == "logprobs" else {}
        return {
            "adapter": "chat",
            **({"likelihood": self.form} if self.form is not None else {}),
            **by_tokens,
            "model": self.settings.model,
            "address": self.settings.address(),
            **self.settings.parameters(),
            "image_max_side_px": self.settings.image_max_side_px,
            "image_quality": self.settings.image_quality,
            "image_detail": self.settings.image_detail,
        }

    def prepare(self, image_bytes: bytes) -> bytes:
        """The bytes themselves, if they are an image."""
        decode_image(image_bytes, min_side_px=self.settings.image_max_side_px)
        return image_bytes

    def prepare_pair(self, data: bytes, pair: Sequence[Box]) -> _Pair:
        """The bytes and the boxes themselves, if they are two images."""
        images_of_pair(decode_image(data), pair)
        return _Pair(data, pair)

    def score(
        self, images: Sequence[Any], image_index: Sequence[int], questions: Sequence[Question], method: Method
    ) -> list[list[float] | str | Failure]:
        """See `LanguageModel.score` and `chat_likelihood.py`; all scores are log-probabilities of one token.

        Raises:
            UserError: the endpoint scores no candidates, or a question has more than 26.
        """
        form = self.form
        if form is None:
            raise UserError(f"{self.settings.model} has no candidate likelihoods; use the method generation")

        def request(question: Question, shown: tuple[ChatImage, ...]) -> ChatRequest:
            return scoring_request(question, shown, self.settings, form, self._entry.top_logprobs)

        found: list[list[float] | str | Failure] = []
        for question, row in zip(questions, self._rows(images, image_index, questions, request)):
            scores = row if isinstance(row, Failure) else scores_of_row(row, question.candidates, form)
            found.append(Failure(_NO_PROBABILITIES) if scores is None else scores)
        return found

    def write(
        self, images: Sequence[bytes | _Pair], image_index: Sequence[int], questions: Sequence[Question]
    ) -> list[str | Failure]:
        def request(question: Question, shown: tuple[ChatImage, ...]) -> ChatRequest:
            parameters = {**self.settings.parameters(), "max_output_tokens": question.max_new_tokens}
            message = Message("user", question.text, shown)
            return ChatRequest(self.settings.model, (message,), parameters, prompt=f"evaluation/{question.key}")

        answers: list[str | Failure] = []
        for row in self._rows(images, image_index, questions, request):
            if isinstance(row, Failure):
                answers.append(row)
            else:
                # Refusals and cut replies are answers too. An error of the endpoint is not: it may name a label.
                reason = _REFUSED if "http" in row else row.get("reason")
                answers.append(str(row.get("reply") or reason or ""))
        return answers

    def _rows(
        self,
        images: Sequence[bytes | _Pair],
        image_index: Sequence[int],
        questions: Sequence[Question],
        make: Callable[[Question, tuple[ChatImage, ...]], ChatRequest],
    ) -> list[dict[str, Any] | Failure]:
        """The ledger's row of each question's reply, after sending what it does not have."""
        files = [self._shown(image) for image in images]
        requests = [make(question, files[place]) for place, question in zip(image_index, questions)]
        progress = send_requests(requests, self.settings, self._ledger, self.settings.model)
        self._files.clear()
        reasons = "; ".join(f"{status}: {reason}" for status, reason in sorted(progress.reasons.items()))
        failure = Failure(f"no answer after all attempts ({reasons})")
        rows = (self._ledger.finished(request.fingerprint) for request in requests)
        return [failure if row is None else row for row in rows]

    def _shown(self, image: bytes | _Pair) -> tuple[ChatImage, ...]:
        if isinstance(image, bytes):
            return (self._files.put(image),)
        file = self._files.put(image.data)
        return tuple(replace(file, box=box) for box in image.boxes)

    def close(self) -> None:
        self._ledger.close()
        self._files.close()


def send_requests(requests: Sequence[ChatRequest], settings: ChatSettings, ledger: Ledger, name: str) -> RunProgress:
    """Send all requests whose replies the ledger lacks. UserError with this name if the endpoint cannot be used."""
    progress = run_requests(requests, settings, ledger)
    # An endpoint that has answered before is not the reason if a few requests fail.
    stopped = progress.stopped or (progress.nothing_answered() if not len(ledger) else None)
    if stopped:
        raise UserError(f"{name}: {stopped}. The same command resumes from here.")
    return progress


class ImageFiles:
    """Images from shards as temporary files, which chat requests need; for `contextlib.closing`."""

    def __init__(self, settings: ChatSettings):
        self._settings = settings
        self._folder = tempfile.TemporaryDirectory(prefix="emovit-images-")

    def put(self, data: bytes) -> ChatImage:
        """Write an image, once for the same bytes."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = Path(self._folder.name, sha256)
        if not path.exists():
            path.write_bytes(data)
        chat = self._settings
        return ChatImage(path, sha256, chat.image_max_side_px, chat.image_quality, chat.image_detail)

    def clear(self) -> None:
        for path in Path(self._folder.name).iterdir():
            path.unlink()

    def close(self) -> None:
        self._folder.cleanup()


def ledger_path(place: ModelPlace, endpoint: ChatSettings) -> Path:
    """The file of an endpoint's replies; only at temperature 0 suites share it."""
    if endpoint.temperature != 0.0:
        return place.folder / "ledgers" / f"{place.name}.jsonl"
    plain = "".join(character if character.isalnum() or character in "-." else "_" for character in endpoint.model)
    digest = hashlib.sha256(f"{endpoint.address()}\n{endpoint.model}".encode()).hexdigest()
    return place.cache_dir / f"{cut_name(plain)}-{digest[:12]}.jsonl"


def _open(entry: ChatModelSettings, place: ModelPlace) -> ChatModel:
    from lavis_emovit.distributed import processes  # loads torch

    if processes.world_size() > 1:
        problem = "an endpoint needs one process, which has many requests in flight anyway"
        raise ConfigError([f"suite.models.{place.name}: {problem}"])
    return ChatModel(entry, ledger_path(place, entry.endpoint()))


register_adapter(ChatModelSettings, _open)
