"""Pixels to model input: crop, resize, flip, normalise, with torchvision's v2 functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch.utils.data import default_collate
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from lavis_emovit.errors import DataError
from lavis_emovit.images import REDUCED_KEY

CROP_RATIO = (3.0 / 4.0, 4.0 / 3.0)
# In single precision, as torchvision computes them.
_LOG_CROP_RATIO = tuple(torch.log(torch.tensor(CROP_RATIO)).tolist())
CROP_ATTEMPTS = 10


def resize_square(image: Image.Image, size_px: int) -> torch.Tensor:
    """The whole image resized to a square, bicubic; uint8 [3, size_px, size_px].

    An image that was decoded at full size is resized by Pillow, with the same result as LAVIS's `blip_image_eval`. An
    image that was decoded at a reduced size differs slightly anyway, so it uses torch's byte kernel, which is several
    times faster. That kernel is within 1/255 of Pillow if Pillow resizes rows before columns, which depends on
    Pillow's version and the shape of the image.
    """
    size = [size_px, size_px]
    if REDUCED_KEY in image.info:
        return F.resize(F.pil_to_tensor(image), size, interpolation=InterpolationMode.BICUBIC)
    return F.pil_to_tensor(F.resize(image, size, interpolation=InterpolationMode.BICUBIC))


def random_crops_and_flip(
    images: Sequence[Image.Image],
    size_px: int,
    scale: tuple[float, float],
    flip_probability: float,
    generator: torch.Generator | None,
) -> list[torch.Tensor]:
    """A random part of each image, bicubic, all flipped with the given probability; uint8 [3, size_px, size_px].

    `scale` is the smallest and the largest share of the area. For one image, the random calls and their order are those
    of torchvision's RandomResizedCrop and RandomHorizontalFlip. With a seeded generator the result equals LAVIS's
    `blip2_image_train` after `torch.manual_seed(seed)`; None is torch's global generator.
    """
    parts = []
    for image in images:
        top, left, height, width = _crop_box(image.height, image.width, scale, generator)
        parts.append(resize_square(image.crop((left, top, left + width, top + height)), size_px))
    is_flipped = torch.rand(1, generator=generator).item() < flip_probability
    return [F.horizontal_flip(pixels) for pixels in parts] if is_flipped else parts


def normalize(pixels: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """float32 [3, H, W]: (value / 255 - mean) / std of uint8 channels, through a lookup table."""
    values = pixels.numpy()
    found = np.empty(values.shape, np.float32)
    for channel, table in enumerate(_normalized_bytes(mean, std)):
        # `clip` saves numpy a bounds check and a buffer; a byte is never outside the table.
        np.take(table, values[channel], out=found[channel], mode="clip")
    return torch.from_numpy(found)


@lru_cache
def _normalized_bytes(mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """float32 [3, 256]: the normalised value of each byte in each channel."""
    every_byte = torch.arange(256, dtype=torch.uint8).expand(len(mean), 1, 256)
    return F.normalize(F.to_dtype(every_byte, torch.float32, scale=True), list(mean), list(std))[:, 0].numpy()


def seeded_generator(seed: int | None) -> torch.Generator | None:
    """A CPU generator; None (torch's global generator) without a seed."""
    return None if seed is None else torch.Generator().manual_seed(seed)


def _crop_box(
    height: int, width: int, scale: tuple[float, float], generator: torch.Generator | None
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random part with an aspect ratio in `CROP_RATIO`."""
    area = height * width
    for _ in range(CROP_ATTEMPTS):
        target_area = area * torch.empty(1).uniform_(*scale, generator=generator).item()
        ratio = torch.exp(torch.empty(1).uniform_(*_LOG_CROP_RATIO, generator=generator)).item()
        crop_width = round(math.sqrt(target_area * ratio))
        crop_height = round(math.sqrt(target_area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(torch.randint(0, height - crop_height + 1, size=(1,), generator=generator).item())
            left = int(torch.randint(0, width - crop_width + 1, size=(1,), generator=generator).item())
            return top, left, crop_height, crop_width
    # Very long images: the middle, as close to square as allowed.
    crop_width = min(width, round(height * CROP_RATIO[1]))
    crop_height = min(height, round(width / CROP_RATIO[0]))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def stack_images(images: Sequence[torch.Tensor]) -> torch.Tensor:
    """[B, 3, H, W] out of B images of one size, [B, 3, F, H, W] out of clips; no images give an empty batch.

    DataError for clips of different lengths, or clips and images, which datasets of one recipe may give. With
    `box: both`, F is 2 for an image and twice the frames for a clip.
    """
    if len({image.shape for image in images}) > 1:
        shapes = ", ".join(str(list(shape)) for shape in sorted({tuple(image.shape) for image in images}))
        raise DataError(
            f"a batch has images of the shapes {shapes}; give all datasets the same vis_processor.*.image_size and "
            "frames.num_frames, and `box: both` to all or none"
        )
    # In a DataLoader worker `default_collate` stacks straight into memory that it shares with the main process.
    return default_collate(list(images)) if images else torch.zeros(0, 3, 0, 0)
