"""LAVIS processor `emovit_image_eval`: images for evaluation and inference."""

from __future__ import annotations

import math

import torch
from lavis.common.registry import registry
from PIL import Image

from lavis_emovit.images import to_rgb
from lavis_emovit.processors.base import ImageProcessor
from lavis_emovit.processors.image import normalize, resize_square
from lavis_emovit.processors.settings import ImageEvalSettings


@registry.register_processor("emovit_image_eval")
class EmovitImageEvalProcessor(ImageProcessor):
    """Bicubic resize to a square and normalisation, without randomness."""

    settings_class = ImageEvalSettings
    settings: ImageEvalSettings

    def __call__(self, item: Image.Image, seed: int | None = None) -> torch.Tensor:
        """An image as model input, float32 [3, image_size, image_size]; `seed` has no effect."""
        pixels = resize_square(to_rgb(item), self.settings.image_size)
        return normalize(pixels, self.settings.mean, self.settings.std)

    @property
    def min_side_px(self) -> int | None:
        """One and a half times the input; docs/shards.md and the tests have the measured effect on the pixels."""
        return math.ceil(1.5 * self.settings.image_size) if self.settings.draft else None
