"""The image of a record with a box.

Properties:
- a crop has every pixel that the box and its margin touch, cut off at the edges of the image;
- boxes are in pixels of the upright image; an encoded crop has the pixels of the decoded one;
- images whose record has no box, or that are shown whole, keep their bytes;
- a box without area in the image is refused with its corners and the size of the image;
- the name of what is shown is enough in settings; a margin without a crop is refused;
- both are the whole image and then the crop, for people in one image; records without a box have the whole image alone;
  clips have no place for them;
- records are counted whose image has several boxes but is shown whole, or that have no box for a crop.
"""

from __future__ import annotations

import io

import pytest
from PIL import Image

from lavis_emovit.boxes import WHOLE, BoxCounts, BoxSettings, box_identity, part_of, shown, shown_bytes
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
    (crop,) = shown(_numbered(6, 4), (3.2, 1, 5.5, 3), BoxSettings(show="crop", margin=0.5))
    assert crop.size == (4, 4)
    assert [crop.getpixel(place) for place in ((0, 0), (3, 0), (0, 3), (3, 3))] == [
        (20, 0, 0), (50, 0, 0), (20, 30, 0), (50, 30, 0),
    ]  # fmt: skip


def test_both_are_the_whole_image_and_then_the_crop():
    image, both = _numbered(6, 4), BoxSettings(show="both", margin=0.5)
    whole, crop = shown(image, (3.2, 1, 5.5, 3), both)
    assert whole.tobytes() == image.tobytes()
    assert crop.tobytes() == bytes(value for y in range(4) for x in (2, 3, 4, 5) for value in (10 * x, 10 * y, 0))
    (alone,) = shown(image, None, both)
    assert alone.tobytes() == image.tobytes()


def test_people_see_both_in_one_image():
    buffer, both = io.BytesIO(), BoxSettings(show="both")
    _numbered(6, 4).save(buffer, "PNG")
    joined = decode_image(shown_bytes(buffer.getvalue(), (1, 0, 3, 4), both))
    # The crop of 2 x 4 pixels is 8 pixels to the right of the image.
    assert joined.size == (6 + 8 + 2, 4)
    assert joined.crop((0, 0, 6, 4)).tobytes() == _numbered(6, 4).tobytes()
    assert joined.crop((14, 0, 16, 4)).tobytes() == _numbered(6, 4).crop((1, 0, 3, 4)).tobytes()
    assert shown_bytes(buffer.getvalue(), None, both) == buffer.getvalue()


def test_a_wide_crop_beside_the_whole_image_is_not_wider():
    image = Image.new("RGB", (400, 300), "red")
    image.paste("blue", (0, 0, 200, 10))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    joined = decode_image(shown_bytes(buffer.getvalue(), (0, 0, 200, 10), BoxSettings(show="both")))
    # The crop is enlarged from 200 x 10 to 400 x 20, not to the height of 300, where it would be 6000 wide.
    assert joined.size == (400 + 8 + 400, 300)
    assert joined.crop((408, 0, 808, 20)).getcolors() == [(8000, (0, 0, 255))]
    assert joined.crop((408, 20, 808, 300)).getcolors() == [(112000, (255, 255, 255))]


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


@pytest.mark.parametrize(
    ("box", "margin", "part"),
    [
        ((-1e308, 5, 1e308, 10), 0.0, (0, 5, 40, 10)),
        ((-1e308, 5, 1e308, 10), 0.2, (0, 4, 40, 11)),
        ((3.5, 2, 1e308, 4), 10.0, (0, 0, 40, 24)),
    ],
)
def test_part_of_a_box_of_huge_numbers(box, margin, part):
    assert part_of(box, (40, 30), margin) == part


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
    both = {"box": {"show": "both", "margin": 0.5}}
    assert box_identity(valid_settings(ImageEvalSettings, both, "eval", "a test").box) == both
    clips = valid_settings(ImageEvalSettings, {**both, "frames": {"num_frames": 3}}, "eval", "a test")
    assert clips.num_frames == 6  # the frames and their crops


def test_records_with_several_boxes_for_an_image_or_none_are_counted():
    counted, both = BoxCounts(), BoxSettings(show="both")
    assert counted.problem(None) is None and counted.problem(both) is None
    for image, box, clip in (
        ("a.jpg", (0, 0, 1, 1), None), ("a.jpg", (1, 0, 2, 1), None), ("a.jpg", (1, 0, 2, 1), None),
        ("b.jpg", (0, 0, 1, 1), None), ("b.jpg", None, None),
        ("c.mp4", (0, 0, 1, 1), Clip(start_s=0, end_s=1)), ("c.mp4", (1, 0, 2, 1), Clip(start_s=1, end_s=2)),
    ):  # fmt: skip
        counted.add(image, clip, box)
    for whole in (None, WHOLE):
        problem = counted.problem(whole)
        assert problem.startswith("3 records are about one of several people or faces in 1 images")
    assert counted.problem(both).startswith("records without a box: 1; their image is shown whole")
    assert counted.problem(BoxSettings(show="crop")) is None
