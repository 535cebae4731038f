"""EmoVIT on InstructBLIP's Vicuna-7B."""

from __future__ import annotations

from lavis.common.registry import registry

from lavis_emovit.models.instructblip.model import EmoVIT
from lavis_emovit.paths import config_root


@registry.register_model("emovit_vicuna7b")
class EmoVITVicuna7B(EmoVIT):
    """EmoVIT on InstructBLIP's Vicuna-7B; see `EmoVIT` for the interface."""

    DEFAULT_MODEL_TYPE = "vicuna7b"
    PRETRAINED_MODEL_CONFIG_DICT = {"vicuna7b": str(config_root() / "models" / "emovit" / "emovit_vicuna7b.yaml")}  # noqa: RUF012
