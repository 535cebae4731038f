"""The progress of a run that asks: live on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lavis_emovit.chat.progress import RunProgress

PLAIN_INTERVAL_S = 10.0


def make_display(stream: Any = None) -> Callable[[str, RunProgress], AbstractContextManager[None]]:
    """The display that suits a stream (by default the error output, so that results can be piped)."""
    stream = stream if stream is not None else sys.stderr
    return _live if stream.isatty() else _plain


@contextmanager
def _live(label: str, progress: RunProgress) -> Iterator[None]:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    def render() -> Group:
        done = progress.done + sum(progress.failed.values())
        bar = Table.grid()  # a bar alone ends no line
        bar.add_row(ProgressBar(total=progress.total or None, completed=done, width=60))
        return Group(Text(label, style="bold"), bar, Text(progress.line()))

    with Live(get_renderable=render, console=Console(stderr=True), refresh_per_second=4):
        yield


@contextmanager
def _plain(label: str, progress: RunProgress) -> Iterator[None]:
    ended = threading.Event()

    def report() -> None:
        while not ended.wait(PLAIN_INTERVAL_S):
            print(f"{label}: {progress.line()}", file=sys.stderr, flush=True)

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        print(f"{label}: {progress.line()}", file=sys.stderr, flush=True)
