"""A registry mapping that imports a class's module on first access.

LAVIS's registry keeps a dict from registered name to class for each kind. `LazyNames` takes the place of such a dict:
a declared name is listed at once, and its module is imported when the class is requested.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class _Declared:
    """Stands for a class until its module is imported."""

    module: str


class LazyNames(MutableMapping[str, Any]):
    """Registered name -> class."""

    def __init__(self, classes: Mapping[str, Any]):
        self._values: dict[str, Any] = dict(classes)

    def declare(self, name: str, module: str) -> None:
        """List a name whose class `module` registers when it is imported, unless the name is known."""
        self._values.setdefault(name, _Declared(module))

    def declared(self) -> dict[str, str]:
        """The names whose classes are not loaded yet, each with its module."""
        return {name: value.module for name, value in self._values.items() if isinstance(value, _Declared)}

    def __getitem__(self, name: str) -> Any:
        """The class; its module is imported first if necessary."""
        value = self._values[name]
        if not isinstance(value, _Declared):
            return value
        # Waits if another thread is importing it. Returns at once if this thread is: the name is not registered yet.
        importlib.import_module(value.module)
        value = self._values[name]
        if isinstance(value, _Declared):
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        value = self._values.get(name)  # type: ignore[call-overload]
        if isinstance(value, _Declared) and value.module in sys.modules:
            # It is being imported, and its decorator checks whether the name is free.
            try:
                self[name]  # type: ignore[index]
            except KeyError:
                return False
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return (name for name in list(self._values) if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return bool(self._values)

    def __setitem__(self, name: str, value: Any) -> None:
        """Replace a class. One that is not loaded yet is loaded first, since it could not register itself later."""
        declared = self._values.get(name)
        if isinstance(declared, _Declared) and declared.module not in sys.modules:
            with suppress(ImportError):
                importlib.import_module(declared.module)
        self._values[name] = value

    def __delitem__(self, name: str) -> None:
        del self._values[name]

    def copy(self) -> dict[str, Any]:
        """A plain dict of all classes."""
        return dict(self.items())

    def __repr__(self) -> str:
        return repr({name: value if not isinstance(value, _Declared) else ... for name, value in self._values.items()})


def declare(registry: Any, names: Mapping[str, Mapping[str, str]]) -> None:
    """Declare names in LAVIS's registry: kind -> registered name -> module."""
    for kind, modules in names.items():
        key = f"{kind}_name_mapping"
        mapping = registry.mapping.setdefault(key, {})
        if not isinstance(mapping, LazyNames):
            mapping = registry.mapping[key] = LazyNames(mapping)
        for name, module in modules.items():
            mapping.declare(name, module)
