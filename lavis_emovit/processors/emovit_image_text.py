"""LAVIS processor `emovit_image_text`: images for an image-text model of transformers, by the model's own processor."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from lavis.common.registry import registry
from PIL import Image

from lavis_emovit.errors import ConfigError, WeightsError, first_line
from lavis_emovit.images import to_rgb
from lavis_emovit.processors.base import ImageProcessor
from lavis_emovit.processors.chat_text import ChatText
from lavis_emovit.processors.prepared import PreparedImage, PreparedImages
from lavis_emovit.processors.settings import ImageTextSettings
from lavis_emovit.settings import nearest_name


@registry.register_processor("emovit_image_text")
class EmovitImageTextProcessor(ImageProcessor):
    """Images with the beginning of the text that their model reads; the model's processor is loaded on first use."""

    settings_class = ImageTextSettings
    settings: ImageTextSettings
    is_random = True  # of clips, the frames alone

    def __call__(self, item: Image.Image, seed: int | None = None) -> PreparedImage:
        """An image as model input, of any size; `seed` has no effect."""
        return self.beside([item])

    def beside(self, images: Iterable[Image.Image], seed: int | None = None) -> PreparedImage:
        """The whole image and the crop in one text; without a crop, the whole image alone.

        WeightsError if the model cannot read as many images.
        """
        return self.chat.read([self._scaled(to_rgb(image)) for image in images])

    def over_time(
        self,
        frames: Iterable[tuple[Image.Image, ...]],
        num_frames: int,
        seed: int | None = None,
        *,
        both: bool = False,
    ) -> PreparedImage:
        """The frames in one text, in the order of time, and behind them their crops; an image is shown once.
        WeightsError as in `beside`."""
        found = [tuple(self._scaled(to_rgb(image)) for image in frame) for frame in frames]
        crops = [frame[1] for frame in found if len(frame) > 1]
        return self.chat.read([*(frame[0] for frame in found), *crops])

    @property
    def reads_both(self) -> bool:
        return super().reads_both and self.chat.reads_two

    @property
    def reads_pairs(self) -> bool:
        return self.chat.reads_two

    def check_num_images(self) -> None:
        """See `ImageProcessor`; loads the model's processor if there are several."""
        if self.settings.num_frames > 1:
            self.chat.asked_of(self.settings.num_frames)

    def _scaled(self, image: Image.Image) -> Image.Image:
        if max(image.size) > self.settings.max_side_px:
            image = image.copy()
            image.thumbnail((self.settings.max_side_px, self.settings.max_side_px))
        return image

    def stack(self, images: Sequence[PreparedImage]) -> PreparedImages:  # type: ignore[override]
        return PreparedImages(tuple(images))

    @property
    def min_side_px(self) -> int | None:
        """A larger JPEG may be decoded at a smaller size, as long as `max_side_px` is left."""
        return self.settings.max_side_px

    @cached_property
    def chat(self) -> ChatText:
        """The texts of the model; WeightsError if its processor cannot be loaded or used, ConfigError for an option
        that it does not have."""
        from transformers import AutoConfig, AutoProcessor, GenerationConfig

        place, settings = self.settings.pretrained, self.settings
        if not place:
            raise WeightsError("set model.path to a folder that transformers can load, or to a hub id")
        where: dict[str, Any] = {"revision": settings.revision}
        problems: list[str] = []
        try:
            config = AutoConfig.from_pretrained(place, **where)
            processor = AutoProcessor.from_pretrained(place, **where)
            problems = _unknown_options(processor, settings.options)
            if settings.options and not problems:
                processor = AutoProcessor.from_pretrained(place, **where, **settings.options)
        except Exception as error:  # a damaged file can raise anything
            raise WeightsError(
                f"{place}: no image-text processor that transformers can load ({first_line(error)})"
            ) from error
        if problems:
            raise ConfigError(problems, "the model configuration")
        if getattr(processor, "image_processor", None) is None:
            raise WeightsError(f"{place}: it has no image processor, so it is no image-text model")
        image_token = getattr(config, "image_token_id", None)
        if image_token is None:
            raise WeightsError(f"{place}: its config.json names no image token (image_token_id)")
        try:
            ends = GenerationConfig.from_pretrained(place, **where).eos_token_id
        except OSError:  # a folder need not have one
            ends = config.get_text_config().eos_token_id
        listed = list(ends) if isinstance(ends, (list, tuple)) else [ends]
        own = [processor.tokenizer.eos_token_id, *listed]
        end_ids = list(dict.fromkeys(number for number in own if number is not None))
        if not end_ids:
            raise WeightsError(f"{place}: its tokenizer names no token that ends an answer (eos_token)")
        return ChatText(
            processor, image_token, end_ids, template=settings.template, system=settings.system, name=str(place)
        )


def _unknown_options(processor: Any, options: Iterable[str]) -> list[str]:
    """A line for each option that would have no effect, because transformers ignores names that it does not know.

    Also for options of the loading itself: a recipe must not make it run code of the weights' author.
    """
    reader = getattr(processor, "image_processor", None)
    kinds = getattr(reader, "valid_kwargs", None)
    if kinds is None:  # of a processor written before transformers named them
        known = set(inspect.signature(type(reader)).parameters)
    else:
        known = set(kinds.__annotations__) - {"return_tensors", "device"}
    known |= set(inspect.signature(type(processor)).parameters)
    known -= {"self", "args", "kwargs", "tokenizer", "image_processor", "video_processor"}
    return [
        f"model.processor.{name}: {type(reader).__name__} has no such option{nearest_name(name, sorted(known))}"
        for name in options
        if name not in known
    ]
