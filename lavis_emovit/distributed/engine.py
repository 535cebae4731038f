"""Work on many items, with the results in their order: in this process, or on workers of Ray (`on_ray.py`).

What a worker does is a context manager that gives a function from an item to its result. Each worker opens it once, so
that a model is loaded once. Items, results and the context manager travel between machines, so they are picklable.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Generic, NamedTuple, TypeVar

Known = TypeVar("Known")
Item = TypeVar("Item")
Result = TypeVar("Result")

OpenWork = Callable[[], AbstractContextManager[Callable[[Item], Result]]]


class Lost(NamedTuple):
    """Instead of a result: every worker that got the item ended, for example because memory ran out."""

    reason: str


class Done(NamedTuple, Generic[Known, Result]):
    """An item that was worked on; `result` is None where there was nothing to do."""

    known: Known
    result: Result | Lost | None


class Engine(ABC):
    """Where work is done. Use it as a context manager.

    Attributes:
        num_lost_workers: workers that ended in the middle of an item, and were replaced.
    """

    num_lost_workers = 0

    @abstractmethod
    def map(
        self, open_work: OpenWork[Item, Result], items: Iterable[tuple[Known, Item | None]]
    ) -> Iterator[Done[Known, Result]]:
        """Work on items in any order, and yield the results in the order of the items.

        Items are read while others are under way, never collected. The first part of each pair stays in this process.

        Raises:
            UserError: the work raised it; results of earlier items are yielded before.
        """

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:  # noqa: B027 (not every engine has something to close)
        """Release what the engine has started."""


class ProcessEngine(Engine):
    """This process, one item after the other."""

    def map(
        self, open_work: OpenWork[Item, Result], items: Iterable[tuple[Known, Item | None]]
    ) -> Iterator[Done[Known, Result]]:
        with ExitStack() as parts:
            work: Callable[[Item], Result] | None = None
            for known, item in items:
                if item is not None and work is None:
                    work = parts.enter_context(open_work())
                yield Done(known, None if item is None or work is None else work(item))
