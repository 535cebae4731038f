"""Stand-ins for packages that LAVIS imports when it is loaded and that this machine lacks.

LAVIS 1.0.2 imports a video reader, a language parser and caption metrics at its top, so one missing wheel makes all of
it unusable. While LAVIS loads, an import statement in one of its own modules that fails for a package of `OPTIONAL`
gets a stand-in, which raises an ImportError that names the package at its first use. Nothing is put into
`sys.modules`: code outside LAVIS that looks whether such a package is there still finds that it is not.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Package -> what LAVIS needs it for, and the name to install it by.
OPTIONAL: dict[str, tuple[str, str]] = {
    "cv2": ("augmentation of images and videos", "opencv-python-headless"),
    "decord": ("reading videos", "decord"),
    "fairscale": ("gradient checkpointing in its own vision transformers", "fairscale"),
    "pycocoevalcap": ("caption metrics", "pycocoevalcap"),
    "pycocotools": ("caption metrics", "pycocotools"),
    "skimage": ("Grad-CAM pictures", "scikit-image"),
    "spacy": ("Img2Prompt-VQA and the lemmatizer of BLIP-2 T5", "spacy"),
}

_open_windows = 0
_missing: dict[str, Exception] = {}


class StandIn:
    """Takes the place of a missing module, class or function until it is used.

    While LAVIS loads, members can be taken, called, subscripted and inherited from, as module-level code does. After
    that, each of these is a use.
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
    """The error of the first use: what is missing, what LAVIS needs it for and what installs it."""
    purpose, install_name = OPTIONAL[package]
    reason = _missing.get(package)
    absent = isinstance(reason, ModuleNotFoundError) and reason.name == package
    state = "is not installed" if absent or reason is None else f"cannot be imported ({reason})"
    return ImportError(
        f"{path}: the package '{package}' {state}. LAVIS uses it for {purpose}; EmoVIT does not need it. "
        f"To have it: pip install {install_name}",
        name=package,
    )


def missing_packages() -> dict[str, str]:
    """Packages that a stand-in replaced in this process, each with the reason."""
    return {name: f"{type(reason).__name__}: {reason}" for name, reason in _missing.items()}


@contextmanager
def stand_ins(importer: str = "lavis") -> Iterator[None]:
    """While open, failing imports of `OPTIONAL` packages in modules of `importer` give stand-ins.

    The window is the load of LAVIS only: a function that imports such a package later gets Python's own error.
    """
    global _open_windows
    real_import = builtins.__import__

    def tolerant_import(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        try:
            return real_import(name, globals, locals, fromlist, level)
        except Exception as reason:
            package = name.partition(".")[0]
            asking = str((globals or {}).get("__name__", ""))
            if level or package not in OPTIONAL or not (asking == importer or asking.startswith(f"{importer}.")):
                raise
            _missing.setdefault(package, reason)
            return StandIn(package, name if fromlist else package)

    builtins.__import__ = tolerant_import
    _open_windows += 1
    try:
        yield
    finally:
        _open_windows -= 1
        if builtins.__import__ is tolerant_import:  # somebody else's later replacement stays
            builtins.__import__ = real_import
