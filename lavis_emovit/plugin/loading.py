"""What happens at the first `import lavis`: shims, the load itself, grafted modules, plugins, optional `model_type`."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from lavis_emovit.plugin.lazy import LazyLavis, list_on_first_use, loading_window
from lavis_emovit.plugin.wrapped_loader import WrappedLoader

logger = logging.getLogger(__name__)

GRAFTS = Path(__file__).resolve().parents[1] / "grafts"
MODELS = "lavis.models"
BUILDERS = "lavis.datasets.builders"

# What failed in this process and was repaired, for `emovit doctor`.
failures: list[str] = []
# LAVIS if it is loaded piece by piece; None if it is not loaded, or all at once.
lazy: LazyLavis | None = None


def wrap(spec: ModuleSpec) -> ModuleSpec:
    """Put our loader around that of LAVIS or one of its modules."""
    if spec.name == "lavis":
        spec.loader = WrappedLoader(spec.loader, _load_lavis)  # type: ignore[assignment]
    elif lazy is not None and Path(spec.origin or "").parent != GRAFTS:
        spec.loader = WrappedLoader(spec.loader, _load_member)  # type: ignore[assignment]
    return spec


def _load_lavis(package: ModuleType, loader: Any) -> None:
    from lavis_emovit.plugin import compat

    global lazy
    graft(package)
    was_loaded = lazy is not None and lazy.package is package
    lazy = None
    compat.install(_report)
    try:
        lazy = LazyLavis(package, loader, loaded=_loaded, settled=_load_plugins, report=_report)
        lazy.import_namespaces(package.__name__)
    except Exception as error:
        lazy = None
        _report("loading LAVIS on demand", error)
        with loading_window():
            loader.exec_module(package)
        activate_on(package)
        return
    if was_loaded:  # a reload runs the code again
        lazy.load()


def _load_member(module: ModuleType, loader: Any) -> None:
    from lavis_emovit.plugin import families

    if lazy is None:
        loader.exec_module(module)
    else:
        lazy.load_member(module, loader)
    _guarded(f"adapting {module.__name__} to transformers", lambda: families.mend(module))


def _loaded(module: ModuleType) -> None:
    if module.__name__ == MODELS:
        _make_model_type_optional()


def _load_plugins(*, third_party: bool = True) -> None:
    from lavis_emovit.plugin import entry_points

    _guarded("loading the plugins", lambda: entry_points.load_all(third_party=third_party))


def import_everything() -> dict[str, Exception]:
    """Import every module that LAVIS imports by itself, and every module that registers a class of ours.

    Returns module -> error of its import; of modules that fail for the same reason, only the first.
    """
    from lavis_emovit.registered import registered_names

    failures = lazy.load_everything() if lazy is not None else {}
    for modules in registered_names(custom=False).values():
        for module in modules.values():
            try:
                importlib.import_module(module)
            except Exception as error:
                failures[module] = error
    reasons = {str(error): module for module, error in reversed(failures.items())}
    return {module: error for module, error in failures.items() if reasons[str(error)] == module}


def load_with_shims(load: Callable[[], Any]) -> None:
    """Call `load`, which loads all of LAVIS, with everything that LAVIS 1.0.2 misses on current packages."""
    from lavis_emovit.plugin import compat, families

    compat.install(_report)
    with loading_window():
        load()
    _guarded("adapting LAVIS's models to transformers", families.mend_all)


def activate_on(lavis: ModuleType, *, third_party: bool = True) -> None:
    """Load the plugins and what `import lavis` postponed; LAVIS may have been loaded at once, without the hook."""
    if lazy is not None and lazy.package is lavis:
        lazy.load()
        return
    _guarded("adding lavis.train and lavis.evaluate", lambda: graft(lavis))
    _load_plugins(third_party=third_party)
    _make_model_type_optional()
    for name, zoo in ((MODELS, "model_zoo"), (BUILDERS, "dataset_zoo")):
        if name in sys.modules:
            _guarded(f"listing what is new in {zoo}", partial(list_on_first_use, getattr(sys.modules[name], zoo)))


def _make_model_type_optional() -> None:
    from lavis_emovit.plugin import model_type

    _guarded("making model_type optional", lambda: model_type.make_optional(sys.modules[MODELS]))


def graft(lavis: ModuleType) -> None:
    """Let Python look for modules of `lavis` in our folder too, after LAVIS's own: what LAVIS has is never replaced."""
    if str(GRAFTS) not in list(lavis.__path__):
        lavis.__path__.append(str(GRAFTS))


def _guarded(what: str, step: Callable[[], Any]) -> None:
    """Run one step; its failure is reported and leaves LAVIS usable without it."""
    try:
        step()
    except Exception as error:
        _report(what, error)


def _report(what: str, error: Exception) -> None:
    failures.append(f"{what}: {type(error).__name__}: {error}")
    logger.error("lavis-emovit: %s failed: %s: %s", what, type(error).__name__, error)
    logger.debug("", exc_info=error)
