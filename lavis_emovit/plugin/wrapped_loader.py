"""A loader around the loader of another package's module."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any


class WrappedLoader:
    """Replaces a module's own loader until the module runs, then restores it.

    `run` is called with the module and its own loader, instead of `loader.exec_module(module)`.
    """

    def __init__(self, loader: Any, run: Callable[[ModuleType, Any], None]):
        self._loader = loader
        self._run = run

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: Any) -> ModuleType | None:
        """The module's own loader creates it."""
        create = getattr(self._loader, "create_module", None)
        return create(spec) if create else None

    def exec_module(self, module: ModuleType) -> None:
        """Restore the module's own loader and run the module."""
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._run(module, self._loader)
