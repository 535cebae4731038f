"""LAVIS dataset `emoset`: EmoSet-118K, eight emotions with visual attributes."""

from __future__ import annotations

from lavis.common.registry import registry

from lavis_emovit.datasets.builders.base import EmotionDatasetBuilder
from lavis_emovit.paths import config_root
from lavis_emovit.sources.emoset import EMOSET_HOMEPAGE


@registry.register_builder("emoset")
class EmosetBuilder(EmotionDatasetBuilder):
    """EmoSet in its published layout (Yang et al., ICCV 2023)."""

    dataset_name = "emoset"
    where_to_get = (
        f"Get EmoSet-118K from its authors ({EMOSET_HOMEPAGE}) and unpack it, so that the folder holds info.json, "
        "train.json, val.json, test.json, annotation/ and image/."
    )
    DATASET_CONFIG_DICT = {"default": str(config_root() / "datasets" / "emoset" / "defaults.yaml")}  # noqa: RUF012
