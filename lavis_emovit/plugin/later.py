"""Imports at the top of LAVIS's modules that are made when they are used.

`lavis.common` imports pandas, timm and parts of torchvision for downloads and tables, which takes seconds, and every
model imports `lavis.common`.
"""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace
from typing import Any

# Module of LAVIS -> modules that only its functions use.
LATER = {
    "lavis.common.dist_utils": ("timm.models.hub",),
    "lavis.common.utils": ("pandas", "torchvision.datasets.utils"),
}


class Later:
    """A module, or with `name` an object in it, that is imported at its first use."""

    def __init__(self, module: str, name: str | None = None):
        self.__dict__.update(_module=module, _name=name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._found(), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._found()(*args, **kwargs)

    def _found(self) -> Any:
        module = importlib.import_module(self._module)
        return module if self._name is None else getattr(module, self._name)


def import_later(importer: str, name: str, fromlist: Any) -> Any:
    """What an import statement of `importer` gets in place of a module of `LATER`; None if it is imported now."""
    if name not in LATER.get(importer, ()) or name in sys.modules:
        return None
    if fromlist:
        return SimpleNamespace(**{one: Later(name, one) for one in fromlist})
    # `import a.b as c` asks a for b.
    found: Any = Later(name)
    for part in reversed(name.split(".")[1:]):
        found = SimpleNamespace(**{part: found})
    return found
