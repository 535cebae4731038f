"""LAVIS dataset `emoset_sketch`: small drawn scenes in EmoSet's classes, made on this machine at first use."""

from __future__ import annotations

from lavis.common.registry import registry

from lavis_emovit.datasets.builders.base import EmotionDatasetBuilder
from lavis_emovit.paths import config_root


@registry.register_builder("emoset_sketch")
class EmosetSketchBuilder(EmotionDatasetBuilder):
    """The sample set that needs nothing from outside."""

    dataset_name = "emoset_sketch"
    DATASET_CONFIG_DICT = {"default": str(config_root() / "datasets" / "emoset_sketch" / "defaults.yaml")}  # noqa: RUF012
