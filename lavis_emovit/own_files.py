"""Reading back what the package itself wrote as JSON: one function, one model for each kind of file, one error.

Somebody may have edited such a file, an interrupted copy may have cut it, or another program may have replaced it. So
it is never used as plain JSON: `parse_own` checks the text, and a pydantic model checks the keys. Formats of others are
read elsewhere, because they follow other rules.
"""

from __future__ import annotations

import codecs
import math
import reprlib
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError

from lavis_emovit.errors import DataError
from lavis_emovit.files import load_json, read_file

T = TypeVar("T")
_MAX_INTEGER = 2**63


PathText = Annotated[str, StringConstraints(pattern=r"^[^\x00]+$")]
"""A text that the system takes as a path."""


class Written(BaseModel):
    """Base of a file's model that declares only what is read; other keys stay as they are, see `model_extra`."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=(), allow_inf_nan=False)


def read_own(path: Path, kind: type[T], advice: str) -> T:
    """The content of a JSON file of ours as `kind`, a model or another type that pydantic knows.

    Args:
        advice: a sentence that says how to get the file again.

    Raises:
        DataError: the file is missing, no regular file, not JSON, or not of this kind.
    """
    try:
        content = read_file(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). {advice}") from None
    return parse_own(content, kind, str(path), advice)


def read_own_if_any(path: Path, kind: type[T], advice: str) -> T | None:
    """As `read_own`; None if there is nothing at the path."""
    return read_own(path, kind, advice) if path.exists() else None


def parse_own(content: str | bytes, kind: type[T], place: str, advice: str) -> T:
    """As `read_own`, of the text of a file or of one of its lines, whose place the error names."""
    try:
        return parse_as(content, kind)
    except ValueError as error:
        raise DataError(f"{place}: damaged: {reason_of(error)}. {advice}") from None


def parse_as(content: str | bytes, kind: type[T]) -> T:
    """As `parse_own`; ValueError without a place."""
    text = _decoded(content)
    checked_json(text)
    # From the text, because strict models take a JSON list for a tuple, but no Python list. Models that look at their
    # content before the fields are read, as settings do, have Python lists from then on.
    adapter: TypeAdapter[T] = _adapter(kind)  # type: ignore[arg-type]
    return adapter.validate_json(text, strict=not _looks_first(kind))


def _looks_first(kind: Any) -> bool:
    decorators = getattr(kind, "__pydantic_decorators__", None)
    return decorators is not None and any(one.info.mode == "before" for one in decorators.model_validators.values())


def reason_of(error: ValueError) -> str:
    """Why content is not of its kind: the first problem of a ValidationError with its place, or a line."""
    if not isinstance(error, ValidationError):
        return str(error).partition("\n")[0]
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]


@lru_cache(maxsize=64)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def checked_json(content: str | bytes) -> Any:
    """JSON that keeps its values; ValueError for repeated keys, numbers that are not finite or need more than 64 bits,
    and text that is not UTF-8."""
    try:
        found = load_json(_decoded(content), unique_keys=True)
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from None
    if problem := _lossy(found):
        raise ValueError(problem)
    return found


def _decoded(content: str | bytes) -> str:
    if isinstance(content, str):
        return content.removeprefix("\ufeff")
    try:
        # Windows' editors write a byte order mark.
        return content.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text (byte {error.start})") from None


def _lossy(content: Any) -> str | None:
    """The first value that JSON of others, torch or a file cannot hold, with its key."""
    waiting: list[tuple[str, Any]] = [("", content)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{place}.{key}" if place else key, one) for key, one in value.items()]
            waiting += [(f"{place} key", key) for key in value if not key.isascii()]
        elif isinstance(value, list):
            waiting += [(f"{place}.{number}", one) for number, one in enumerate(value)]
        elif isinstance(value, str):
            if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
                return f"{place}: {value[:40]!a} has half a character"
        elif isinstance(value, float):
            if not math.isfinite(value):
                return f"{place}: {value} is no finite number"
        elif isinstance(value, int) and not -_MAX_INTEGER <= value < _MAX_INTEGER:
            return f"{place}: {reprlib.repr(value)} is out of range"
    return None
