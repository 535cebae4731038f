"""LAVIS datasets that a YAML file declares: one builder is registered for every file of the catalogue.

`lavis_configs/datasets/<name>/defaults.yaml` makes the dataset `<name>`, and so does such a file in a folder that
`EMOVIT_DATASETS` names. A dataset with a builder class of its own keeps it.
"""

from __future__ import annotations

import logging

from lavis.common.registry import registry

from lavis_emovit.datasets.builders.base import EmotionDatasetBuilder
from lavis_emovit.errors import DataError
from lavis_emovit.sources.catalogue import config_files

logger = logging.getLogger(__name__)

# Datasets whose builder classes stand in files of this folder.
BUILDERS_OF_THEIR_OWN = ("emoset", "emoset_sketch", "london_faces")


def register_declared() -> list[str]:
    """Register a builder for every declared dataset that has none; the files themselves are read when one is used.

    Returns:
        the names that were registered.
    """
    try:
        files = config_files()
    except DataError as error:
        # A wrong EMOVIT_DATASETS must not take LAVIS away from who doesn't use it; `emovit data` refuses it.
        logger.warning("datasets of one's own are not registered: %s", error)
        return []
    made = []
    for name, path in files.items():
        if name in BUILDERS_OF_THEIR_OWN or registry.get_builder_class(name) is not None:
            continue
        members = {
            "__doc__": f"Dataset `{name}`, declared in {path.parent.name}/{path.name}.",
            "__module__": __name__,
            "dataset_name": name,
            "DATASET_CONFIG_DICT": {"default": str(path)},
        }
        class_name = "".join(part.capitalize() for part in name.split("_")) + "Builder"
        registry.register_builder(name)(type(class_name, (EmotionDatasetBuilder,), members))
        made.append(name)
    return made


register_declared()
