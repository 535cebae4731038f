"""What is wrong with a model, found before its weights are loaded."""

from __future__ import annotations

from typing import Any

from lavis.common.registry import registry
from PIL import Image

from lavis_emovit.errors import ConfigError, UserError, WeightsError
from lavis_emovit.models import lora
from lavis_emovit.models.image_text.adapters import PeftAdapter
from lavis_emovit.models.image_text.parts import part_prefixes
from lavis_emovit.models.image_text.settings import ModelSettings
from lavis_emovit.models.image_text.sizes import empty_core


def check(settings: ModelSettings) -> None:
    """Check processor, texts, image sizes and adapters of weights that are on this machine; loads no weight.

    Raises:
        WeightsError, ConfigError: what is wrong; with several faults, a ConfigError that lists them all.
    """
    core = empty_core(settings)
    found: list[UserError] = []
    for check_one in (_check_processor, _check_adapters):
        try:
            check_one(settings, core)
        except UserError as error:
            found.append(error)
    if len(found) == 1:
        raise found[0]
    if found:
        lines = [line for error in found for line in getattr(error, "problems", [str(error)])]
        raise ConfigError(lines, "the model configuration")


def make_image_processor(settings: ModelSettings) -> Any:
    """The processor `emovit_image_text` of a model."""
    node = settings.image_processor()
    return registry.get_processor_class(node["name"]).from_config(node)


def _check_processor(settings: ModelSettings, core: Any) -> None:
    side = settings.max_side_px
    num_tokens = len(make_image_processor(settings)(Image.new("RGB", (side, side))).ids)
    context = getattr(core.config.get_text_config(), "max_position_embeddings", None)
    if context is not None and num_tokens >= context:
        raise WeightsError(
            f"{settings.pretrained}: an image of {side} x {side} pixels, the largest that model.max_side_px allows, "
            f"has {num_tokens} tokens, but the language model's context is {context}; lower model.max_side_px or the "
            "pixels in model.processor"
        )


def _check_adapters(settings: ModelSettings, core: Any) -> None:
    prefixes = part_prefixes(core, settings.pretrained)
    if settings.lora is not None:
        lora.find_targets(core, prefixes, settings.lora)
    if settings.adapter is not None:
        adapter = PeftAdapter.read(settings.adapter)
        if problems := adapter.problems(core, prefixes, settings.pretrained, settings.trained_parts):
            raise ConfigError(problems, "the model configuration")
