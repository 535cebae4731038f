"""LAVIS processor `emovit_image_train`: augmented training pictures."""

from __future__ import annotations

from typing import Any

import torch
from lavis.common.registry import registry
from lavis.processors.base_processor import BaseProcessor
from PIL import Image

from lavis_emovit.pictures import to_rgb
from lavis_emovit.processors.image import normalized_tensor, random_crop_and_flip, seeded_generator
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
        image = random_crop_and_flip(
            to_rgb(item),
            settings.image_size,
            (settings.min_scale, settings.max_scale),
            settings.flip_probability,
            seeded_generator(seed),
        )
        return normalized_tensor(image, settings.mean, settings.std)

    @property
    def min_side_px(self) -> int | None:
        """The size below which a picture must not be decoded; None asks for full size."""
        return 2 * self.settings.image_size if self.settings.draft else None

    @classmethod
    def from_config(cls, cfg: Any = None) -> EmovitImageTrainProcessor:
        return cls(read_processor_settings(ImageTrainSettings, cfg))
