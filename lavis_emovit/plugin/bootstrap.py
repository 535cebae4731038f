"""Start-up hook: waits for the first `import lavis` and hands over to `loading`.

`lavis_emovit.pth` imports this module whenever a Python starts, so it needs nothing but `sys` and `os.environ`, costs
about a millisecond and never raises. The environment variable `LAVIS_PLUGINS=0` switches it off.
"""

from __future__ import annotations

import os
import sys

SWITCH = "LAVIS_PLUGINS"
SWITCHED_OFF = ("0", "off", "no", "false")


class LavisFinder:
    """Meta-path finder that finds `lavis` where the other finders find it, and wraps its loader."""

    def find_spec(self, name, path=None, target=None):
        """The real spec of `lavis` with a loader that activates the plugins after the load; None for any other name."""
        if name != "lavis":
            return None
        try:
            spec = self._real_spec(name, path, target)
            if spec is None or spec.loader is None:
                return spec
            from lavis_emovit.plugin.loading import PluginLoader

            spec.loader = PluginLoader(spec.loader)
            return spec
        except Exception:  # LAVIS must be importable without us, whatever is left of this package
            return None

    def _real_spec(self, name, path, target):
        for finder in list(sys.meta_path):
            find = None if isinstance(finder, LavisFinder) else getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find else None
            if spec is not None:
                return spec
        return None


def switched_off() -> bool:
    """Whether the environment says that LAVIS is to be left alone."""
    return os.environ.get(SWITCH, "").strip().lower() in SWITCHED_OFF


def install() -> bool:
    """Put the finder in front, once a process. False where the environment switched it off."""
    if switched_off():
        return False
    if not any(isinstance(finder, LavisFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, LavisFinder())
    return True
