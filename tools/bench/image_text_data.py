"""Models, texts and images for `image_text.py`."""

from __future__ import annotations

import io
import random
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from training_step import LENGTHS
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests" / "tiny"))
from tiny_families import FAMILIES

LARGE = {
    "width": 640, "layers": 8, "heads": 10, "mlp": 3, "vocab": 32000, "vision_width": 384, "vision_layers": 8,
    "vision_heads": 6, "patch_px": 14,
}  # fmt: skip
SHAPES: dict[str, dict[str, dict[str, Any]]] = {
    "100m": {
        "llava15": {**LARGE, "kv_heads": 10, "image_px": 336},
        "qwen25vl": {**LARGE, "kv_heads": 2, "vision_window": 8},
    },
    # For tests of this script.
    "tiny": {"llava15": {}, "qwen25vl": {}},
}
# Width and height of the image files.
IMAGE_PX = {
    "100m": {"llava15": (500, 400), "qwen25vl": (672, 672)},
    "tiny": {"llava15": (50, 40), "qwen25vl": (32, 32)},
}
# Changes of the chat templates. TRL reads and learns what a template writes and nothing more, so the template of LLaVA
# has to write the token that begins a text, and an answer has to end with its end token and nothing behind it.
TEMPLATES = {
    "llava15": {
        "{% for message in messages %}": "<s>{% for message in messages %}",
        "{{ part.text }} {% endfor %}": (
            "{{ part.text }}{{ '</s>' if message.role == 'assistant' else ' ' }}{% endfor %}"
        ),
    },
    "qwen25vl": {
        "<|im_end|>\n{% endfor %}": "<|im_end|>{{ '' if message.role == 'assistant' else '\\n' }}{% endfor %}"
    },
}
# In EmoVIT's released data, an image with a conversation has three questions of it, and one in ten a reasoning too.
# Elsewhere the categorical question, which every image can have, is the fourth.
CONVERSATION = ("conversation", "conversation", "complex")
SHARE_REASONING = 0.1
# The eight labels of EmoSet have 17 tokens in a tokenizer of Llama.
CANDIDATE_WORDS = (2, 2, 2, 2, 2, 2, 2, 3)


class BenchModel:
    """A model with random weights in a folder, with texts and images for it."""

    def __init__(self, folder: Path, family: str, shapes: str):
        self.family, self._image_px = family, IMAGE_PX[shapes][family]
        self.folder = FAMILIES[family](folder, **SHAPES[shapes][family])
        template = folder / "chat_template.jinja"
        text = template.read_text(encoding="utf-8")
        for old, new in TEMPLATES[family].items():
            assert text.count(old) == 1
            text = text.replace(old, new)
        template.write_text(text, encoding="utf-8")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        # Words that are one token each behind another.
        marked = [re.fullmatch(r"[▁Ġ]([a-z]{2,})", token) for token in tokenizer.get_vocab()]
        self._words = sorted(found[1] for found in marked if found)

    def words(self, rng: random.Random, count: int) -> str:
        return " ".join(rng.choice(self._words) for _ in range(count))

    def step(self, rng: random.Random, questions: int, images: int) -> dict[str, Any]:
        """Images with 4 questions each, or with the categorical one."""
        paths, index, kinds = [], [], []
        for number in range(images):
            paths.append(self._image(rng))
            last = "reasoning" if rng.random() < SHARE_REASONING else "categorical"
            asked = [*CONVERSATION, last] if questions == 4 else ["categorical"]
            rng.shuffle(asked)
            kinds += asked
            index += [number] * len(asked)
        asked, answers = ([self.words(rng, rng.randint(*LENGTHS[kind][part])) for kind in kinds] for part in (0, 1))
        return {"images": paths, "image_index": index, "kinds": kinds, "questions": asked, "answers": answers}

    def candidates(self, rng: random.Random) -> list[str]:
        return [self.words(rng, count) for count in CANDIDATE_WORDS]

    def _image(self, rng: random.Random) -> str:
        """The path of a JPEG with smooth colours and some noise."""
        numbers = np.random.default_rng(rng.randrange(2**32))
        smooth = Image.fromarray(numbers.integers(0, 255, (6, 8, 3), dtype=np.uint8))
        pixels = np.asarray(smooth.resize(self._image_px, Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = np.clip(pixels + numbers.integers(-8, 8, pixels.shape), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noisy).save(buffer, "JPEG", quality=90)
        path = self.folder / f"image_{rng.randrange(2**64):016x}.jpg"
        path.write_bytes(buffer.getvalue())
        return str(path)

    def parameters(self) -> dict[str, int]:
        """Number of weights: all, and those of matrices that are multiplied once for each position of a part."""
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(self.folder))
        counts = dict.fromkeys(("total", "language_model", "head", "projector", "vision_encoder"), 0)
        for name, weight in model.named_parameters():
            counts["total"] += weight.numel()
            if weight.ndim < 2 or "embed" in name:
                continue
            if "multi_modal_projector" in name or "visual.merger" in name:
                part = "projector"
            elif "vision_tower" in name or "visual" in name:
                part = "vision_encoder"
            else:
                part = "head" if "lm_head" in name else "language_model"
            counts[part] += weight.numel()
        return counts
