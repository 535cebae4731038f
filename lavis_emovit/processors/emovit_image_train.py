"""LAVIS processor `emovit_image_train`: augmented training pictures."""

from __future__ import annotations

import math
from typing import Any

import torch
from lavis.common.registry import registry
from lavis.processors.base_processor import BaseProcessor
from PIL import Image

from lavis_emovit.images import to_rgb
from lavis_emovit.processors.image import CROP_RATIO, normalize, random_crop_and_flip, seeded_generator
from lavis_emovit.processors.settings import ImageTrainSettings, read_processor_settings


@registry.register_processor("emovit_image_train")
class EmovitImageTrainProcessor(BaseProcessor):
    """Random resized crop, random flip, normalisation."""

    def __init__(self, settings: ImageTrainSettings | None = None):
        self.settings = settings or ImageTrainSettings()

    def __call__(self, item: Image.Image, seed: int | None = None) -> torch.Tensor:
        """A picture as model input.

        Args:
            item: the picture.
            seed: with a seed the result depends on picture and seed only, and torch's global random state is neither
                read nor moved; without one, the global state decides.

        Returns:
            float32 [3, image_size, image_size].
        """
        settings = self.settings
        pixels = random_crop_and_flip(
            to_rgb(item),
            settings.image_size,
            (settings.min_scale, settings.max_scale),
            settings.flip_probability,
            seeded_generator(seed),
        )
        return normalize(pixels, settings.mean, settings.std)

    @property
    def min_side_px(self) -> int | None:
        """The size below which a picture must not be decoded; None asks for full size.

        The smallest crop, of `min_scale` of the area and the narrowest shape, still has the input's size, so that none
        is enlarged that would not be at full size.
        """
        if not self.settings.draft:
            return None
        return math.ceil(self.settings.image_size / math.sqrt(self.settings.min_scale * CROP_RATIO[0]))

    @classmethod
    def from_config(cls, cfg: Any = None) -> EmovitImageTrainProcessor:
        return cls(read_processor_settings(ImageTrainSettings, cfg))
