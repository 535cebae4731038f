"""The check of images at build time.

- Images of every common kind pass, and their suffix is the true format.
- Empty, truncated and other files are refused with a clear reason; so are images too large to decode.
- That also holds with LAVIS, which makes Pillow accept truncated images; LAVIS's setting is restored.
"""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFile

from lavis_emovit import images
from lavis_emovit.shards.images import BadImageError, check_image


def _bytes(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 80, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("data", "suffix"),
    [
        (_bytes(NOISE, "JPEG"), "jpg"),
        (_bytes(NOISE, "JPEG", progressive=True), "jpg"),
        (_bytes(NOISE.convert("CMYK"), "JPEG"), "jpg"),
        (_bytes(NOISE.convert("L"), "JPEG"), "jpg"),
        (_bytes(NOISE, "PNG"), "png"),
        (_bytes(NOISE.convert("P"), "PNG"), "png"),
        (_bytes(NOISE.convert("RGBA"), "PNG"), "png"),
        (_bytes(Image.new("I;16", (9, 9), 40000), "PNG"), "png"),
        (_bytes(NOISE.resize((1, 1)), "PNG"), "png"),
        (_bytes(NOISE, "GIF", save_all=True, append_images=[NOISE.rotate(90)]), "gif"),
        (_bytes(NOISE, "WEBP"), "webp"),
        (_bytes(NOISE, "BMP"), "bmp"),
    ],
)
def test_good_images_pass(data, suffix):
    assert check_image(data) == suffix


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_images_are_refused(kind, share, lenient, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    data = _bytes(NOISE, kind)
    with pytest.raises(BadImageError):
        check_image(data[: int(len(data) * share)])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is lenient


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "the file is empty"),
        (b"  <!DOCTYPE html><html></html>", "a web page or XML text"),
        (b"plain text", "not a picture of a known format"),
        (_bytes(NOISE, "PPM"), "format PPM is not one of BMP, GIF, JPEG"),
    ],
)
def test_other_files_are_refused_with_the_reason(data, expected):
    with pytest.raises(BadImageError, match=expected):
        check_image(data)


def test_a_flipped_byte_of_a_png_is_noticed():
    data = bytearray(_bytes(NOISE, "PNG"))
    data[len(data) // 2] ^= 255
    with pytest.raises(BadImageError):
        check_image(bytes(data))


def test_too_many_pixels_are_refused_before_decoding(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 7000)
    with pytest.raises(BadImageError, match="80 x 96 pixels, more than 7000"):
        check_image(_bytes(NOISE, "PNG"))
