"""Pixels to model input: crop, resize, flip, normalise, on torchvision's v2 functions.

Random choices are drawn with the same calls, in the same order, as torchvision's RandomResizedCrop and
RandomHorizontalFlip make them, but from a generator of our own where a seed is given: equal to LAVIS's
`blip2_image_train` after `torch.manual_seed(seed)`, without touching the global state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

CROP_RATIO = (3.0 / 4.0, 4.0 / 3.0)
CROP_ATTEMPTS = 10


def resize_square(image: Image.Image, size_px: int) -> Image.Image:
    """The whole picture, squeezed to a square, bicubic, as LAVIS's `blip_image_eval` does."""
    return F.resize(image, [size_px, size_px], interpolation=InterpolationMode.BICUBIC)


def random_crop_and_flip(
    image: Image.Image,
    size_px: int,
    scale: tuple[float, float],
    flip_probability: float,
    generator: torch.Generator | None,
) -> Image.Image:
    """A random part of the picture as a square, bicubic, flipped left to right with the given probability.

    Args:
        image: RGB image.
        size_px: side of the result.
        scale: smallest and largest share of the area.
        flip_probability: in [0, 1].
        generator: where the random numbers come from; None for torch's global one.
    """
    top, left, height, width = _crop_box(image.height, image.width, scale, generator)
    image = F.resized_crop(image, top, left, height, width, [size_px, size_px], interpolation=InterpolationMode.BICUBIC)
    if torch.rand(1, generator=generator).item() < flip_probability:
        image = F.horizontal_flip(image)
    return image


def normalized_tensor(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """float32 [3, H, W]: (value / 255 - mean) / std for each channel."""
    pixels = F.to_dtype(F.pil_to_tensor(image), torch.float32, scale=True)
    return F.normalize(pixels, list(mean), list(std), inplace=True)


def seeded_generator(seed: int | None) -> torch.Generator | None:
    """A CPU generator at a seed; None, for torch's global one, without."""
    return None if seed is None else torch.Generator().manual_seed(seed)


def _crop_box(
    height: int, width: int, scale: tuple[float, float], generator: torch.Generator | None
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random part whose shape is not too far from square."""
    area = height * width
    log_ratio = torch.log(torch.tensor(CROP_RATIO))
    for _ in range(CROP_ATTEMPTS):
        target_area = area * torch.empty(1).uniform_(*scale, generator=generator).item()
        ratio = torch.exp(torch.empty(1).uniform_(float(log_ratio[0]), float(log_ratio[1]), generator=generator)).item()
        crop_width = round(math.sqrt(target_area * ratio))
        crop_height = round(math.sqrt(target_area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(torch.randint(0, height - crop_height + 1, size=(1,), generator=generator).item())
            left = int(torch.randint(0, width - crop_width + 1, size=(1,), generator=generator).item())
            return top, left, crop_height, crop_width
    # Very long pictures: the middle, as near to square as is allowed.
    crop_width = min(width, round(height * CROP_RATIO[1]))
    crop_height = min(height, round(width / CROP_RATIO[0]))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width
