"""EmoVIT on InstructBLIP's Vicuna-13B."""

from __future__ import annotations

from lavis.common.registry import registry

from lavis_emovit.models.instructblip.model import EmoVIT
from lavis_emovit.paths import config_root


@registry.register_model("emovit_vicuna13b")
class EmoVITVicuna13B(EmoVIT):
    """EmoVIT on InstructBLIP's Vicuna-13B; see `EmoVIT` for the interface."""

    DEFAULT_MODEL_TYPE = "vicuna13b"
    PRETRAINED_MODEL_CONFIG_DICT = {"vicuna13b": str(config_root() / "models" / "emovit" / "emovit_vicuna13b.yaml")}  # noqa: RUF012
