"""LAVIS in this process, loaded piece by piece.

`import lavis` runs none of LAVIS's code. LAVIS's own `__init__.py` runs when one of its names or modules is used for
the first time. The packages that it star-imports (`lavis.models`, `lavis.tasks`, ...) then import a family's module
when one of its names is used, and the registry does so when one of its classes is requested.
"""

from __future__ import annotations

import importlib
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from lavis_emovit.plugin import lavis_source, lazy_names
from lavis_emovit.plugin.stand_ins import stand_ins

REGISTRY = "lavis.common.registry"


@contextmanager
def loading_window() -> Iterator[None]:
    """While open, LAVIS's modules load without warnings, and with stand-ins for missing optional packages."""
    with warnings.catch_warnings(), stand_ins():
        # About old names in timm and torch and about invalid escapes: no user of LAVIS can fix their causes.
        for category in (FutureWarning, DeprecationWarning, SyntaxWarning):
            warnings.filterwarnings("ignore", category=category)
        yield


class LazyLavis:
    """Loads LAVIS's packages and families in this process on demand; ValueError if its source cannot be read.

    Args:
        package: the module `lavis`, before its code has run.
        loader: its own loader.
        loaded: called with each package that LAVIS star-imports, after it has run.
        settled: called once, at the end of the first import from LAVIS.
        report: called with a step that failed and its error, if there is another way to load LAVIS.
    """

    def __init__(
        self,
        package: ModuleType,
        loader: Any,
        *,
        loaded: Callable[[ModuleType], None],
        settled: Callable[[], None],
        report: Callable[[str, Exception], None],
    ):
        self.package = package
        self.catalogue = lavis_source.read_catalogue(package.__name__, Path(package.__path__[0]))
        self._loaded = loaded
        self._settled = settled
        self._report = report
        self._body = self._read_body(package, loader)
        self._state = "new"
        self._is_settled = False
        self._lock = threading.RLock()
        self._thread = threading.local()
        self._add_attributes(package, _Attributes(self, package, self._body))

    def load_member(self, module: ModuleType, loader: Any) -> None:
        """Run a module of LAVIS. The packages that LAVIS star-imports run without the imports of their families."""
        with self._inside():
            if module.__name__ != REGISTRY:
                self._run_body()
            attributes = _Attributes(self, module)
            if module.__name__ in self._body.stars:
                attributes = self._run_lazily(module, loader)
                self._loaded(module)
            else:
                loader.exec_module(module)
            if hasattr(module, "__path__"):
                self._add_attributes(module, attributes)
                self.import_namespaces(module.__name__)
            if module.__name__ == REGISTRY:
                lazy_names.declare(module.registry, self.catalogue.names)
        self._settle()

    def load(self) -> None:
        """Run LAVIS's own `__init__.py` and the plugins, unless that is done."""
        if self._is_settled and self._state == "done":
            return
        with self._inside():
            self._run_body()
        self._settle()

    def load_everything(self) -> dict[str, Exception]:
        """Import every module that LAVIS itself imports; module -> error for those that fail."""
        self.load()
        failures = {}
        for name in self.catalogue.modules:
            try:
                importlib.import_module(name)
            except Exception as error:
                failures[name] = error
        return failures

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """Count how deep imports from LAVIS are nested in this thread."""
        depth = getattr(self._thread, "depth", 0)
        self._thread.depth = depth + 1
        try:
            if depth:
                yield
            else:
                with loading_window():
                    yield
        finally:
            self._thread.depth = depth

    def _run_body(self) -> None:
        """Run LAVIS's own `__init__.py`, once."""
        if self._state == "done":
            return
        for name in (REGISTRY, *self._body.imports):
            importlib.import_module(name)  # before the lock, which must not be held while waiting for an import
        with self._lock:
            if self._state != "new":
                return
            self._state = "running"
            try:
                exec(self._body.code, self.package.__dict__)
                lazy_names.declare(sys.modules[REGISTRY].registry, self.catalogue.names)
            except BaseException:
                self._state = "new"
                # As after any failed import: the next one starts again.
                sys.modules.pop(self.package.__name__, None)
                raise
            self._state = "done"

    def import_namespaces(self, parent: str) -> None:
        """Import the folders without `__init__.py` in a package; no loader of ours would add their attributes."""
        for name, path in self.catalogue.modules.items():
            if path.is_dir() and name.rpartition(".")[0] == parent:
                module = importlib.import_module(name)
                self._add_attributes(module, _Attributes(self, module))
                self.import_namespaces(name)

    def _settle(self) -> None:
        """Load the plugins at the end of the outermost import, once."""
        if getattr(self._thread, "depth", 0) or self._is_settled:
            return
        if self._state != "done":
            self.load()
            return
        self._is_settled = True
        self._settled()

    def _run_lazily(self, module: ModuleType, loader: Any) -> _Attributes:
        before = dict(module.__dict__)
        try:
            body = self._read_body(module, loader)
            attributes = _Attributes(self, module, body)
            exec(body.code, module.__dict__)
        except Exception as error:
            # If LAVIS cannot load the package in its own way either, its error is the one to raise.
            module.__dict__.clear()
            module.__dict__.update(before)
            loader.exec_module(module)
            self._report(f"loading the families of {module.__name__} on demand", error)
            return _Attributes(self, module)
        for name in body.zoos:
            module.__dict__[name].__getattr__ = _list_now
        return attributes

    @staticmethod
    def _read_body(module: ModuleType, loader: Any) -> lavis_source.LazyBody:
        source = loader.get_source(module.__name__)
        if source is None:
            raise ValueError(f"{module.__name__} has no source")
        return lavis_source.read_body(module.__name__, source, str(module.__file__))

    @staticmethod
    def _add_attributes(module: ModuleType, attributes: _Attributes) -> None:
        """Give a package the names that LAVIS would import into it; they are loaded on first access."""
        if isinstance(getattr(module.__dict__.get("__getattr__"), "__self__", attributes), _Attributes):
            module.__getattr__ = attributes.load  # type: ignore[method-assign]
            module.__dir__ = attributes.listed  # type: ignore[method-assign]


