"""LAVIS processor `emovit_image_eval`: pictures as evaluation and inference see them."""

from __future__ import annotations

import math
from typing import Any

import torch
from lavis.common.registry import registry
from lavis.processors.base_processor import BaseProcessor
from PIL import Image

from lavis_emovit.images import to_rgb
from lavis_emovit.processors.image import normalize, resize_square
from lavis_emovit.processors.settings import ImageEvalSettings, read_processor_settings


@registry.register_processor("emovit_image_eval")
class EmovitImageEvalProcessor(BaseProcessor):
    """Bicubic resize to a square, normalisation; nothing random."""

    def __init__(self, settings: ImageEvalSettings | None = None):
        self.settings = settings or ImageEvalSettings()

    def __call__(self, item: Image.Image, seed: int | None = None) -> torch.Tensor:
        """A picture as model input, float32 [3, image_size, image_size]; `seed` changes nothing."""
        pixels = resize_square(to_rgb(item), self.settings.image_size)
        return normalize(pixels, self.settings.mean, self.settings.std)

    @property
    def min_side_px(self) -> int | None:
        """The size below which a picture must not be decoded; None asks for full size.

        One and a half times the input: what that changes is measured in tests and in docs/shards.md.
        """
        return math.ceil(1.5 * self.settings.image_size) if self.settings.draft else None

    @classmethod
    def from_config(cls, cfg: Any = None) -> EmovitImageEvalProcessor:
        return cls(read_processor_settings(ImageEvalSettings, cfg))
