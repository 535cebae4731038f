"""The `model:` node of a configuration, typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from lavis_emovit.models.generation_settings import GenerationSettings
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
    # What the original code leaves trainable: everything but the image encoder and the language model.
    "emovit": ("qformer", "query_tokens", "language_projection", "vision_layernorm"),
    "all": TRAINED_PARTS,
    "none": (),
}


class ModelSettings(Settings):
    """How one EmoVIT model is built, frozen and prompted. Keys shared with LAVIS keep LAVIS's names."""

    arch: str
    model_type: str | None = None
    load_finetuned: bool = False
    # Where the weights come from: `package:<name>`, a transformers folder, a hub id, or a LAVIS-format .pth file.
    pretrained: str
    finetuned: str | None = None
    # Beside a .pth file only: the language model's folder or hub id (always needed, for its tokenizer and sizes), the
    # Q-Former's tokenizer (a vocab.txt, a folder or a hub id; bert-base-uncased where left out), EVA's encoder file
    # (eva_vit_g.pth) for a trimmed file, and attention heads where the widths are not the published models'.
    llm_model: str | None = None
    qformer_tokenizer: str | None = None
    vision_weights: str | None = None
    vision_heads: int | None = Field(None, ge=1)
    qformer_heads: int | None = Field(None, ge=1)

    image_size: int = Field(224, ge=8)
    num_query_token: int = Field(32, ge=1)
    trained_parts: tuple[str, ...] = PART_GROUPS["emovit"]
    frozen_precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    use_grad_checkpoint: bool = False
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"

    prompt: str = ""
    max_txt_len: int = Field(128, ge=1)
    max_output_txt_len: int = Field(256, ge=1)
    qformer_text_input: bool = True
    # How answers in words are generated where a call says nothing else.
    generation: GenerationSettings = GenerationSettings()
    # Image-question pairs whose candidates are scored in one pass: bounds memory, changes no score.
    scoring_pairs_per_pass: int = Field(default=32, ge=1)

    @field_validator("trained_parts", mode="before")
    @classmethod
    def _split_parts(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",")]
        if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
            raise ValueError(f"should be a list of names; parts are {', '.join(TRAINED_PARTS)}")
        parts: list[str] = []
        for name in value:
            if name in PART_GROUPS:
                parts.extend(PART_GROUPS[name])
            elif name in TRAINED_PARTS:
                parts.append(name)
            elif name:
                raise ValueError(
                    f"unknown part '{name}'; parts are {', '.join(TRAINED_PARTS)}, groups are {', '.join(PART_GROUPS)}"
                )
        return tuple(dict.fromkeys(parts))

    @field_validator("finetuned")
    @classmethod
    def _finetuned_exists(cls, value: str | None) -> str | None:
        if value is not None and not Path(value).expanduser().exists():
            raise ValueError("no such file or folder")
        return value
