"""Loads the entry points of the group `lavis.plugins` of all installed distributions."""

from __future__ import annotations

import logging
from importlib import metadata

logger = logging.getLogger(__name__)

GROUP = "lavis.plugins"
OUR_ENTRY_POINT = metadata.EntryPoint("emovit", "lavis_emovit.plugin.registration:register", GROUP)

loaded: list[str] = []
broken: dict[str, str] = {}
_seen: set[str] = set()


def load_all(*, ours: bool = True, third_party: bool = True) -> None:
    """Load the plugins that this process has not loaded yet: ours, which needs LAVIS, and those of other distributions.

    An entry point names a function that is called without arguments, or a module whose import registers its classes.
    If one fails, it is reported with the reason and kept in `broken`, and the others are still loaded.
    """
    found = [OUR_ENTRY_POINT]  # named here, so that a checkout works without being installed
    if third_party:
        found += sorted(metadata.entry_points(group=GROUP), key=lambda entry_point: entry_point.name)
    for entry_point in found:
        if entry_point.value not in _seen and (ours or entry_point.value != OUR_ENTRY_POINT.value):
            _seen.add(entry_point.value)
            _load(entry_point)


def _load(entry_point: metadata.EntryPoint) -> None:
    name = entry_point.name
    try:
        plugin = entry_point.load()
        if callable(plugin):
            plugin()
        loaded.append(name)
    except (Exception, SystemExit) as error:
        broken[name] = f"{type(error).__name__}: {error}"
        advice = "Repair or uninstall it; LAVIS_PLUGINS=0 starts LAVIS without plugins."
        logger.error(
            "LAVIS plugin %s (%s) is broken and was skipped: %s. %s", name, entry_point.value, broken[name], advice
        )
        logger.debug("", exc_info=True)
