"""A small LLaVA with the parts of emovit_small: its image encoder and language model, joined by LLaVA's projector.

The folder is that of a plain image-text model of transformers: FastVLM, which is LLaVA with an image encoder of timm.
The language model has the weights of emovit_small bit for bit, its warm-up included. The image encoder is the same
EfficientNet-Lite0, of which LLaVA reads the last layer only: not the two earlier depths and the class names that
emovit_small adds to it. The projector has seeded random weights.

    python tools/make_small_llava.py            # about a minute, after `make small`; writes data/small_llava
    python -m lavis.train --cfg-path projects/emovit/llava/small.yaml
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from lavis_emovit.errors import WeightsError
from lavis_emovit.files import load_json
from lavis_emovit.models.instructblip.loading import LLM, quiet
from lavis_emovit.models.small import packages, vision
from lavis_emovit.models.small.architecture import CONFIG_NAME, LLM_TOKENIZER, WEIGHTS_NAME
from lavis_emovit.models.small.build import build
from lavis_emovit.models.tensors import read_tensor_file
from lavis_emovit.paths import data_root

TOWER, SIDE_PX, STRIDE_PX = "tf_efficientnet_lite0", 224, 32
IMAGE_TOKEN = "<image>"
# The turns of SmolLM2, with the image where the user's text names it.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>\n{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make(folder: Path, seed: int = 0) -> Path:
    """Write the model and its processor to a folder, and return it.

    Raises:
        WeightsError: a package that emovit_small is built from is missing or damaged.
    """
    small = build()
    with quiet():
        tokenizer = transformers.AutoTokenizer.from_pretrained(small / LLM_TOKENIZER)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    language = {
        name.removeprefix(LLM): tensor
        for name, tensor in read_tensor_file(small / WEIGHTS_NAME).items()
        if name.startswith(LLM)
    }
    text_config = load_json((small / CONFIG_NAME).read_bytes())["text_config"]
    config = transformers.FastVlmConfig(
        vision_config={
            "model_type": "timm_wrapper", "architecture": TOWER, "hidden_size": vision.HEAD_WIDTH, "do_pooling": False,
        },
        text_config={**text_config, "vocab_size": len(tokenizer)},
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        image_seq_length=(SIDE_PX // STRIDE_PX) ** 2,
        tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = transformers.FastVlmForConditionalGeneration(config)
    _load_language(model.model.language_model, language)
    _load_tower(model.model.vision_tower.timm_model)
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    _processor(tokenizer).save_pretrained(folder)
    return folder


def _load_language(model: Any, language: Mapping[str, torch.Tensor]) -> None:
    """Load the weights; the row of the image's token, which is replaced by the image, is zero."""
    state = {name.removeprefix("model."): tensor for name, tensor in language.items()}
    table = state["embed_tokens.weight"]
    added = model.embed_tokens.num_embeddings - len(table)
    state["embed_tokens.weight"] = torch.cat([table, table.new_zeros(added, table.shape[1])])
    model.load_state_dict(state)


def _load_tower(tower: Any) -> None:
    """Load the published tensors, which timm has in the same order under other names."""
    path = packages.verified(packages.VISION)
    published = torch.load(path, map_location="cpu", weights_only=True)
    # The classifier, which comes last, is not part of the tower.
    own = tower.state_dict()
    pairs = list(zip(own.items(), published.items()))
    wrong = [name for (name, tensor), (_, other) in pairs if tensor.shape != other.shape]
    if wrong or len(published) - len(own) != 2:
        raise WeightsError(f"{path}: timm's {TOWER} has other tensors ({', '.join(wrong[:3])}); install timm again")
    tower.load_state_dict({name: other for (name, _), (_, other) in pairs})


def _processor(tokenizer: Any) -> Any:
    image_processor = transformers.CLIPImageProcessor(
        size={"height": SIDE_PX, "width": SIDE_PX},
        do_center_crop=False,
        image_mean=[vision.MEAN] * 3,
        image_std=[vision.STD] * 3,
    )
    return transformers.LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=STRIDE_PX,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        image_token=IMAGE_TOKEN,
        chat_template=CHAT_TEMPLATE,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=data_root() / "small_llava")
    parser.add_argument("--seed", type=int, default=0, help="of the projector's weights")
    arguments = parser.parse_args()
    print(f"a small LLaVA: {make(arguments.folder, arguments.seed)}")


if __name__ == "__main__":
    main()
