"""Brightness and colourfulness of a picture, as numbers from 0 to 1 in EmoSet's steps of 0.1."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

# Hasler and Suesstrunk call a picture of this colourfulness "extremely colourful"; it becomes 1.0.
_EXTREMELY_COLOURFUL = 109.0


def brightness(image: Image.Image) -> float:
    """Mean luma (ITU-R BT.601) of the picture, from 0.0 (black) to 1.0 (white), rounded to 0.1."""
    luma = np.asarray(image.convert("L"), dtype=np.float32)
    return round(float(luma.mean()) / 255, 1)


def colorfulness(image: Image.Image) -> float:
    """Colourfulness from 0.0 (black and white) to 1.0, rounded to 0.1.

    Hasler and Suesstrunk, "Measuring colourfulness in natural images" (2003), equation for M(3): with rg = R - G and
    yb = (R + G) / 2 - B, M = sqrt(var(rg) + var(yb)) + 0.3 sqrt(mean(rg)^2 + mean(yb)^2); here M / 109, at most 1.
    """
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    rg, yb = red - green, (red + green) / 2 - blue
    spread = math.sqrt(float(rg.var()) + float(yb.var()))
    shift = math.hypot(float(rg.mean()), float(yb.mean()))
    return round(min(1.0, (spread + 0.3 * shift) / _EXTREMELY_COLOURFUL), 1)
