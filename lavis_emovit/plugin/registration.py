"""Registers our classes in LAVIS: their names at once; a module is imported when its class is first used."""

from __future__ import annotations

import logging
import sys

from lavis_emovit import registered
from lavis_emovit.errors import DataError
from lavis_emovit.plugin import lazy_names

logger = logging.getLogger(__name__)


def register() -> None:
    """Declare all builders, processors, tasks, runners and models. Calling it again adds only new custom datasets."""
    from lavis.common.registry import registry

    try:
        names = registered.registered_names()
    except DataError as error:
        # `emovit data` refuses a wrong EMOVIT_DATASETS; LAVIS must stay usable with it.
        logger.warning("custom datasets are not registered: %s", error)
        names = registered.registered_names(custom=False)
    lazy_names.declare(registry, names)
    declared = sys.modules.get(registered.DECLARED_DATASETS)
    # While that module is imported, it has no such function yet, and registers its datasets itself.
    if declared is not None and hasattr(declared, "register_declared"):
        declared.register_declared()
