"""The `model:` node of a configuration, typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

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


def _listed(value: Any) -> Any:
    """A list as YAML or a command line writes it: `a` and `a, b` are lists too."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class LoraSettings(Settings):
    """Low-rank adapters (Hu et al. 2021, https://arxiv.org/abs/2106.09685) beside the frozen weights of a part.

    An adapter adds `alpha / rank * B A x` to a linear layer; A [rank, in] and B [out, rank] learn, B starts at zero.
    """

    parts: tuple[Literal["qformer", "language_model"], ...] = Field(min_length=1)
    rank: int = Field(8, ge=1)
    alpha: float = Field(16.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1, description="on the adapter's input, in training")
    # Last parts of module names, such as q_proj; empty: every linear layer of the part but the output head.
    target_modules: tuple[str, ...] | None = None
    seed: int = Field(0, ge=0, description="of the adapters' first values")

    @field_validator("parts", "target_modules", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return _listed(value)


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
    lora: LoraSettings | None = None
    # Of what does not learn. int8 and nf4 quantise the language model through bitsandbytes; the rest is bf16 then.
    frozen_precision: Literal["fp32", "bf16", "fp16", "int8", "nf4"] = "fp32"
    # Recompute the layers of these parts in the backward pass instead of keeping their activations.
    use_grad_checkpoint: bool = False
    grad_checkpoint_parts: tuple[Literal["vision_encoder", "qformer", "language_model"], ...] = ("language_model",)
    # Run the pairs of a batch in groups of similar length, so that little padding is computed.
    group_by_length: bool = True
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"

    prompt: str = ""
    max_txt_len: int = Field(128, ge=1)
    max_output_txt_len: int = Field(256, ge=1)
    # False: the Q-Former reads the picture only, not the question.
    qformer_text_input: bool = True
    # How answers in words are generated where a call says nothing else.
    generation: GenerationSettings = GenerationSettings()
    # Image-question pairs whose candidates are scored in one pass: bounds memory, changes no score.
    scoring_pairs_per_pass: int = Field(default=32, ge=1)

    @field_validator("grad_checkpoint_parts", mode="before")
    @classmethod
    def _split_checkpointed(cls, value: Any) -> Any:
        return _listed(value)

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

    @model_validator(mode="after")
    def _check_together(self) -> ModelSettings:
        adapted = self.lora.parts if self.lora is not None else ()
        both = [part for part in adapted if part in self.trained_parts]
        if both:
            rest = ",".join(part for part in self.trained_parts if part not in both) or "none"
            raise ValueError(
                f"model.lora adapts {', '.join(both)}, whose own weights stay frozen then; "
                f"set model.trained_parts={rest}"
            )
        if self.frozen_precision in ("int8", "nf4") and "language_model" in self.trained_parts:
            raise ValueError(
                f"model.frozen_precision={self.frozen_precision} quantises the language model, which cannot learn "
                "then; take it out of model.trained_parts (adapters of model.lora can learn on top of it)"
            )
        return self
