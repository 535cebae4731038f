"""The `model:` node of the small real model."""

from __future__ import annotations

from typing import Literal

from lavis_emovit.models.instructblip.settings import QFormerSettings


class ModelSettings(QFormerSettings):
    """How the small model is frozen and used; `pretrained` is `packages`, or a folder that was built from them."""

    pretrained: str = "packages"
    grad_checkpoint_parts: tuple[Literal["qformer", "language_model"], ...] = ("language_model",)
