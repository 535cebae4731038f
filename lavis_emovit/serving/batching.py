"""The queue of requests, and the thread that answers them in batches.

Requests of any settings share a batch, see `lavis_emovit/models/row_writing.py`. A free model waits for requests whose
images are being read, and for as many requests as the last batch had, because clients send their next request when
they have their answer; but only for a fraction of the time of the last batch. So a lone client never waits.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

from lavis_emovit.errors import UserError, first_line
from lavis_emovit.models.answering import Answering
from lavis_emovit.models.row_writing import RowSettings
from lavis_emovit.models.writing import Piece, TokenTexts, Writing
from lavis_emovit.serving.wire import ApiError
from lavis_emovit.tuned.loading import Tuned

logger = logging.getLogger(__name__)

_MOST_RETRY_S = 60
_WAITING_SHARE = 0.25  # of the time of the last batch


@dataclass(eq=False)
class Job:
    """A request whose image is read.

    Attributes:
        image: as `LavisModel.prepare` returns it; None once the model has answered.
        num_prompt_tokens: those of the image among them.
        stops, is_stream: see `Writing`.
        include_usage: whether a stream ends with the numbers of tokens.
        send: gets the pieces of the answer, or one error; called in the model's thread.
        is_wanted: set to False when the client is gone.
    """

    image: Any
    question: str
    num_prompt_tokens: int
    settings: RowSettings
    stops: Sequence[str]
    is_stream: bool
    include_usage: bool
    send: Callable[[Piece | ApiError], None]
    is_wanted: bool = True


@dataclass(eq=False)
class Place:
    """The place of a request that is read, and the bytes that it holds."""

    num_bytes: int = 0


class Batching:
    """The queue of a model. Its methods may be called in any thread.

    Args:
        tuned: the model.
        batch_size: requests that are answered at once.
        max_waiting: requests that may wait for the model, those whose images are being read among them.
        max_waiting_bytes: of these requests together: what has arrived of them, then their prepared images. A request
            that waits alone may have more.
        on_drained: called at the end of the model's thread, when the last request is answered after `drain`.

    Attributes:
        has_failed: whether the thread ended by an error of its own, so that nothing is answered any more.
    """

    def __init__(
        self,
        tuned: Tuned,
        *,
        batch_size: int = 32,
        max_waiting: int = 256,
        max_waiting_bytes: int = 1 << 30,
        on_drained: Callable[[], None] = lambda: None,
    ):
        model: Any = tuned.model
        if not isinstance(model, Answering):
            raise UserError(f"{tuned.files.location}: a model of this kind writes no text, so it cannot be served")
        self._model, self._adapter = model, tuned.adapter
        self._min_length = tuned.questions.min_length
        self._texts = TokenTexts(self._model.llm_tokenizer)
        self._batch_size, self._max_waiting, self._max_bytes = batch_size, max_waiting, max_waiting_bytes
        self.on_drained = on_drained
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._num_preparing = self._num_bytes = 0
        self.is_draining = False
        # Of the last batch.
        self._batch_s, self._num_answered = 1.0, 1
        self.has_failed = False
        self._thread = threading.Thread(target=self._work, name="emovit-model", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def drain(self) -> None:
        """Answer what is accepted, and accept nothing more."""
        with self._changed:
            self.is_draining = True
            self._changed.notify_all()

    def close(self) -> None:
        """Drain, and wait for the end."""
        self.drain()
        self._thread.join()

    @property
    def num_waiting(self) -> int:
        return self._num_preparing + len(self._waiting)

    @property
    def has_room(self) -> bool:
        """Whether a request would be accepted now."""
        return not self.is_draining and self.num_waiting < self._max_waiting and self._num_bytes < self._max_bytes

    @property
    def context_tokens(self) -> int | None:
        """See `Answering.context_tokens`."""
        return self._model.context_tokens

    def prepare(self, image_bytes: bytes, max_pixels: int) -> Any:
        """An image for a job; DataError if it cannot be decoded, or has more pixels."""
        return self._adapter.prepare(image_bytes, max_pixels=max_pixels)

    def num_prompt_tokens(self, image: Any, question: str) -> int:
        """Tokens of a prepared image and a question; ValueError if the model cannot read the question."""
        (count,) = self._model.num_prompt_tokens(self._adapter.batch([image], [0], [question]))
        return count

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place in the queue, for the time in which a request is read and put.

        Raises:
            ApiError: the queue is full, or nothing is accepted any more.
        """
        with self._changed:
            if self.is_draining:
                text = "the server is stopping and accepts no more requests"
                raise ApiError(503, text, code="stopping", headers={"Retry-After": "5", "Connection": "close"})
            if self.num_waiting >= self._max_waiting:
                raise self._full(f"{self.num_waiting} requests wait already")
            self._num_preparing += 1
        place = Place()
        try:
            yield place
        finally:
            with self._changed:
                self._num_preparing -= 1
                self._num_bytes -= place.num_bytes
                self._changed.notify_all()

    def hold(self, place: Place, num_bytes: int) -> None:
        """Let a request hold this many bytes instead of those before; ApiError if they are too many for the queue."""
        with self._changed:
            others = self._num_bytes - place.num_bytes
            if others and others + num_bytes > self._max_bytes:
                text = f"the requests that wait hold {others:,} bytes; another {num_bytes:,} exceed {self._max_bytes:,}"
                raise self._full(text)
            self._num_bytes, place.num_bytes = others + num_bytes, num_bytes

    def _full(self, text: str) -> ApiError:
        wait_s = self._batch_s * (1 + self.num_waiting / self._batch_size)
        headers = {"Retry-After": str(min(_MOST_RETRY_S, math.ceil(wait_s)))}
        return ApiError(429, text, code="queue_full", headers=headers)

    def put(self, job: Job, place: Place) -> None:
        """Let the model answer a job. Call it within `place`; ApiError as in `hold`."""
        with self._changed:
            self.hold(place, job.image.nbytes)
            place.num_bytes = 0  # the job holds them now
            self._waiting.append(job)

    def _work(self) -> None:
        try:
            while jobs := self._next_batch():
                begin = monotonic()
                self._answer(jobs)
                self._batch_s, self._num_answered = monotonic() - begin, len(jobs)
                for job in jobs:
                    job.image = None  # a slow client keeps the rest
        except BaseException:  # threading prints it
            self.has_failed = True
            raise
        finally:
            self.on_drained()

    def _next_batch(self) -> list[Job]:
        """Jobs whose clients still wait; empty at the end."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or (self.is_draining and not self._num_preparing))
                if not self._waiting:
                    return []
                self._changed.wait_for(self._is_complete, timeout=_WAITING_SHARE * self._batch_s)
                taken = [self._waiting.popleft() for _ in range(min(self._batch_size, len(self._waiting)))]
                self._num_bytes -= sum(job.image.nbytes for job in taken)
            if jobs := [job for job in taken if job.is_wanted]:
                return jobs

    def _is_complete(self) -> bool:
        num = len(self._waiting)
        return num >= self._batch_size or (num >= self._num_answered and not self._num_preparing)

    def _answer(self, jobs: Sequence[Job]) -> None:
        writings = [self._writing(job) for job in jobs]
        try:
            self._write(jobs, writings)
        except Exception as error:  # whatever a model raises, its other clients get their answers
            if len(jobs) > 1:
                logger.warning("a batch failed and is repeated one by one: %s", first_line(error))
            for job, writing in zip(jobs, writings):
                if writing.has_ended:
                    continue
                if writing.has_sent or len(jobs) == 1:
                    job.send(_as_api_error(error))
                else:
                    self._answer([job])

    def _write(self, jobs: Sequence[Job], writings: Sequence[Writing]) -> None:
        samples = self._adapter.batch([job.image for job in jobs], range(len(jobs)), [job.question for job in jobs])
        self._adapter.run(partial(self._model.write_rows, samples, writings, self._min_length))

    def _writing(self, job: Job) -> Writing:
        return Writing(
            job.settings, job.stops, self._texts, job.send, is_stream=job.is_stream, is_wanted=lambda: job.is_wanted
        )


def _as_api_error(error: Exception) -> ApiError:
    if isinstance(error, ValueError):
        return cannot_be_answered(error)
    logger.error("an answer failed", exc_info=error)
    return ApiError(500, f"the model failed: {first_line(error)}", code="model_failed")


def cannot_be_answered(error: ValueError) -> ApiError:
    """What the model rejects, as an error for the client."""
    return ApiError(400, first_line(error), param="messages", code="cannot_be_answered")
