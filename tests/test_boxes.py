"""The image of a record with a box.

Properties:
- a crop has every pixel that the box and its margin touch, cut off at the edges of the image;
- boxes are in pixels of the upright image; an encoded crop has the pixels of the decoded one;
- images whose record has no box, or that are shown whole, keep their bytes;
- a box without area in the image is refused with its corners and the size of the image;
- the name of what is shown is enough in settings; a margin without a crop is refused;
- records are counted whose image has several boxes.
"""

from __future__ import annotations

import io

import pytest
from PIL import Image

from lavis_emovit.boxes import WHOLE, BoxSettings, SharedImages, box_identity, part_of, shown, shown_bytes
from lavis_emovit.clips.clip import Clip
from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.images import decode_image
from lavis_emovit.processors.settings import ImageEvalSettings
from lavis_emovit.settings import valid_settings


def _numbered(width, height):
    """Red is 10 times the column, green 10 times the row."""
    image = Image.new("RGB", (width, height))
    image.putdata([(10 * x, 10 * y, 0) for y in range(height) for x in range(width)])
    return image


def test_pixels_of_a_crop_with_a_margin_at_the_edge():
    # By hand: half of 2.3 x 2 on each side is 2.05 to 6.65 across and 0 to 4 down, of 6 x 4 pixels.
    crop = shown(_numbered(6, 4), (3.2, 1, 5.5, 3), BoxSettings(show="crop", margin=0.5))
    assert crop.size == (4, 4)
    assert [crop.getpixel(place) for place in ((0, 0), (3, 0), (0, 3), (3, 3))] == [
        (20, 0, 0), (50, 0, 0), (20, 30, 0), (50, 30, 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("box", "part"),
    [
        ((1, 1, 3, 2), (1, 1, 3, 2)),
        ((1.9, 0.1, 2.1, 0.2), (1, 0, 3, 1)),  # less than a pixel, but it touches two
        ((-4, -1, 2, 9), (0, 0, 2, 4)),  # partly outside, as detectors give
        ((5.5, 3.5, 6, 4), (5, 3, 6, 4)),
    ],
)
def test_part_of_an_image(box, part):
    assert part_of(box, (6, 4)) == part


@pytest.mark.parametrize("box", [(6, 0, 9, 4), (-3, 0, 0, 4), (0, 4, 3, 5), (0, -2, 3, 0), (3, 1, 3, 2)])
def test_a_box_without_area_in_the_image_is_refused(box):
    with pytest.raises(DataError, match=r"the box \(.*\) has no area in the image of 6 x 4 pixels"):
        part_of(box, (6, 4), margin=2.0)


def test_boxes_are_in_pixels_of_the_upright_image():
    colours = Image.new("RGB", (30, 40), "red")
    colours.paste("blue", (0, 20, 30, 40))
    turned = Image.Exif()
    turned[0x0112] = 6  # shown turned by 90 degrees clockwise
    buffer = io.BytesIO()
    colours.rotate(90, expand=True).save(buffer, "PNG", exif=turned)
    for box, colour in (((0, 0, 30, 20), (255, 0, 0)), ((0, 20, 30, 40), (0, 0, 255))):
        crop = decode_image(shown_bytes(buffer.getvalue(), box, BoxSettings(show="crop")))
        assert crop.size == (30, 20) and crop.getcolors() == [(600, colour)]


@pytest.mark.parametrize("settings", [None, WHOLE])
def test_whole_images_keep_their_bytes(settings):
    assert shown_bytes(b"not decoded", (0, 0, 1, 1), settings) == b"not decoded"
    assert shown_bytes(b"not decoded", None, BoxSettings(show="crop")) == b"not decoded"
    assert box_identity(settings) == {}


def test_settings():
    named = ImageEvalSettings.model_validate({"box": "crop"})
    assert named.box == BoxSettings(show="crop", margin=0.0)
    assert box_identity(named.box) == {"box": {"show": "crop", "margin": 0.0}}
    assert "box" in named.model_dump() and "box" not in ImageEvalSettings().model_dump()
    with pytest.raises(ConfigError) as refused:
        valid_settings(ImageEvalSettings, {"box": {"show": "whole", "margin": 0.5}}, "eval", "a test")
    assert "`margin` belongs to a crop" in str(refused.value)
    with pytest.raises(ConfigError):
        valid_settings(ImageEvalSettings, {"box": "face"}, "eval", "a test")


def test_records_of_images_with_several_boxes_are_counted():
    counted = SharedImages()
    assert counted.problem() is None
    for image, box, clip in (
        ("a.jpg", (0, 0, 1, 1), None), ("a.jpg", (1, 0, 2, 1), None), ("a.jpg", (1, 0, 2, 1), None),
        ("b.jpg", (0, 0, 1, 1), None), ("b.jpg", None, None),
        ("c.mp4", (0, 0, 1, 1), Clip(start_s=0, end_s=1)), ("c.mp4", (1, 0, 2, 1), Clip(start_s=1, end_s=2)),
    ):  # fmt: skip
        counted.add(image, clip, box)
    assert counted.problem().startswith("3 records are about one of several people or faces in 1 images")
