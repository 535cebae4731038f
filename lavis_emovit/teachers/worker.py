"""A teacher's process: it gets images as pixels and replies with one JSON object a line.

The protocol, for programs in any language. At its start the program writes `{"ready": true, "version": "1.7.15"}` to
its standard output. A request on its standard input is a line `{"id": 3, "width": 640, "height": 480}` and then
width * height * 3 bytes, RGB row by row. Its reply is a line `{"id": 3, "faces": [...]}`, each face with the keys of
`Face` and coordinates in pixels of the request, or `{"id": 3, "error": "..."}`. It ends when its input ends.
"""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Any

from PIL import Image

from lavis_emovit.errors import UserError
from lavis_emovit.files import load_json
from lavis_emovit.outside import scrub
from lavis_emovit.teachers.faces import Answer, Face

MAX_SIDE_PX = 2048  # larger images are sent smaller: detectors shrink them anyway
REINSTALL = "Install it again (`emovit facial teachers`)"
_NUM_ATTEMPTS = 2  # a crash may come from the images before, such as memory that was never freed
_MAX_FAULTS_IN_A_ROW = 3
_KEPT_LINES = 20
_END_S = 5.0


class _FaultError(Exception):
    """The process ended (`crash`) or did not reply in time (`timeout`)."""

    def __init__(self, kind: str, reason: str):
        super().__init__(reason)
        self.kind = kind


