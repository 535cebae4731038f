"""The `model:` node of the small real model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lavis_emovit.models.instructblip.settings import QFormerSettings


class ModelSettings(QFormerSettings):
    """How the small model is frozen and used; `pretrained` is `packages`, or a folder that was built from them."""

    pretrained: str = "packages"
    # Weight of a loss that lets query tokens read as the first words of the answer. Its gradient does not pass through
    # the language model, so it teaches the Q-Former much faster. 0: the loss of the answers alone.
    reading_loss: float = Field(0.1, ge=0)
    grad_checkpoint_parts: tuple[Literal["qformer", "language_model"], ...] = ("language_model",)
