"""Base of the image processors: settings, and stacking images into a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from lavis.processors.base_processor import BaseProcessor

from lavis_emovit.processors.image import stack_images
from lavis_emovit.processors.settings import read_processor_settings
from lavis_emovit.settings import Settings


class ImageProcessor(BaseProcessor):
    """A subclass names its settings and turns one image into model input."""

    settings_class: ClassVar[type[Settings]]
    settings: Any

    def __init__(self, settings: Settings | None = None):
        self.settings = settings or self.settings_class()

    @classmethod
    def from_config(cls, cfg: Any = None) -> ImageProcessor:
        return cls(read_processor_settings(cls.settings_class, cfg))

    @property
    def min_side_px(self) -> int | None:
        """The smallest size to decode an image at; None: full size."""
        return None

    def stack(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        """A batch of images from this processor, float32 [B, 3, image_size, image_size]."""
        return stack_images(images)
