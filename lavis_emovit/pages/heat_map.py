"""Where a model looks, as a heat map over the image and as words."""

from __future__ import annotations

import numpy as np
from PIL import Image

_SIDE_PX = 560
_STRENGTH = 0.75  # of the colour where the model looks most
_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")


def heat_map(image: Image.Image, attention_HW: np.ndarray) -> Image.Image:
    """The image in grey, coloured from dark (least attention) to bright (most).

    Args:
        attention_HW: float [rows, columns], a grid over the whole image.
    """
    import matplotlib

    small = image.copy()
    small.thumbnail((_SIDE_PX, _SIDE_PX))
    grid = Image.fromarray(scaled(attention_HW).astype(np.float32))
    weights_HW = np.clip(np.asarray(grid.resize(small.size, Image.Resampling.BICUBIC)), 0, 1)
    colours = matplotlib.colormaps["inferno"](weights_HW)[..., :3]
    grey = np.asarray(small.convert("L"), dtype=np.float32)[..., None] / 255
    share = (0.35 + (_STRENGTH - 0.35) * weights_HW)[..., None]
    mixed = (1 - share) * grey + share * colours
    return Image.fromarray(np.round(255 * mixed).astype(np.uint8))


def scaled(attention_HW: np.ndarray) -> np.ndarray:
    """The grid with its least value as 0 and its largest as 1; zeros if all are alike."""
    low, high = attention_HW.min(), attention_HW.max()
    return (attention_HW - low) / (high - low) if high > low else np.zeros_like(attention_HW)


def place_of(attention_HW: np.ndarray) -> str:
    """Where most of the attention is, of nine parts of the image: `top left`."""
    rows, columns = (np.arange(size) * 3 // size for size in attention_HW.shape)
    sums = np.zeros((3, 3))
    np.add.at(sums, (rows[:, None], columns[None, :]), attention_HW)
    row, column = np.unravel_index(sums.argmax(), sums.shape)
    return f"{_ROWS[row]} {_COLUMNS[column]}"
