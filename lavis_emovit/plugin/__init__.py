"""How LAVIS finds EmoVIT: a start-up hook, shims for LAVIS 1.0.2, and the entry points of the group `lavis.plugins`."""

from __future__ import annotations

# LAVIS 1.0.2 pins old versions of its requirements, which exclude all current ones.
LAVIS_LINE = "pip install --no-deps salesforce-lavis==1.0.2"


def activate() -> None:
    """Make LAVIS importable with our classes registered, even if the start-up hook is missing or switched off.

    With `LAVIS_PLUGINS=0` in the environment LAVIS is loaded at once, with our own plugin only.
    """
    import importlib
    import sys
    from importlib.util import find_spec

    from lavis_emovit.errors import LavisMissingError
    from lavis_emovit.plugin import bootstrap, loading

    hooked = bootstrap.install()
    if "lavis" not in sys.modules:
        if find_spec("lavis") is None:
            raise LavisMissingError(f"LAVIS is not installed. Install it without its old pins: {LAVIS_LINE}")
        if hooked:
            importlib.import_module("lavis")
        else:
            loading.load_with_shims(lambda: importlib.import_module("lavis"))
    loading.activate_on(sys.modules["lavis"], third_party=not bootstrap.switched_off())
