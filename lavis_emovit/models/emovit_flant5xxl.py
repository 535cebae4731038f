"""EmoVIT on InstructBLIP's Flan-T5-XXL."""

from __future__ import annotations

from lavis.common.registry import registry

from lavis_emovit.models.instructblip.model import EmoVIT
from lavis_emovit.paths import config_root


@registry.register_model("emovit_flant5xxl")
class EmoVITFlanT5XXL(EmoVIT):
    """EmoVIT on InstructBLIP's Flan-T5-XXL; see `EmoVIT` for the interface."""

    DEFAULT_MODEL_TYPE = "flant5xxl"
    PRETRAINED_MODEL_CONFIG_DICT = {"flant5xxl": str(config_root() / "models" / "emovit" / "emovit_flant5xxl.yaml")}  # noqa: RUF012
