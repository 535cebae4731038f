"""Base of the image processors: settings, and stacking images into a batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from lavis.processors.base_processor import BaseProcessor
from PIL import Image

from lavis_emovit.boxes import Box, BoxSettings, is_cropped, shown, shows_both
from lavis_emovit.clips.clip import Clip, FrameSettings
from lavis_emovit.clips.reading import read_frames
from lavis_emovit.errors import DataError
from lavis_emovit.images import decode_image
from lavis_emovit.processors.image import stack_images
from lavis_emovit.processors.settings import read_processor_settings
from lavis_emovit.settings import Settings

NO_FRAMES = "the data have clips; set `frames` of the image processors, such as {num_frames: 8} (docs/clips.md)"


class ImageProcessor(BaseProcessor):
    """A subclass names its settings and turns one image into model input."""

    settings_class: ClassVar[type[Settings]]
    settings: Any
    is_random: ClassVar[bool] = False  # whether a seed changes the result, and the frames of a clip

    def __init__(self, settings: Settings | None = None):
        self.settings = settings or self.settings_class()

    @classmethod
    def from_config(cls, cfg: Any = None) -> ImageProcessor:
        return cls(read_processor_settings(cls.settings_class, cfg))

    @property
    def min_side_px(self) -> int | None:
        """The smallest size to decode an image at; None: full size."""
        return None

    @property
    def frames(self) -> FrameSettings | None:
        """Which frames of clips are looked at; None: it reads images."""
        return getattr(self.settings, "frames", None)

    @property
    def box(self) -> BoxSettings | None:
        """What is shown of a record with a box; None: the whole image."""
        return getattr(self.settings, "box", None)

    @property
    def reads_both(self) -> bool:
        """Whether it can show the whole image and a crop of it together, as `box: both` does."""
        return True

    @property
    def reads_pairs(self) -> bool:
        """Whether the model takes several images in one message, as those of a pair."""
        return False

    def check_num_images(self) -> None:
        """WeightsError if the model cannot read as many images as the settings show of a record."""

    def read(
        self,
        data: bytes,
        clip: Clip | None = None,
        box: Box | None = None,
        *,
        show: BoxSettings | None = None,
        seed: int | None = None,
        max_pixels: int | None = None,
    ) -> tuple[Any, tuple[float, ...] | None]:
        """An encoded image as model input, and None; with `frames`, a clip and the presentation times of its frames.

        All frames of a clip are cropped and flipped alike. An image is then a clip that shows it in every frame. With
        `box: both`, an image is the two images of `beside`, and a clip its whole frames, then their crops.

        Args:
            box: of the record; of a clip, the same in every frame.
            show: what is shown of a record with a box; None: as the settings say.
            max_pixels: of an image, see `decode_image`.

        Returns:
            float32 [3, H, W], [3, F, H, W] with `frames`, and twice as many images with `box: both`; and F times in
            seconds.

        Raises:
            DataError: it cannot be decoded, the box has no area in it, or it is a clip and the settings have no
                `frames`.
            WeightsError: the model reads one image and gets several.
        """
        frames, show = self.frames, show or self.box
        min_side_px = None if is_cropped(box, show) else self.min_side_px
        if clip is None:
            image = decode_image(data, min_side_px=min_side_px, max_pixels=max_pixels)
            images = shown(image, box, show)
            if frames is not None:
                times = (0.0,) * frames.num_frames
                return self.over_time([images], frames.num_frames, seed, both=shows_both(show)), times
            return self.beside(images, seed) if shows_both(show) else self(images[0], seed=seed), None
        if frames is None:
            raise DataError(NO_FRAMES)
        draw = seed if self.is_random else None
        times_s: list[float] = []

        def shown_frames() -> Iterator[tuple[Image.Image, ...]]:
            for time_s, image in read_frames(data, clip, frames, seed=draw, min_side_px=min_side_px):
                times_s.append(round(time_s, 3))
                yield shown(image, box, show)

        clip_of = self.over_time(shown_frames(), frames.num_frames, seed, both=shows_both(show))
        return clip_of, tuple(times_s)

    def beside(self, images: Sequence[Image.Image], seed: int | None) -> Any:
        """The whole image and the crop as one model input, float32 [3, 2, H, W]; without a crop, the whole one twice.

        All records of a batch have as many images.
        """
        found = [self(image, seed=seed) for image in images]
        return torch.stack([found[0], found[-1]], dim=1)

    def over_time(
        self, frames: Iterable[tuple[Image.Image, ...]], num_frames: int, seed: int | None, *, both: bool = False
    ) -> Any:
        """The frames of a clip as one model input, float32 [3, num_frames, H, W]; an image is shown in every frame.

        A frame is what is shown of it. With `both`, the frames are followed by their crops, [3, 2 * num_frames, H, W];
        those without one are whole there too.
        """
        found = [[self(image, seed=seed) for image in frame] for frame in frames]
        found = found * num_frames if len(found) == 1 else found
        streams = ([frame[0] for frame in found], [frame[-1] for frame in found])
        return torch.stack([image for stream in streams[: 1 + both] for image in stream], dim=1)

    def stack(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        """A batch of images from this processor, float32 [B, 3, image_size, image_size]; clips have [B, 3, F, ...]."""
        return stack_images(images)
