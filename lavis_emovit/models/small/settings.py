"""The `model:` node of the small real model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lavis_emovit.models.instructblip.settings import QFormerSettings


class ModelSettings(QFormerSettings):
    """How the small model is frozen and used; `pretrained` is `packages`, or a folder that was built from them."""

    pretrained: str = "packages"
    # Weight of a loss that lets query tokens read as the first words of the answer. Its gradient does not pass through
    # the language model, so it teaches the Q-Former much faster. 0: the loss of the answers alone.
    reading_loss: float = Field(0.1, ge=0)
    # In the first epochs the Q-Former learns from that loss alone, and the language model does not run.
    reading_epochs: int = Field(0, ge=0)
    grad_checkpoint_parts: tuple[Literal["qformer", "language_model"], ...] = ("language_model",)

    @model_validator(mode="after")
    def _check_reading(self) -> ModelSettings:
        if self.reading_epochs and not self.reading_loss:
            raise ValueError(
                f"reading_epochs is {self.reading_epochs}, and reading_loss is 0: nothing would be learned"
            )
        return self
