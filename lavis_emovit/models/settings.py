"""The `model:` node of a recipe: the settings that all model families share."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from lavis_emovit.models.generation_settings import GenerationSettings
from lavis_emovit.paths import expand_home
from lavis_emovit.settings import Settings


class LoraSettings(Settings):
    """Low-rank adapters (Hu et al. 2021, https://arxiv.org/abs/2106.09685) on the frozen weights of a part.

    An adapter adds `alpha / rank * B A x` to a linear layer; A [rank, in] and B [out, rank] are trained, B starts at
    zero. Families narrow `parts` to the parts that they can adapt.
    """

    parts: tuple[str, ...] = Field(min_length=1)
    rank: int = Field(8, ge=1)
    alpha: float = Field(16.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1, description="on the adapter's input, in training")
    # Last parts of module names, such as q_proj; empty: every linear layer of the part except the output head.
    target_modules: tuple[str, ...] | None = None
    seed: int = Field(0, ge=0, description="of the adapters' initial values")

    @field_validator("parts", "target_modules", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return as_list(value)


class BaseModelSettings(Settings):
    """How a model is loaded, frozen and used. Keys shared with LAVIS keep LAVIS's names.

    Attributes:
        TRAINED_PARTS: the parts of the family, as `trained_parts` names them.
        PART_GROUPS: names for several parts at once.
    """

    TRAINED_PARTS: ClassVar[tuple[str, ...]] = ()
    PART_GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {}

    arch: str
    model_type: str | None = None
    load_finetuned: bool = False
    # Where the weights come from: `package:<name>`, a transformers folder, a hub id, or a file that the family reads.
    pretrained: str
    finetuned: str | None = None

    trained_parts: tuple[str, ...] = ()
    lora: LoraSettings | None = None
    # Of the frozen weights. int8 and nf4 quantise the language model through bitsandbytes; the rest is then bf16.
    frozen_precision: Literal["fp32", "bf16", "fp16", "int8", "nf4"] = "fp32"
    # Recompute the layers of these parts in the backward pass instead of keeping their activations.
    use_grad_checkpoint: bool = False
    grad_checkpoint_parts: tuple[str, ...] = ("language_model",)
    # Run the pairs of a batch in groups of similar length, so that little padding is computed.
    group_by_length: bool = True
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"

    # The question for batches that have none.
    prompt: str = ""
    # How answers are generated unless a call says otherwise.
    generation: GenerationSettings = GenerationSettings()
    # Image-question pairs whose candidates are scored in one pass: bounds memory, changes no score.
    scoring_pairs_per_pass: int = Field(default=32, ge=1)

    @field_validator("grad_checkpoint_parts", mode="before")
    @classmethod
    def _split_checkpointed(cls, value: Any) -> Any:
        return as_list(value)

    @field_validator("trained_parts", mode="before")
    @classmethod
    def _split_parts(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",")]
        if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
            raise ValueError(f"should be a list of names; parts are {', '.join(cls.TRAINED_PARTS)}")
        parts: list[str] = []
        for name in value:
            if name in cls.PART_GROUPS:
                parts.extend(cls.PART_GROUPS[name])
            elif name in cls.TRAINED_PARTS:
                parts.append(name)
            elif name:
                raise ValueError(
                    f"unknown part '{name}'; parts are {', '.join(cls.TRAINED_PARTS)}, "
                    f"groups are {', '.join(cls.PART_GROUPS)}"
                )
        return tuple(dict.fromkeys(parts))

    @field_validator("finetuned")
    @classmethod
    def _finetuned_exists(cls, value: str | None) -> str | None:
        if value is not None and not expand_home(value).exists():
            raise ValueError("no such file or folder")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> BaseModelSettings:
        adapted = self.lora.parts if self.lora is not None else ()
        both = [part for part in adapted if part in self.trained_parts]
        if both:
            rest = ",".join(part for part in self.trained_parts if part not in both) or "none"
            raise ValueError(
                f"model.lora adapts {', '.join(both)}, so the weights of the part itself must be frozen; "
                f"set model.trained_parts={rest}"
            )
        if self.frozen_precision in ("int8", "nf4") and "language_model" in self.trained_parts:
            raise ValueError(
                f"model.frozen_precision={self.frozen_precision} quantises the language model, so it cannot be "
                "trained; remove it from model.trained_parts (adapters of model.lora can be trained on top of it)"
            )
        return self


def as_list(value: Any) -> Any:
    """A list as YAML or a command line gives it: `a` and `a, b` are lists too."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
