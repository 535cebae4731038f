"""Images as an image-text model of transformers reads them: of any size, with any number of tokens.

Legend: `B` images, `P` tokens of the beginning of a text, up to the last token of its image. An image here may be
several, one after the other in one text: the frames of a clip, or the whole image and the crop with `box: both`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class PreparedImage:
    """One image.

    Attributes:
        ids: long [P], the tokens from the beginning of the text to the last token of the image.
        kinds: long [P], what the model's processor says of each token (0 is text), or None.
        features: what else the processor returns for one image, such as `pixel_values` and `image_grid_thw`.
        sizes_px: width and height of each image.
    """

    ids: torch.Tensor
    kinds: torch.Tensor | None
    features: dict[str, torch.Tensor]
    sizes_px: tuple[tuple[int, int], ...]

    @property
    def num_images(self) -> int:
        return len(self.sizes_px)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, under the name that a tensor has for its own."""
        kinds = 0 if self.kinds is None else self.kinds.nbytes
        return self.ids.nbytes + kinds + sum(value.nbytes for value in self.features.values())

    def unsqueeze(self, dim: int) -> PreparedImages:
        """A batch of this image alone, as tensors of images make one."""
        return PreparedImages((self,))

    def map(self, change: Any) -> PreparedImage:
        """The same with another tensor in the place of each."""
        features = {name: change(value) for name, value in self.features.items()}
        kinds = None if self.kinds is None else change(self.kinds)
        return replace(self, ids=change(self.ids), kinds=kinds, features=features)

    def still_at_each_frame(self, num_frames: int) -> list[PreparedImage]:
        """See `LanguageModel`; none if frames or crops differ in size: their tokens cannot be exchanged."""
        if len(set(self.sizes_px)) > 1:
            return []
        copies, before = [], [1, *range(num_frames - 1)]
        for place in range(num_frames):
            # Behind the frames are their crops.
            shown = [
                image - place + before[place] if image % num_frames == place else image
                for image in range(self.num_images)
            ]
            features = {name: _in_order(value, shown) for name, value in self.features.items()}
            copies.append(replace(self, features=features))
        return copies


@dataclass(frozen=True)
class PreparedImages:
    """The images of a batch. Like a tensor, they have a length and move to a device."""

    images: tuple[PreparedImage, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, part: slice) -> PreparedImages:
        return PreparedImages(self.images[part])

    def to(self, device: Any, non_blocking: bool = False) -> PreparedImages:
        """The same on a device. Token ids stay on the host, which makes rows of them."""
        moved = []
        for image in self.images:
            features = {name: value.to(device, non_blocking=non_blocking) for name, value in image.features.items()}
            moved.append(replace(image, features=features))
        return PreparedImages(tuple(moved))

    def pin_memory(self) -> PreparedImages:
        """The same in page-locked memory; a loader of torch calls it."""
        return PreparedImages(tuple(image.map(torch.Tensor.pin_memory) for image in self.images))

    def blank(self) -> PreparedImages:
        """The first image without content: every pixel is next to zero after normalisation, every size stays."""
        first = self.images[0]
        features = {
            # Not zero, which SmolVLM takes for a tile of padding and leaves out.
            name: torch.full_like(value, 1e-6) if value.is_floating_point() else value
            for name, value in first.features.items()
        }
        return PreparedImages((replace(first, features=features),))

    def stack(self, numbers: Sequence[int] | None = None) -> dict[str, torch.Tensor]:
        """The features of some images, of all by default, one after the other along the first dimension.

        Other dimensions are padded with zeros to the largest, as the processors do (tiles of LLaVA-NeXT and SmolVLM).
        """
        chosen = self.images if numbers is None else [self.images[number] for number in numbers]
        return {name: _concatenate([image.features[name] for image in chosen]) for name in chosen[0].features}


def _in_order(feature: torch.Tensor, numbers: Sequence[int]) -> torch.Tensor:
    """A feature of equal images with these in place of its own; they are along its first dimension that has them."""
    dim = next(dim for dim, size in enumerate(feature.shape) if size >= len(numbers))
    parts = feature.chunk(len(numbers), dim)
    return torch.cat([parts[number] for number in numbers], dim)


def _concatenate(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    largest = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors))]
    padded = []
    for tensor in tensors:
        missing = [want - have for want, have in zip(largest, tensor.shape[1:])]
        # torch wants the last dimension first.
        amounts = [amount for size in reversed(missing) for amount in (0, size)]
        padded.append(F.pad(tensor, amounts) if any(missing) else tensor)
    return torch.cat(padded)
