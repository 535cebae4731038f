"""LAVIS dataset `london_faces`: 102 people, each with a neutral and a smiling face, split by person."""

from __future__ import annotations

from lavis.common.registry import registry

from lavis_emovit.datasets.builders.base import EmotionDatasetBuilder
from lavis_emovit.paths import config_root


@registry.register_builder("london_faces")
class LondonFacesBuilder(EmotionDatasetBuilder):
    """Face Research Lab London Set (DeBruine and Jones, 2017, CC BY 4.0)."""

    dataset_name = "london_faces"
    DATASET_CONFIG_DICT = {"default": str(config_root() / "datasets" / "london_faces" / "defaults.yaml")}  # noqa: RUF012
