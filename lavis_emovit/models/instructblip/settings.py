"""The `model:` node of an InstructBLIP model, and of families that differ from it in their parts only."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from lavis_emovit.models import settings

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
