"""The modules that register our classes in LAVIS, as one visible list."""

from __future__ import annotations

import importlib
import logging

logger = logging.getLogger(__name__)

# Importing one of these registers the class in it. Order does not matter.
REGISTERING_MODULES = (
    "lavis_emovit.models.emovit_vicuna7b",
    "lavis_emovit.models.emovit_vicuna13b",
    "lavis_emovit.models.emovit_flant5xl",
    "lavis_emovit.models.emovit_flant5xxl",
    "lavis_emovit.models.emovit_tiny",
    "lavis_emovit.processors.emovit_image_train",
    "lavis_emovit.processors.emovit_image_eval",
    "lavis_emovit.processors.emovit_text",
    "lavis_emovit.datasets.builders.emoset_sketch",
    "lavis_emovit.datasets.builders.emoset",
    "lavis_emovit.datasets.builders.london_faces",
    "lavis_emovit.datasets.builders.declared",
    "lavis_emovit.tasks.emotion_instruction",
    "lavis_emovit.runners.runner_emovit",
)


def register() -> None:
    """Register all builders, processors, tasks, runners and models. Calling it again does nothing more.

    Raises:
        ImportError: modules that could not be imported, each with its reason; all others are registered.
    """
    failures: dict[str, list[str]] = {}
    for module in REGISTERING_MODULES:
        try:
            importlib.import_module(module)
        except Exception as error:
            logger.debug("%s", module, exc_info=True)
            failures.setdefault(f"{type(error).__name__}: {error}", []).append(module)
    if failures:
        raise ImportError("; ".join(f"{reason} (in {', '.join(modules)})" for reason, modules in failures.items()))