class Worker:
    """Runs a teacher's program as long as it is needed. Use it as a context manager.

    Args:
        name: of the teacher, for messages.
        command: program and arguments.
        version: that the program must report.
        advice: what to do if it does not work, for messages.
        start_s, answer_s: time limits for the start, and for each image.

    Attributes:
        num_restarts: how often the program was started again after a crash or a timeout.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        version: str,
        *,
        advice: str = REINSTALL,
        start_s: float = 300.0,
        answer_s: float = 60.0,
    ):
        self.name, self.version, self._advice = name, version, advice
        self.num_restarts = 0
        self._command, self._start_s, self._answer_s = list(command), start_s, answer_s
        self._process: subprocess.Popen[bytes] | None = None
        self._replies: queue.Queue[bytes | None] = queue.Queue()
        self._last_lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._number = self._num_faults_in_a_row = 0
        self._was_started = self._has_ended = False

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop()

    def end(self) -> None:
        """End the program at once, although another thread may wait for its answer; it is not started again."""
        self._has_ended = True
        if (process := self._process) is not None:
            process.kill()

    def annotate(self, images: Sequence[Image.Image]) -> list[Answer]:
        """Faces in RGB images, in pixels of each. The program is started with the first image.

        A crash or timeout ends the program. The image is sent once more to a new one, then its answer has the fault.

        Raises:
            UserError: the program cannot be started, has another version, or failed with several images in a row.
        """
        return [self._annotate(image) for image in images]

    def _annotate(self, image: Image.Image) -> Answer:
        scale = max(1.0, max(image.size) / MAX_SIDE_PX)
        size = (max(1, round(image.width / scale)), max(1, round(image.height / scale)))
        sent = image if size == image.size else image.resize(size, Image.Resampling.BOX)
        fault = _FaultError("crash", "")
        for _ in range(_NUM_ATTEMPTS):
            if self._process is None:
                self._start()
            try:
                answer = self._ask(sent)
            except _FaultError as error:
                fault = error
                self._stop(kill=True)
                if self._has_ended:
                    break
                continue
            self._num_faults_in_a_row = 0
            faces = tuple(face.moved(0.0, 0.0, scale) for face in answer.faces)
            return answer.model_copy(update={"faces": faces})
        self._num_faults_in_a_row += 1
        if self._num_faults_in_a_row >= _MAX_FAULTS_IN_A_ROW:
            raise UserError(
                f"teacher '{self.name}': {_MAX_FAULTS_IN_A_ROW} images in a row ended in a {fault.kind} ({fault}). "
                f"{self._advice}, or leave it out; earlier answers are kept."
            )
        return Answer(fault=fault.kind, reason=str(fault))

    def _ask(self, image: Image.Image) -> Answer:
        """The reply of the running program."""
        self._number += 1
        request = {"id": self._number, "width": image.width, "height": image.height}
        content = json.dumps(request).encode() + b"\n" + image.tobytes()
        assert self._process is not None and self._process.stdin is not None
        # In a thread, because a program that reads nothing would block it for ever.
        threading.Thread(target=_send, args=(self._process.stdin, content), daemon=True).start()
        reply = self._reply(self._answer_s)
        if reply.get("id") != self._number:
            raise _FaultError("crash", f"it replied to another request: {scrub(str(reply))[:200]}")
        if "error" in reply:
            return Answer(fault="error", reason=scrub(str(reply["error"])).partition("\n")[0][:500])
        try:
            return Answer(faces=tuple(Face.model_validate(face).inside(image.size) for face in reply["faces"]))
        except (ValueError, KeyError, TypeError) as error:
            reason = " ".join(scrub(str(error)).split())[:500]
            return Answer(fault="error", reason=f"the reply is not as in the protocol: {reason}")

    def _reply(self, limit_s: float) -> dict[str, Any]:
        process = self._process
        try:
            line = self._replies.get(timeout=limit_s)
        except queue.Empty:
            raise _FaultError("timeout", f"no reply in {limit_s:g} s") from None
        if line is None:
            assert process is not None
            raise _FaultError("crash", f"the process ended with code {process.wait()}: {self._last_words()}")
        try:
            reply = load_json(line)
        except ValueError:
            reply = None
        if not isinstance(reply, dict):
            raise _FaultError("crash", f"it wrote something else than a reply: {scrub(repr(line[:200]))}")
        return reply

    def _start(self) -> None:
        self.num_restarts += self._was_started
        self._was_started = True
        self._last_lines.clear()
        try:
            process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError as error:
            raise UserError(
                f"teacher '{self.name}': {self._command[0]} cannot be run ({error.strerror}). {self._advice}."
            ) from None
        self._process, self._replies = process, queue.Queue()
        if self._has_ended:
            process.kill()
        assert process.stdout is not None and process.stderr is not None
        errors = threading.Thread(target=self._read_errors, args=(process.stderr,), daemon=True)
        errors.start()
        threading.Thread(target=_read_replies, args=(process.stdout, self._replies, errors), daemon=True).start()
        try:
            ready = self._reply(self._start_s)
        except _FaultError as fault:
            self._stop(kill=True)
            raise UserError(f"teacher '{self.name}' does not start: {fault}. {self._advice}.") from None
        if ready.get("version") != self.version:
            self._stop(kill=True)
            raise UserError(
                f"teacher '{self.name}': version {ready.get('version')} is installed, expected {self.version}. "
                f"{self._advice}."
            )

    def _read_errors(self, stream: IO[bytes]) -> None:
        for line in stream:
            if text := line.decode("utf-8", "replace").strip():
                self._last_lines.append(text)

    def _last_words(self) -> str:
        """The most telling of the last lines of the standard error: the last that names an error, or the last one."""
        lines = list(self._last_lines)
        named = [line for line in lines if "error" in line.lower()]
        return scrub((named or lines or ["without a message"])[-1])[:500]

    def _stop(self, *, kill: bool = False) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        if kill:
            # First, because closing waits for a thread that writes to a program that does not read.
            process.kill()
        with suppress(OSError):
            process.stdin.close()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _read_replies(stream: IO[bytes], replies: queue.Queue[bytes | None], errors: threading.Thread) -> None:
    for line in stream:
        replies.put(line)
    # What the program wrote to its standard error explains its end.
    errors.join(_END_S)
    replies.put(None)


def _send(stream: IO[bytes], content: bytes) -> None:
    # The process may have ended, which the missing reply reports.
    with suppress(OSError, ValueError):
        stream.write(content)
        stream.flush()
