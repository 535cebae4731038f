"""Settings of generation: the node `model.generation` of a configuration, and arguments of calls."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from lavis_emovit.settings import Settings, valid_settings


class GenerationSettings(Settings):
    """Greedy by default. Keys keep LAVIS's names.

    Attributes:
        use_nucleus_sampling: draw each token from the likeliest ones that together have a probability of `top_p`
            (Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration").
        num_beams: answers that beam search keeps; 1 for no search.
        max_length, min_length: new tokens.
        top_p, temperature: of sampling.
        repetition_penalty: divides the scores of tokens that are already in the answer; 1 for none.
        length_penalty: exponent of the length by which beam search divides an answer's score.
        num_captions: answers per question.
    """

    use_nucleus_sampling: bool = False
    num_beams: int = Field(default=1, ge=1)
    max_length: int = Field(default=64, ge=1)
    min_length: int = Field(default=1, ge=0)
    top_p: float = Field(default=0.9, gt=0, le=1)
    repetition_penalty: float = Field(default=1.0, gt=0)
    length_penalty: float = 1.0
    num_captions: int = Field(default=1, ge=1)
    temperature: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _fits_together(self) -> GenerationSettings:
        if self.min_length > self.max_length:
            raise ValueError(f"min_length {self.min_length} is more than max_length {self.max_length}")
        if self.use_nucleus_sampling and self.temperature == 0:
            raise ValueError("temperature should be above 0 for use_nucleus_sampling; switch sampling off instead")
        if not self.use_nucleus_sampling and self.num_captions > self.num_beams:
            raise ValueError(
                f"num_captions {self.num_captions} needs use_nucleus_sampling or as many num_beams "
                f"(num_beams is {self.num_beams})"
            )
        return self

    def changed(self, **values: Any) -> GenerationSettings:
        """These settings with other values; None keeps a setting. ConfigError for invalid values."""
        given = {name: value for name, value in values.items() if value is not None}
        return valid_settings(GenerationSettings, {**self.model_dump(), **given}, "generate", "the generation settings")

    def options(self) -> dict[str, Any]:
        """Arguments of transformers' `generate`, all of them, so that the model's folder has no influence."""
        return {
            "do_sample": self.use_nucleus_sampling,
            "num_beams": self.num_beams,
            "max_new_tokens": self.max_length,
            "min_new_tokens": self.min_length,
            "repetition_penalty": self.repetition_penalty,
            "length_penalty": self.length_penalty,
            "num_return_sequences": self.num_captions,
            "top_p": self.top_p if self.use_nucleus_sampling else 1.0,
            "temperature": self.temperature if self.use_nucleus_sampling else 1.0,
            # Off: LAVIS does not have it. 50 is the default, which greedy search ignores.
            "top_k": 0 if self.use_nucleus_sampling else 50,
        }
