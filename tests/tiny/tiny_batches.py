"""For the tiny models of the family `image_text`: batches, three images of three sizes and six questions; recipes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from tiny_families import FAMILIES
from tiny_models import picture

from lavis_emovit.models.image_text.model import ImageText
from lavis_emovit.processors import emovit_image_text, emovit_text  # noqa: F401  both register a processor

# Families whose questions share their image.
SHARING = ("llava15", "llava_next", "qwen25vl", "qwen3vl", "gemma3", "smolvlm", "blip2_opt")
# Settings that a family cannot do without.
NEEDED: dict[str, dict[str, Any]] = {"paligemma2": {"template": "<image>{question}", "attention": "eager"}}
QUESTIONS = ["How?", "Which feeling is it?", "Why so", "\nWhat", "Is it so? Tell me", " and now"]
ANSWERS = ["awe", "because of the blue sky", "fear", "", "anger and sadness", " \nawe"]


def model_of(folder: Path, **settings: Any) -> ImageText:
    """The model in a folder of a family, which names it, with settings over its own."""
    values = {"arch": "emovit_image_text", "pretrained": "", "path": str(folder), "frozen_precision": "fp32"}
    return ImageText.from_config({**values, **NEEDED.get(folder.name, {}), **settings})


def picture_of(number: int) -> Image.Image:
    """Images of three sizes."""
    return Image.open(io.BytesIO(picture(number, size_px=32 + 16 * number)))


def batch_of(model: ImageText) -> dict[str, Any]:
    """Six questions about three images, not in the order of the images."""
    processor, _ = model.processors()
    return {
        "image": processor.stack([processor(picture_of(number)) for number in range(3)]),
        "image_index": torch.tensor([0, 0, 2, 1, 2, 1]),
        "text_input": list(QUESTIONS),
        "text_output": list(ANSWERS),
    }


def write_recipe(root: Path, name: str, family: str, model: dict[str, Any], datasets: Any, run: dict[str, Any]) -> Path:
    """The recipe of a run of this name, in `root`; `model` and `run` are settings over those that all have."""
    folder = root / "weights" / family
    if not folder.exists():
        FAMILIES[family](folder)
    values = {
        "model": {
            "arch": "emovit_image_text", "path": str(folder), "frozen_precision": "fp32", "max_side_px": 48,
            **NEEDED.get(family, {}), **model,
        },
        "datasets": datasets,
        "run": {"output_dir": str(root / name), **run},
    }  # fmt: skip
    path = root / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path