class _Attributes:
    """The names of one package that are loaded on first access; ValueError if those of a star import are unreadable.

    `body` is the code that the package ran, None if it ran all of its own.
    """

    def __init__(self, lavis: LazyLavis, module: ModuleType, body: lavis_source.LazyBody | None = None):
        self._lavis = lavis
        self._module = module
        self._deferred = dict(body.deferred) if body is not None else {}
        for star in reversed(body.stars if body is not None else ()):
            for name in lavis_source.exported_names(lavis.catalogue.modules[star].read_text(encoding="utf-8")):
                self._deferred.setdefault(name, (star, name))
        self._members = [
            name.rpartition(".")[2] for name in lavis.catalogue.modules if name.rpartition(".")[0] == module.__name__
        ]

    def load(self, name: str) -> Any:
        """The package's `__getattr__`."""
        if name == "__all__":  # requested by a star import
            for listed in self.listed():
                getattr(self._module, listed)
        if not (name.startswith("__") and name.endswith("__")):
            self._lavis.load()
            namespace = self._module.__dict__
            if name not in namespace and name in self._deferred:
                origin, original = self._deferred[name]
                found = getattr(importlib.import_module(origin), original)
                namespace.setdefault(name, found)
            elif name not in namespace and name in self._members:
                namespace.setdefault(name, importlib.import_module(f"{self._module.__name__}.{name}"))
            if name in namespace:
                return namespace[name]
        raise AttributeError(f"module '{self._module.__name__}' has no attribute '{name}'")

    def listed(self) -> list[str]:
        """The package's `__dir__`."""
        return sorted({*self._module.__dict__, *self._deferred, *self._members})


def list_on_first_use(zoo: Any) -> None:
    """Let `model_zoo` list the registered classes when it is used next."""
    vars(zoo).clear()
    type(zoo).__getattr__ = _list_now


def _list_now(zoo: Any, name: str) -> Any:
    if name.startswith("__") or vars(zoo):
        raise AttributeError(name)
    type(zoo).__init__(zoo)
    return getattr(zoo, name)
