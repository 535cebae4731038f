"""The `model:` node of an InstructBLIP model, and of families that differ from it in their parts only."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from lavis_emovit.models import settings
from lavis_emovit.settings import Settings

TRAINED_PARTS = (
    "qformer",
    "query_tokens",
    "language_projection",
    "vision_layernorm",
    "vision_encoder",
    "language_model",
)
PART_GROUPS = {
    # What the original code trains: everything except the image encoder and the language model.
    "emovit": ("qformer", "query_tokens", "language_projection", "vision_layernorm"),
    "all": TRAINED_PARTS,
    "none": (),
}


class LoraSettings(settings.LoraSettings):
    """Adapters on the Q-Former or the language model."""

    parts: tuple[Literal["qformer", "language_model"], ...] = Field(min_length=1)


class FramePooling(Settings):
    """How the frames of a clip are put in order and pooled, after the Q-Former has read each one.

    Attributes:
        embedding: learned: the query tokens of each frame get an embedding of its number.
        max_frames: the number of embeddings.
        convolution_layers: layers that compare each query token, minus its mean over the clip, with the same one in the
            frames before and after.
        pooling: concatenate: the language model reads the tokens of all frames in a row; mean: their mean.
        seed: of the layers' initial values.
    """

    embedding: Literal["learned", "none"] = "learned"
    max_frames: int = Field(32, ge=1)
    convolution_layers: int = Field(0, ge=0)
    pooling: Literal["concatenate", "mean"] = "concatenate"
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _has_an_effect(self) -> FramePooling:
        if self.embedding == "learned" and self.pooling == "mean" and not self.convolution_layers:
            raise ValueError(
                "with pooling=mean and without convolution layers, the embedding adds the same to all clips; set "
                "convolution_layers to 1 or more, or embedding=none"
            )
        if self.embedding == "none" and self.pooling == "concatenate" and not self.convolution_layers:
            raise ValueError("embedding=none and pooling=concatenate without convolution layers change nothing")
        return self

    @property
    def is_trained(self) -> bool:
        """Whether it has weights."""
        return self.embedding == "learned" or self.convolution_layers > 0


class QFormerSettings(settings.BaseModelSettings):
    """How an image encoder, a Q-Former and a language model are frozen and used."""

    TRAINED_PARTS: ClassVar[tuple[str, ...]] = TRAINED_PARTS
    PART_GROUPS: ClassVar[dict[str, tuple[str, ...]]] = PART_GROUPS

    image_size: int = Field(224, ge=8)
    num_query_token: int = Field(32, ge=1)
    trained_parts: tuple[str, ...] = PART_GROUPS["emovit"]
    lora: LoraSettings | None = None
    grad_checkpoint_parts: tuple[Literal["vision_encoder", "qformer", "language_model"], ...] = ("language_model",)

    max_txt_len: int = Field(128, ge=1)
    max_output_txt_len: int = Field(256, ge=1)
    # False: the Q-Former reads the image only, not the question.
    qformer_text_input: bool = True
    # The order of the frames of clips. null: the language model reads the tokens of all frames in a row.
    frames: FramePooling | None = None

    @model_validator(mode="after")
    def _frames_are_trained(self) -> QFormerSettings:
        learns = "qformer" in self.trained_parts or self.load_finetuned
        if self.frames is not None and self.frames.is_trained and not learns:
            raise ValueError(
                "model.frames is trained with the Q-Former, which is frozen; add qformer to model.trained_parts, or "
                "remove model.frames"
            )
        return self


class ModelSettings(QFormerSettings):
    """How an InstructBLIP model is loaded, frozen and used."""

    # For a .pth file only: the language model's folder or hub id (always required, for its tokenizer and sizes), the
    # Q-Former's tokenizer (a vocab.txt, a folder or a hub id; default bert-base-uncased), EVA's encoder file
    # (eva_vit_g.pth) for a trimmed file, and attention heads if the widths are not those of the published models.
    llm_model: str | None = None
    qformer_tokenizer: str | None = None
    vision_weights: str | None = None
    vision_heads: int | None = Field(None, ge=1)
    qformer_heads: int | None = Field(None, ge=1)
