"""LAVIS dataset `emoset`: EmoSet-118K, eight emotions with visual attributes."""

from __future__ import annotations

from lavis.common.registry import registry

from lavis_emovit.datasets.builders.base import EmotionDatasetBuilder
from lavis_emovit.paths import config_root


@registry.register_builder("emoset")
class EmosetBuilder(EmotionDatasetBuilder):
    """EmoSet in its published layout (Yang et al., ICCV 2023)."""

    dataset_name = "emoset"
    DATASET_CONFIG_DICT = {"default": str(config_root() / "datasets" / "emoset" / "defaults.yaml")}  # noqa: RUF012
