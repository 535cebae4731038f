"""Stand-ins for missing packages that LAVIS imports at the top of its modules.

LAVIS 1.0.2 imports a video reader, a language parser and caption metrics there, so one missing package makes its
modules unusable. While a module of LAVIS runs, a failing import of a package in `OPTIONAL` gives a stand-in instead,
which raises an ImportError with the package's name when it is used. Nothing is added to `sys.modules`, so code outside
LAVIS that checks for such a package still finds that it is missing.
"""

from __future__ import annotations

import builtins
import importlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lavis_emovit.plugin.later import import_later

# Package -> what LAVIS needs it for, and its name for pip.
OPTIONAL: dict[str, tuple[str, str]] = {
    "cv2": ("augmentation of images and videos", "opencv-python-headless"),
    "decord": ("reading videos", "decord"),
    "fairscale": ("gradient checkpointing in its own vision transformers", "fairscale"),
    "pycocoevalcap": ("caption metrics", "pycocoevalcap"),
    "pycocotools": ("caption metrics", "pycocotools"),
    "skimage": ("Grad-CAM images", "scikit-image"),
    "spacy": ("Img2Prompt-VQA and the lemmatizer of BLIP-2 T5", "spacy"),
}

_lock = threading.Lock()
_open_windows = 0
_replaced_import: Callable[..., Any] | None = None
_missing: dict[str, Exception] = {}


class StandIn:
    """Replaces a missing module, class or function until it is used.

    While LAVIS loads, its attributes can be read, called, subscripted and inherited from, as module-level code does.
    After that, each of these raises an ImportError.
    """

    def __init__(self, package: str, name: str):
        self.__dict__.update(_package=package, _path=name, __name__=name, __qualname__=name, __doc__=None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return self._derive(f"{self._path}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._derive(f"{self._path}()")

    def __getitem__(self, key: Any) -> Any:
        return self._derive(f"{self._path}[]")

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        self._derive(self._path)
        package, path = self._package, self._path

        def refuse(cls: type, *args: Any, **kwargs: Any) -> Any:
            raise missing_package_error(package, path)

        return (type(self._path.rpartition(".")[2], (), {"__new__": refuse}),)

    def __instancecheck__(self, instance: Any) -> bool:
        return False

    def __repr__(self) -> str:
        return f"<stand-in for {self._path}, which is not installed>"

    def _derive(self, path: str) -> StandIn:
        if not _open_windows:
            raise missing_package_error(self._package, self._path)
        return StandIn(self._package, path)


def missing_package_error(package: str, path: str) -> ImportError:
    """The error of a use: which package is missing, what LAVIS needs it for and how to install it."""
    purpose, install_name = OPTIONAL[package]
    reason = _missing.get(package)
    absent = isinstance(reason, ModuleNotFoundError) and reason.name == package
    state = "is not installed" if absent or reason is None else f"cannot be imported ({reason})"
    return ImportError(
        f"{path}: the package '{package}' {state}. LAVIS uses it for {purpose}; EmoVIT does not need it. "
        f"Install it with: pip install {install_name}",
        name=package,
    )


def missing_packages() -> dict[str, str]:
    """Package -> reason, for the packages that stand-ins replaced in this process."""
    return {name: f"{type(reason).__name__}: {reason}" for name, reason in _missing.items()}


@contextmanager
def stand_ins() -> Iterator[None]:
    """While open, failing imports of `OPTIONAL` packages in LAVIS's modules give stand-ins.

    It is open only while a module of LAVIS runs: a function that imports such a package later gets Python's own error.
    """
    global _open_windows, _replaced_import
    with _lock:
        _open_windows += 1
        if _replaced_import is None:
            _replaced_import = builtins.__import__
            builtins.__import__ = _tolerant_import
    try:
        yield
    finally:
        with _lock:
            _open_windows -= 1
            # Another package may have replaced it in the meantime and call ours.
            if not _open_windows and builtins.__import__ is _tolerant_import:
                builtins.__import__, _replaced_import = _replaced_import, None


def _tolerant_import(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
    real_import = _replaced_import or importlib.__import__
    importer = str((globals or {}).get("__name__", ""))
    if (later := import_later(importer, name, fromlist)) is not None:
        return later
    try:
        return real_import(name, globals, locals, fromlist, level)
    except Exception as reason:
        package = name.partition(".")[0]
        is_open = _open_windows and not level and package in OPTIONAL
        if not is_open or importer.partition(".")[0] != "lavis":
            raise
        _missing.setdefault(package, reason)
        return StandIn(package, name if fromlist else package)
