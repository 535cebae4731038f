"""EmoVIT on the tiny weights that ship with the package."""

from __future__ import annotations

from lavis.common.registry import registry

from lavis_emovit.models.instructblip.model import EmoVIT
from lavis_emovit.paths import config_root


@registry.register_model("emovit_tiny")
class EmoVITTiny(EmoVIT):
    """EmoVIT on the tiny weights that ship with the package; see `EmoVIT` for the interface."""

    DEFAULT_MODEL_TYPE = "tiny"
    PRETRAINED_MODEL_CONFIG_DICT = {"tiny": str(config_root() / "models" / "emovit" / "emovit_tiny.yaml")}  # noqa: RUF012
