"""LAVIS processor `emovit_image_train`: augmented training images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from lavis.common.registry import registry
from PIL import Image

from lavis_emovit.images import to_rgb
from lavis_emovit.processors.base import ImageProcessor
from lavis_emovit.processors.image import CROP_RATIO, normalize, random_crops_and_flip, seeded_generator
from lavis_emovit.processors.settings import ImageTrainSettings


@registry.register_processor("emovit_image_train")
class EmovitImageTrainProcessor(ImageProcessor):
    """Random resized crop, random flip, normalisation."""

    settings_class = ImageTrainSettings
    settings: ImageTrainSettings
    is_random = True

    def __call__(self, item: Image.Image, seed: int | None = None) -> torch.Tensor:
        """An image as model input, float32 [3, image_size, image_size].

        With a seed the result depends only on image and seed, and torch's global random state is neither read nor
        changed. Without one, the global state is used.
        """
        (found,) = self._augmented([item], seed)
        return found

    def beside(self, images: Sequence[Image.Image], seed: int | None) -> torch.Tensor:
        """See `ImageProcessor.beside`; each has a random part of its own, and both are flipped or none."""
        found = self._augmented(images, seed)
        return torch.stack([found[0], found[-1]], dim=1)

    def _augmented(self, items: Sequence[Image.Image], seed: int | None) -> list[torch.Tensor]:
        settings, images, generator = self.settings, [to_rgb(item) for item in items], seeded_generator(seed)
        scale = settings.min_scale, settings.max_scale
        found = random_crops_and_flip(images, settings.image_size, scale, settings.flip_probability, generator)
        return [normalize(pixels, settings.mean, settings.std) for pixels in found]

    @property
    def min_side_px(self) -> int | None:
        """At this size even the smallest crop, with `min_scale` of the area and the narrowest shape, is as large as the
        model input, so no crop is enlarged that would not be at full size."""
        if not self.settings.draft:
            return None
        return math.ceil(self.settings.image_size / math.sqrt(self.settings.min_scale * CROP_RATIO[0]))
