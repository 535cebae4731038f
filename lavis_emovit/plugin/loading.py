"""What happens at the first `import lavis`: shims, the real load, grafted modules, plugins, optional `model_type`."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

logger = logging.getLogger(__name__)

GRAFTS = Path(__file__).resolve().parents[1] / "grafts"

# What activation did in this process, for `emovit doctor`.
report: dict[str, Any] = {"shims": [], "failures": []}


class PluginLoader:
    """Stands before LAVIS's own loader until LAVIS is loaded, then gives the place back to it."""

    def __init__(self, loader: Any):
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: Any) -> ModuleType | None:
        """LAVIS's own loader creates the module."""
        create = getattr(self._loader, "create_module", None)
        return create(spec) if create else None

    def exec_module(self, module: ModuleType) -> None:
        """Load LAVIS with shims and stand-ins around it, then activate the plugins on it."""
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        load_with_shims(lambda: self._loader.exec_module(module))
        activate_on(module)


def load_with_shims(load: Callable[[], Any]) -> None:
    """Call `load`, which loads LAVIS, with what LAVIS 1.0.2 misses on current packages put back."""
    from lavis_emovit.plugin import compat
    from lavis_emovit.plugin.stand_ins import stand_ins

    report["shims"] = _guarded("putting back names that transformers dropped", compat.apply) or report["shims"]
    with warnings.catch_warnings():
        # Old names of timm and torch, escapes that newer Pythons want doubled: no user of LAVIS could change them.
        for category in (FutureWarning, DeprecationWarning, SyntaxWarning):
            warnings.filterwarnings("ignore", category=category)
        with stand_ins():
            load()


def activate_on(lavis: ModuleType, *, third_party: bool = True) -> None:
    """Graft our modules, load the plugins and make `model_type` optional, on a LAVIS that is loaded."""
    from lavis_emovit.plugin import entry_points, model_type

    _guarded("adding lavis.train and lavis.evaluate", lambda: graft(lavis))
    _guarded("loading the plugins", lambda: entry_points.load_all(third_party=third_party))
    models = sys.modules["lavis.models"]
    _guarded("making model_type optional", lambda: model_type.make_optional(models))
    _guarded("listing the new models in model_zoo", lambda: models.model_zoo.__init__())


def graft(lavis: ModuleType) -> None:
    """Let Python look for modules of `lavis` in our folder too, after LAVIS's own: what LAVIS has is never replaced."""
    if str(GRAFTS) not in list(lavis.__path__):
        lavis.__path__.append(str(GRAFTS))


def _guarded(what: str, step: Callable[[], Any]) -> Any:
    """Run one step; its failure is reported and leaves LAVIS usable without it."""
    try:
        return step()
    except Exception as error:
        report["failures"].append(f"{what}: {type(error).__name__}: {error}")
        logger.error("lavis-emovit: %s failed: %s: %s", what, type(error).__name__, error)
        logger.debug("", exc_info=True)
        return None
