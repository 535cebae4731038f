"""The image encoder of an InstructBLIP model: inside the model, and by itself.

Legend: `B` images, `F` frames of an image that is a clip, `P` image patches (with the class token), `D` width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lavis.common.registry import registry
from torch import nn

from lavis_emovit.models import trained_parts
from lavis_emovit.models.instructblip.checks import check_images
from lavis_emovit.models.instructblip.parts import PART_PREFIXES
from lavis_emovit.models.instructblip.settings import QFormerSettings
from lavis_emovit.models.tensors import PRECISIONS


def encode_images(vision: Any, image: torch.Tensor, image_size: int) -> torch.Tensor:
    """Image features after the layer norm.

    Args:
        vision: transformers' `InstructBlipVisionModel`.
        image: float [B, 3, H, W], or clips [B, 3, F, H, W].

    Returns:
        [B, P, D], or [B, F, P, D].
    """

    def encode(frames: torch.Tensor) -> torch.Tensor:
        patches = vision.embeddings(frames, interpolate_pos_encoding=image_size != vision.config.image_size)
        hidden = vision.encoder(inputs_embeds=patches).last_hidden_state
        return vision.post_layernorm(hidden.to(vision.post_layernorm.weight.dtype))

    return by_frame(encode, image)


def pool(embeds: torch.Tensor) -> torch.Tensor:
    """The class token and the mean of the patches, [B, 2 * D]."""
    return torch.cat([embeds[:, 0], embeds[:, 1:].mean(dim=1)], dim=1)


def by_frame(encode: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor) -> torch.Tensor:
    """What `encode` makes of images [B, 3, H, W]; for clips [B, 3, F, H, W] of each frame, [B, F, ...]."""
    if image.dim() != 5:
        return encode(image)
    embeds = encode(image.transpose(1, 2).flatten(0, 1))
    return embeds.unflatten(0, (image.shape[0], image.shape[2]))


def processors(settings: QFormerSettings) -> tuple[Any, Any]:
    """The image processor of evaluation and the text processor."""
    image = registry.get_processor_class("emovit_image_eval").from_config({"image_size": settings.image_size})
    return image, registry.get_processor_class("emovit_text").from_config()


class InstructBlipImageEncoder(nn.Module):
    """The image encoder without the rest of its model: the same features, bit for bit.

    Args:
        core: the module of `load_vision`.
        settings: those of the model; its parts have the precisions that they have there.
    """

    pool = staticmethod(pool)

    def __init__(self, core: nn.Module, settings: QFormerSettings):
        super().__init__()
        self.core: Any = core
        self.settings = settings
        trained_parts.freeze_all_but(core, PART_PREFIXES, settings.trained_parts, PRECISIONS[settings.frozen_precision])
        self.requires_grad_(False).eval()

    def encode_images(self, image: torch.Tensor) -> torch.Tensor:
        """See `EmoVIT.encode_images`."""
        check_images(image, self.settings.image_size, finite=True)
        return encode_images(self.core.vision_model, image, self.settings.image_size)

    def processors(self) -> tuple[Any, Any]:
        return processors(self.settings)

    def identity(self) -> dict[str, Any]:
        return {
            "arch": self.settings.arch,
            "model_type": self.settings.model_type,
            "image_encoder": trained_parts.fingerprint(self.core, ()),
            "image_size": self.settings.image_size,
            "frozen_precision": self.settings.frozen_precision,
        }
