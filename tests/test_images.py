"""Decoding.

- Any image becomes upright RGB at full size: rotated, transparent, grey, 16-bit, CMYK, palette and animated ones too.
- Reduced decoding never goes below the requested size, does not change small images, and changes pixels little.
- Damaged bytes are refused with the reason.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from lavis_emovit.errors import DataError
from lavis_emovit.images import decode_image, to_rgb


def _bytes(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _half_red():
    """40 x 20, red on the left, blue on the right."""
    image = Image.new("RGB", (40, 20), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, 20, 20))
    return image


def test_rgb_comes_back_unchanged():
    image = _half_red()
    assert decode_image(_bytes(image, "PNG")).tobytes() == image.tobytes()


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3), np.uint8), Path("a.jpg"), "a.jpg", b"", None])
def test_only_images_of_pillow_are_taken(image):
    with pytest.raises(TypeError, match=r"expected an image of Pillow, as Image\.open .* not <class '"):
        to_rgb(image)


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated clockwise by 90 degrees
    image = decode_image(_bytes(_half_red(), "PNG", exif=exif))
    assert image.size == (20, 40)
    assert image.getpixel((10, 5)) == (255, 0, 0)
    assert image.getpixel((10, 35)) == (0, 0, 255)


def test_transparent_parts_are_white():
    image = _half_red().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    image.putpixel((5, 5), (255, 0, 0, 255))
    decoded = decode_image(_bytes(image, "PNG"))
    assert decoded.getpixel((0, 0)) == (255, 255, 255)
    assert decoded.getpixel((5, 5)) == (255, 0, 0)
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert decode_image(_bytes(palette, "PNG", transparency=1)).getpixel((0, 0)) == (255, 255, 255)
    assert decode_image(_bytes(palette, "PNG")).getpixel((0, 0)) == (10, 20, 30)


@pytest.mark.parametrize(
    ("image", "kind", "pixel"),
    [
        (Image.new("L", (4, 4), 77), "PNG", (77, 77, 77)),
        (Image.new("1", (4, 4), 1), "PNG", (255, 255, 255)),
        (Image.fromarray(np.full((4, 4), 0x8040, np.uint16)), "PNG", (128, 128, 128)),
        (Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "TIFF", (255, 0, 0)),
    ],
)
def test_other_modes_become_rgb(image, kind, pixel):
    decoded = decode_image(_bytes(image, kind))
    assert decoded.mode == "RGB"
    assert decoded.getpixel((1, 1)) == pixel


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    assert decode_image(_bytes(frames[0], "GIF", save_all=True, append_images=frames[1:])).getpixel((0, 0)) == (
        255,
        0,
        0,
    )


def _smooth(width, height):
    """An image of soft shapes, like a photograph at full size."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    channels = [np.sin(7 * x + phase) * np.cos(5 * y - phase) for phase in (0.0, 1.0, 2.0)]
    return Image.fromarray(np.uint8(127.5 + 127.5 * np.stack(channels, -1)))


@pytest.mark.parametrize(
    ("size", "minimum", "expected"),
    [
        ((1024, 768), 192, (256, 192)),
        ((1024, 768), 193, (512, 384)),
        ((300, 200), 192, (300, 200)),
        ((99, 50), 192, (99, 50)),
    ],
)
def test_reduced_decoding_keeps_the_requested_size(size, minimum, expected):
    assert decode_image(_bytes(_smooth(*size), "JPEG"), min_side_px=minimum).size == expected


def test_reduced_decoding_changes_little():
    data = _bytes(_smooth(1024, 768), "JPEG", quality=95)
    full, reduced = (
        np.asarray(decode_image(data, min_side_px=minimum).resize((96, 96), Image.Resampling.BICUBIC), np.int16)
        for minimum in (None, 192)
    )
    assert np.abs(full - reduced).max() <= 3


@pytest.mark.parametrize(
    "data", [b"", b"<html>", _bytes(_smooth(64, 64), "JPEG")[:400], _bytes(_smooth(64, 64), "PNG")[:900]]
)
def test_damaged_bytes_are_refused(data, monkeypatch):
    # Importing LAVIS sets this.
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(DataError, match="the image cannot be decoded"):
        decode_image(data)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.0, 0.5, 1.0], [0, 127, 255]), ([0.0, 99.0, 255.0], [0, 99, 255]), ([0.0, 32896.0, 65535.0], [0, 128, 255])],
)
def test_floating_point_pixels_keep_their_tones(values, expected):
    image = Image.fromarray(np.array([values], np.float32))
    assert [to_rgb(image).getpixel((x, 0)) for x in range(3)] == [(tone,) * 3 for tone in expected]
    assert decode_image(_bytes(image, "TIFF")).getpixel((1, 0)) == (expected[1],) * 3


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_floating_point_pixels_of_an_unknown_range_are_refused(value):
    image = Image.fromarray(np.array([[0.5, value]], np.float32))
    with pytest.raises(ValueError, match="negative or not finite"):
        to_rgb(image)
    with pytest.raises(DataError, match="negative or not finite"):
        decode_image(_bytes(image, "TIFF"))


@pytest.mark.parametrize("kind", ["EPS", "PPM", "PCX", "TGA"])
def test_formats_that_may_run_other_programs_are_refused_before_they_are_decoded(kind, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **options: pytest.fail("Ghostscript was started"))
    with pytest.raises(DataError, match=f"format {kind} is not one of BMP, GIF, JPEG"):
        decode_image(_bytes(_half_red(), kind))
