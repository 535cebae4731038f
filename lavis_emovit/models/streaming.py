"""An answer in pieces, generated in a separate thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from lavis_emovit.models.row_writing import RowSettings, RowWriter
from lavis_emovit.models.writing import Piece, TokenTexts, Writing


def stream_text(write: Callable[[RowWriter], object], settings: RowSettings, tokenizer: Any) -> Iterator[str]:
    """Run `write` in a separate thread and yield the text that it writes in pieces, without whitespace at its ends.

    Closing the iterator stops the generation; its errors are raised here.
    """
    pieces: queue.SimpleQueue[Piece | BaseException] = queue.SimpleQueue()
    stop = threading.Event()
    texts = TokenTexts(tokenizer)
    writing = Writing(settings, (), texts, pieces.put, is_stream=True, is_wanted=lambda: not stop.is_set())

    def work() -> None:
        try:
            write(writing)
        except BaseException as error:  # raised again in the reader
            pieces.put(error)

    worker = threading.Thread(target=work, name="emovit-generation", daemon=True)
    worker.start()
    try:
        finish = None
        while finish is None:
            piece = pieces.get()
            if isinstance(piece, BaseException):
                raise piece
            finish = piece.finish
            if piece.text:
                yield piece.text
    finally:
        stop.set()
        worker.join()
