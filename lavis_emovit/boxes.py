"""What is shown of an image whose record is about one person or face in it: the one rule for training and answers.

Images are decoded by the function that needs it, because every command reads records, and few decode anything.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeGuard

from pydantic import AfterValidator, Field, model_validator

from lavis_emovit.clips.clip import Clip
from lavis_emovit.errors import DataError
from lavis_emovit.settings import Number, Settings

if TYPE_CHECKING:
    from PIL import Image


def _has_an_area(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    if not (box[0] < box[2] and box[1] < box[3]):
        raise ValueError("must be (left, top, right, bottom) with left < right and top < bottom")
    return box


Box = Annotated[tuple[Number, Number, Number, Number], AfterValidator(_has_an_area)]
"""Left, top, right, bottom in pixels of the image as a viewer shows it, after the rotation of its EXIF data."""


class BoxSettings(Settings):
    """What a model sees of a record with a `box`; the name of `show` alone means no margin.

    Attributes:
        show: `whole`: the whole image; `crop`: the part in the box; `both`: two images, the whole one, then the crop;
            of a clip, the whole frames, then their crops.
        margin: what a crop has around the box on each side, as a share of the box's width and height.
    """

    show: Literal["whole", "crop", "both"] = "crop"
    margin: float = Field(default=0.0, ge=0.0, le=10.0)

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"show": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _margin_is_of_a_crop(self) -> BoxSettings:
        if self.margin and self.show == "whole":
            raise ValueError("`margin` belongs to a crop, and `show` is 'whole'; remove it")
        return self


WHOLE = BoxSettings(show="whole")

ONE_IMAGE = "it takes one image, and `box: both` shows two, the whole image and the crop; set `box` to crop or whole"
ORDERED_FRAMES = (
    "the model was tuned with `model.frames`, which reads frames in the order of time, and `box: both` shows their "
    "crops behind them; set `box` to crop or whole"
)
ONLY_WHOLE = "the model was trained with `box: both`; an image without a box is shown whole, without a crop beside it"


def box_identity(settings: BoxSettings | None) -> dict[str, Any]:
    """The part of a fingerprint that stands for these settings: under the key `box`, none if images are shown whole."""
    return {} if settings is None or shows_whole(settings) else {"box": settings.model_dump(mode="json")}


def shows_whole(settings: BoxSettings | None) -> bool:
    """Whether a model sees whole images, with a box or without."""
    return settings is None or settings.show == "whole"


def shows_both(settings: BoxSettings | None) -> TypeGuard[BoxSettings]:
    """Whether a model sees the whole image and the crop."""
    return settings is not None and settings.show == "both"


class BoxCounts:
    """Counts records without a box, and those of images and clips that several records with different boxes are about.

    Attributes:
        num_without: records without a box.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, Clip | None], Counter[Box]] = {}
        self.num_without = 0

    def add(self, image: str, clip: Clip | None, box: Box | None) -> None:
        """Count a record with this image, or this clip of it, and this box."""
        if box is not None:
            self._counts.setdefault((image, clip), Counter())[box] += 1
        else:
            self.num_without += 1

    def problem(self, settings: BoxSettings | None) -> str | None:
        """What is wrong with showing these records so; None if nothing is."""
        if shows_both(settings) and self.num_without:
            return f"records without a box: {self.num_without}; their image is shown whole, without a crop beside it"
        return self._shared() if shows_whole(settings) else None

    def _shared(self) -> str | None:
        shared = [counts for counts in self._counts.values() if len(counts) > 1]
        if not shared:
            return None
        return (
            f"{sum(counts.total() for counts in shared)} records are about one of several people or faces in "
            f"{len(shared)} images, but show the whole image, which is the same for all of them"
        )


SET_BOX = "set `box: crop` (or `both`) of the dataset's vis_processor.train and vis_processor.eval"


def part_of(box: Box, size_px: tuple[int, int], margin: float = 0.0) -> tuple[int, int, int, int]:
    """The part of an image of this width and height in a box, in whole pixels: each pixel that the box touches.

    Parts of the box and its margin outside of the image are cut off.

    Raises:
        DataError: no part of the box itself is in the image.
    """
    if not (box[0] < min(box[2], size_px[0]) and box[1] < min(box[3], size_px[1]) and box[2] > 0 and box[3] > 0):
        corners = ", ".join(f"{corner:g}" for corner in box)
        raise DataError(
            f"the box ({corners}) has no area in the image of {size_px[0]} x {size_px[1]} pixels; boxes are left, top, "
            "right and bottom in pixels of the upright image"
        )
    wide, high = margin * (box[2] - box[0]), margin * (box[3] - box[1])
    # Cut before rounding: the width of a box of huge numbers is infinite, and its product with no margin NaN.
    return (
        math.floor(max(0, box[0] - wide)),
        math.floor(max(0, box[1] - high)),
        math.ceil(min(size_px[0], box[2] + wide)),
        math.ceil(min(size_px[1], box[3] + high)),
    )


def shown(image: Image.Image, box: Box | None, settings: BoxSettings | None) -> tuple[Image.Image, ...]:
    """What a model sees of an upright image of full size whose record has this box: the image, its crop, or both.

    Raises:
        DataError: as `part_of`.
    """
    if not is_cropped(box, settings):
        return (image,)
    assert box is not None and settings is not None
    crop = image.crop(part_of(box, image.size, settings.margin))
    return (image, crop) if shows_both(settings) else (crop,)


def images_of_pair(image: Image.Image, pair: Sequence[Box]) -> list[Image.Image]:
    """The two images that an upright image of full size is made of. DataError as `part_of`."""
    return [image.crop(part_of(box, image.size)) for box in pair]


def is_cropped(box: Box | None, settings: BoxSettings | None) -> bool:
    """Whether a model sees anything but the whole image, for which the image is needed at full size."""
    return box is not None and not shows_whole(settings)


def shown_bytes(data: bytes, box: Box | None, settings: BoxSettings | None) -> bytes:
    """The same of an encoded image, encoded, for people and for models that take one image.

    An image that is shown whole keeps its bytes, a crop becomes a PNG, and so do both, from left to right.
    Beside the whole image, the crop is as large as fits in its width and height.

    Raises:
        DataError: as `part_of`, or the image cannot be decoded.
    """
    from lavis_emovit.images import decode_image, side_by_side

    if not is_cropped(box, settings):
        return data
    whole_or_crop, *crops = shown(decode_image(data), box, settings)
    width_px, height_px = whole_or_crop.size
    joined = side_by_side([whole_or_crop, *crops], height_px, width_px) if crops else whole_or_crop
    return _png(joined)


def bytes_of_pair(data: bytes, pair: Sequence[Box]) -> list[bytes]:
    """Each image of a pair, as a PNG. Raises as `pair_bytes`."""
    from lavis_emovit.images import decode_image

    return [_png(image) for image in images_of_pair(decode_image(data), pair)]


def pair_bytes(data: bytes, pair: Sequence[Box]) -> bytes:
    """Both images of a pair in one, for models that take one image: from left to right at the same height, a PNG.

    Raises:
        DataError: as `part_of`, or the image cannot be decoded.
    """
    from lavis_emovit.images import decode_image, side_by_side

    images = images_of_pair(decode_image(data), pair)
    return _png(side_by_side(images, max(image.height for image in images)))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # The highest speed of compression; these bytes are read once.
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
