"""A teacher's program in Python that may import this package; the protocol is that of `worker.py`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from lavis_emovit.errors import DataError, first_line
from lavis_emovit.teachers.faces import Face

Annotate = Callable[[Image.Image], Sequence[Face]]


def run_program(load: Callable[[], tuple[str, Annotate]]) -> None:
    """Reply to requests on the standard input until it ends.

    Args:
        load: returns the version that the teacher is registered with, and a function that finds the faces in an RGB
            image. DataError from that function is an answer about this image; any other error ends the program.
    """
    # Libraries print to the standard output, which belongs to the replies.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as replies:
        os.dup2(2, 1)

        def write(message: dict[str, Any]) -> None:
            replies.write(json.dumps(message) + "\n")
            replies.flush()

        version, annotate = load()
        write({"ready": True, "version": version})
        while line := sys.stdin.buffer.readline():
            request = json.loads(line)
            size = request["width"], request["height"]
            image = Image.frombytes("RGB", size, sys.stdin.buffer.read(size[0] * size[1] * 3))
            try:
                faces = [face.model_dump(exclude_defaults=True) for face in annotate(image)]
            except DataError as error:
                write({"id": request["id"], "error": first_line(error)})
            else:
                write({"id": request["id"], "faces": faces})
