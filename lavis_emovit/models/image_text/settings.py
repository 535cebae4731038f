"""The `model:` node of an image-text model of transformers."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from lavis_emovit.models import settings

TRAINED_PARTS = ("vision_encoder", "projector", "language_model")
Part = Literal["vision_encoder", "projector", "language_model"]


class LoraSettings(settings.LoraSettings):
    """Adapters on any part."""

    parts: tuple[Part, ...] = Field(min_length=1)


class ModelSettings(settings.BaseModelSettings):
    """How an image-text model is loaded, frozen and used.

    Attributes:
        pretrained, revision: folder or hub id, and the revision there. `path` is another name of `pretrained`.
        adapter: folder of an adapter that peft wrote for these weights; it takes the place of `lora` and can be trained
            on.
        template, system, max_side_px, processor: how the model's processor is used, see `emovit_image_text`.
        max_txt_len, max_output_txt_len: most tokens of a question and of an answer.
        share_prefix: read an image once for all of its questions, where the model can.
        scoring_rows_per_pass: rows of a forward pass that scores candidates without a shared beginning.
    """

    TRAINED_PARTS: ClassVar[tuple[str, ...]] = TRAINED_PARTS
    PART_GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "vision": ("vision_encoder",),
        "language": ("language_model",),
        "all": TRAINED_PARTS,
        "none": (),
    }

    revision: str | None = None
    trained_parts: tuple[str, ...] = ("projector",)
    lora: LoraSettings | None = None
    adapter: str | None = None
    grad_checkpoint_parts: tuple[Part, ...] = ("language_model",)
    template: str | None = None
    system: str | None = None
    max_side_px: int = Field(default=1024, ge=32)
    processor: dict[str, Any] = Field(default_factory=dict)
    max_txt_len: int = Field(default=512, ge=1)
    max_output_txt_len: int = Field(default=512, ge=1)
    share_prefix: bool = True
    scoring_rows_per_pass: int = Field(default=8, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _path_is_pretrained(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        given = dict(values)
        place = given.pop("path", None)
        return {**given, "pretrained": place} if place else given

    @model_validator(mode="after")
    def _one_adapter(self) -> ModelSettings:
        if self.adapter is not None and self.lora is not None:
            raise ValueError("model.adapter has its own sizes; remove model.lora")
        return self

    def image_processor(self) -> dict[str, Any]:
        """The node of `emovit_image_text` that reads images for this model."""
        return {
            "name": "emovit_image_text",
            "pretrained": self.pretrained,
            "revision": self.revision,
            "max_side_px": self.max_side_px,
            "template": self.template,
            "system": self.system,
            "options": dict(self.processor),
        }
