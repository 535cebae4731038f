"""Settings of the processors, in a config's `vis_processor` and `text_processor`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from lavis_emovit.boxes import BoxSettings, shows_both
from lavis_emovit.clips.clip import FrameSettings
from lavis_emovit.errors import ConfigError
from lavis_emovit.images import CLIP_MEAN, CLIP_STD
from lavis_emovit.settings import Settings, SettingsT, added_field, valid_settings


class _FramedSettings(Settings):
    """Settings of processors of images and clips.

    Attributes:
        box: what is shown of a record with a box; null: the whole image.
        frames: which frames of clips are looked at; null: there are only images.
    """

    box: BoxSettings | None = added_field(None)
    frames: FrameSettings | None = None

    @property
    def num_frames(self) -> int:
        """How many images a model gets for a record: the frames of a clip, with `box: both` whole and cropped."""
        num_frames = self.frames.num_frames if self.frames is not None else 1
        return 2 * num_frames if shows_both(self.box) else num_frames


class _ImageSettings(_FramedSettings):
    image_size: int = Field(default=224, ge=8, le=4096)
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    draft: bool = True


class ImageEvalSettings(_ImageSettings):
    """`emovit_image_eval`: the whole image at `image_size` x `image_size`.

    With `draft`, a much larger JPEG is decoded at a half, a quarter or an eighth of its size, but never below one and a
    half times the input size.
    """

    name: Literal["emovit_image_eval"] = "emovit_image_eval"


class ImageTrainSettings(_ImageSettings):
    """`emovit_image_train`: a random part of the image, `min_scale` to `max_scale` of its area, half of them flipped.

    The default scales are EmoVIT's. With `draft`, a JPEG is decoded at a half, a quarter or an eighth of its size, as
    long as every possible crop keeps `image_size` pixels on both sides.
    """

    name: Literal["emovit_image_train"] = "emovit_image_train"
    min_scale: float = Field(default=0.5, gt=0.0, le=1.0)
    max_scale: float = Field(default=1.0, gt=0.0, le=1.0)
    flip_probability: float = Field(default=0.5, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _scales_in_order(self) -> ImageTrainSettings:
        if self.min_scale > self.max_scale:
            raise ValueError(f"min_scale {self.min_scale} is larger than max_scale {self.max_scale}")
        return self


class ImageTextSettings(_FramedSettings):
    """`emovit_image_text`: an image as the processor of an image-text model of transformers returns it.

    Attributes:
        pretrained, revision: folder or hub id of the model, and the revision there.
        max_side_px: larger images are scaled down before the model's processor gets them.
        template: for models without a chat template: text with `{question}` and the model's image token in it.
        system: the system's turn; null: what the chat template writes by itself.
        options: keyword arguments of `AutoProcessor.from_pretrained`, such as `max_pixels`.
        frames: of clips, as images of one text in the order of time.
    """

    name: Literal["emovit_image_text"] = "emovit_image_text"
    pretrained: str = ""
    revision: str | None = None
    max_side_px: int = Field(default=1024, ge=32)
    template: str | None = None
    system: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    frames: FrameSettings | None = added_field(None)


class TextSettings(Settings):
    """`emovit_text`: formats questions the same way in training and inference.

    `original` restores the treatment of questions in the original EmoVIT training code: LAVIS's caption processor,
    which lowers the case, drops punctuation and cuts at 50 words.
    """

    name: Literal["emovit_text"] = "emovit_text"
    max_words: int | None = Field(default=None, ge=1)
    original: bool = False


def read_processor_settings(cls: type[SettingsT], cfg: Any) -> SettingsT:
    """Settings from the argument of LAVIS's `from_config`: None, a mapping or a config node."""
    from omegaconf import OmegaConf

    name = str(cls.model_fields["name"].default)
    values: Any = {} if cfg is None else OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg
    place = f"the settings of processor '{name}'"
    if not isinstance(values, Mapping):
        raise ConfigError([f"expected a mapping of settings, such as {{image_size: 224}} (got {values!r})"], place)
    return valid_settings(cls, values, name, place)
