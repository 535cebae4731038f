"""EmoVIT on InstructBLIP's Flan-T5-XL."""

from __future__ import annotations

from lavis.common.registry import registry

from lavis_emovit.models.instructblip.model import EmoVIT
from lavis_emovit.paths import config_root


@registry.register_model("emovit_flant5xl")
class EmoVITFlanT5XL(EmoVIT):
    """EmoVIT on InstructBLIP's Flan-T5-XL; see `EmoVIT` for the interface."""

    DEFAULT_MODEL_TYPE = "flant5xl"
    PRETRAINED_MODEL_CONFIG_DICT = {"flant5xl": str(config_root() / "models" / "emovit" / "emovit_flant5xl.yaml")}  # noqa: RUF012
