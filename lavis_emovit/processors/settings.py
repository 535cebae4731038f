"""Settings of the processors, as they stand in a config's `vis_processor` and `text_processor`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import Field, model_validator

from lavis_emovit.errors import ConfigError
from lavis_emovit.images import CLIP_MEAN, CLIP_STD
from lavis_emovit.settings import Settings, nearest_name, parse_settings


class ImageEvalSettings(Settings):
    """`emovit_image_eval`: the whole picture at `image_size` x `image_size`.

    With `draft`, a JPEG that is much larger than that is decoded at a half, a quarter or an eighth, but never below
    one and a half times the size needed.
    """

    name: Literal["emovit_image_eval"] = "emovit_image_eval"
    image_size: int = Field(default=224, ge=8, le=4096)
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    draft: bool = True


class ImageTrainSettings(Settings):
    """`emovit_image_train`: a random part of the picture, `min_scale` to `max_scale` of its area, half of them flipped.

    The default scales are EmoVIT's. With `draft`, a JPEG is decoded at a half, a quarter or an eighth as long as every
    part that may be taken of it keeps `image_size` pixels on both sides.
    """

    name: Literal["emovit_image_train"] = "emovit_image_train"
    image_size: int = Field(default=224, ge=8, le=4096)
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    min_scale: float = Field(default=0.5, gt=0.0, le=1.0)
    max_scale: float = Field(default=1.0, gt=0.0, le=1.0)
    flip_probability: float = Field(default=0.5, ge=0.0, le=1.0)
    draft: bool = True

    @model_validator(mode="after")
    def _scales_in_order(self) -> ImageTrainSettings:
        if self.min_scale > self.max_scale:
            raise ValueError(f"min_scale {self.min_scale} is larger than max_scale {self.max_scale}")
        return self


class TextSettings(Settings):
    """`emovit_text`: questions as the model reads them, the same in training and inference.

    `original` brings back what the EmoVIT code did to questions in training: LAVIS's caption processor, which lowers
    the case, drops punctuation and cuts at 50 words.
    """

    name: Literal["emovit_text"] = "emovit_text"
    max_words: int | None = Field(default=None, ge=1)
    original: bool = False


PROCESSOR_SETTINGS: dict[str, type[Settings]] = {
    "emovit_image_train": ImageTrainSettings,
    "emovit_image_eval": ImageEvalSettings,
    "emovit_text": TextSettings,
}

ProcessorSettingsT = TypeVar("ProcessorSettingsT", bound=Settings)


def read_processor_settings(cls: type[ProcessorSettingsT], cfg: Any) -> ProcessorSettingsT:
    """Settings from what LAVIS hands to `from_config`: None, a mapping or a config node.

    Raises:
        ConfigError: an unknown key or a wrong value; all of them are named.
    """
    name = str(cls.model_fields["name"].default)
    values = plain_values(cfg)
    if not isinstance(values, Mapping):
        raise ConfigError(
            [f"expected a mapping of settings, such as {{image_size: 224}} (got {values!r})"],
            f"the settings of processor '{name}'",
        )
    settings, problems = parse_settings(cls, values, name)
    if settings is None:
        raise ConfigError(problems, f"the settings of processor '{name}'")
    return settings


def processor_problems(node: Mapping[str, Any], prefix: str) -> list[str]:
    """What is wrong with a processor node, one line for each; other packages' processors are not judged."""
    name = node.get("name")
    if not isinstance(name, str):
        return [f"{prefix}.name: missing, it says which processor to take"]
    if name in PROCESSOR_SETTINGS:
        return parse_settings(PROCESSOR_SETTINGS[name], node, prefix)[1]
    if name.startswith("emovit"):
        return [f"{prefix}.name: unknown processor '{name}'{nearest_name(name, list(PROCESSOR_SETTINGS))}"]
    return []


def plain_values(cfg: Any) -> Any:
    """A config node as plain values, None as an empty mapping, anything else as it is."""
    if cfg is None:
        return {}
    from omegaconf import OmegaConf

    return OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg
