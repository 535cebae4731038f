"""LAVIS datasets that a YAML file declares: one builder for every file of the catalogue.

`lavis_configs/datasets/<name>/defaults.yaml` makes the dataset `<name>`, and so does such a file in a folder that
`EMOVIT_DATASETS` names.
"""

from __future__ import annotations

import logging

from lavis.common.registry import registry

from lavis_emovit.datasets.builders.base import EmotionDatasetBuilder
from lavis_emovit.errors import DataError
from lavis_emovit.registered import dataset_files

logger = logging.getLogger(__name__)


def register_declared() -> list[str]:
    """Register a builder for every declared dataset that has none, and return the registered names; the files
    themselves are read when one is used. A builder of an earlier call gets the file that now declares its dataset."""
    made = []
    try:
        files = dataset_files()
    except DataError as error:
        # `emovit data` refuses a wrong EMOVIT_DATASETS; LAVIS must stay usable with it.
        logger.warning("custom datasets are not registered: %s", error)
        files = dataset_files(custom=False)
    for name, path in files.items():
        known = registry.get_builder_class(name)
        if known is not None:
            if known.__module__ == __name__:
                known.DATASET_CONFIG_DICT = {"default": str(path)}
            continue
        members = {
            "__doc__": f"Dataset `{name}`, declared in {path.parent.name}/{path.name}.",
            "__module__": __name__,
            "dataset_name": name,
            "DATASET_CONFIG_DICT": {"default": str(path)},
        }
        class_name = "".join(part.capitalize() for part in name.split("_")) + "Builder"
        # A name of this module, so that instances can be pickled.
        globals()[class_name] = type(class_name, (EmotionDatasetBuilder,), members)
        registry.register_builder(name)(globals()[class_name])
        made.append(name)
    return made


register_declared()
