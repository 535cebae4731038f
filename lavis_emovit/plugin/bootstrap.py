"""Start-up hook: waits for the first `import lavis` and passes it to `loading`.

`lavis_emovit.pth` imports this module at every start of Python. It therefore needs only `sys` and `os.environ`, costs
about a millisecond and never raises. The environment variable `LAVIS_PLUGINS=0` switches it off.
"""

from __future__ import annotations

import os
import sys

SWITCH = "LAVIS_PLUGINS"
SWITCHED_OFF = ("0", "off", "no", "false")


class LavisFinder:
    """Meta-path finder that finds LAVIS through the other finders and wraps its loaders."""

    def find_spec(self, name, path=None, target=None):
        """The real spec of `lavis` or one of its modules, with our loader around its own; None for any other name."""
        if name != "lavis" and not name.startswith("lavis."):
            return None
        try:
            spec = self._find_elsewhere(name, path, target)
            if spec is None or spec.loader is None:
                return spec
            from lavis_emovit.plugin import loading

            return loading.wrap(spec)
        except Exception:  # LAVIS must stay importable, even if only half of this package is installed
            return None

    def _find_elsewhere(self, name, path, target):
        for finder in list(sys.meta_path):
            find = None if isinstance(finder, LavisFinder) else getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find else None
            if spec is not None:
                return spec
        return None


def switched_off() -> bool:
    """Whether the environment switches the plugin off."""
    return os.environ.get(SWITCH, "").strip().lower() in SWITCHED_OFF


def install() -> bool:
    """Put the finder first, once a process. False if the environment switches it off."""
    if switched_off():
        return False
    if not any(isinstance(finder, LavisFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, LavisFinder())
    return True
