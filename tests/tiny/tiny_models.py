"""Folders with tiny models of transformers with random weights: LLaVA, Qwen2-VL, Gemma 3, BLIP-2, CLIP."""

from __future__ import annotations

import io
import random
from pathlib import Path

import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from lavis_emovit.evaluation.adapters.base import Item
from lavis_emovit.evaluation.truths import Truth
from lavis_emovit.records import EmotionRecord

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] | upper }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def _tokenizer(**options: object) -> transformers.PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<image>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    words = ["Predict emotion: awe", "anger and sadness", "a picture that makes people feel fear"] * 3
    tokenizer.train_from_iterator(
        words, trainers.BpeTrainer(vocab_size=290, special_tokens=special, initial_alphabet=alphabet)
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", **{"pad_token": "<pad>", **options}
    )


def make_llava(folder: Path, *, chat_template: str | None = CHAT_TEMPLATE, pad_token: str | None = "<pad>") -> Path:
    """A LLaVA of two layers that reads pictures of 16 pixels."""
    torch.manual_seed(0)
    tokenizer = _tokenizer(pad_token=pad_token)
    vision = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
    )
    text = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, initializer_range=0.4,
    )  # fmt: skip
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=4, vision_feature_layer=-1,
    )  # fmt: skip
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    size = {"height": 16, "width": 16}
    processor = transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessor(size=size, crop_size=size),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=chat_template,
    )
    processor.save_pretrained(folder)
    return folder


def make_qwen2_vl(folder: Path) -> Path:
    """A Qwen2-VL of two layers, with its rotary positions in three parts."""
    torch.manual_seed(2)
    tokenizer = _tokenizer()
    names = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": names})
    start, end, image, video = (tokenizer.convert_tokens_to_ids(name) for name in names)
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.4, "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 2,
        "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2], "rope_type": "default"},
    }  # fmt: skip
    vision = {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "patch_size": 14, "mlp_ratio": 1}
    config = transformers.Qwen2VLConfig(
        text_config=text, vision_config=vision, image_token_id=image, video_token_id=video,
        vision_start_token_id=start, vision_end_token_id=end,
    )  # fmt: skip
    transformers.Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    transformers.Qwen2VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=56 * 56),
        tokenizer=tokenizer,
        video_processor=transformers.Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE.replace("<image>", "<|vision_start|><|image_pad|><|vision_end|>"),
    ).save_pretrained(folder)
    return folder


def make_gemma3(folder: Path) -> Path:
    """A Gemma 3 of two layers, whose processor wants a list of pictures for each text."""
    torch.manual_seed(3)
    plain = _tokenizer()
    special = {"image_token": "<img>", "boi_token": "<boi>", "eoi_token": "<eoi>"}
    plain.add_special_tokens({"additional_special_tokens": list(special.values())})
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain.backend_tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        extra_special_tokens=special,
    )  # fmt: skip
    image, begin, end = (tokenizer.convert_tokens_to_ids(token) for token in special.values())
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 32,
        "initializer_range": 0.4, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 16, "patch_size": 4}  # fmt: skip
    config = transformers.Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=image, boi_token_index=begin,
        eoi_token_index=end,
    )  # fmt: skip
    model = transformers.Gemma3ForConditionalGeneration(config)
    # It begins at zero, and the model would be blind.
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight)
    model.save_pretrained(folder)
    transformers.Gemma3Processor(
        image_processor=transformers.Gemma3ImageProcessor(size={"height": 16, "width": 16}),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=CHAT_TEMPLATE.replace("<image>", "<boi>"),
    ).save_pretrained(folder)
    return folder


def make_blip2_t5(folder: Path) -> Path:
    """A BLIP-2 around an encoder-decoder of two layers."""
    torch.manual_seed(4)
    tokenizer = _tokenizer()
    text = transformers.T5Config(
        vocab_size=len(tokenizer) + 1, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0,
        pad_token_id=0, eos_token_id=2, feed_forward_proj="gated-gelu", tie_word_embeddings=False,
    )  # fmt: skip
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Blip2Config(
        vision_config={**small, "image_size": 16, "patch_size": 8, "initializer_range": 0.4},
        qformer_config={**small, "encoder_hidden_size": 16, "vocab_size": 16, "initializer_range": 0.4},
        text_config=text.to_dict(), num_query_tokens=3, image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    model = transformers.Blip2ForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.25)
    model.save_pretrained(folder)
    image_processor = transformers.BlipImageProcessor(size={"height": 16, "width": 16})
    transformers.Blip2Processor(image_processor, tokenizer, num_query_tokens=3).save_pretrained(folder)
    return folder


def make_clip(folder: Path) -> Path:
    """A CLIP of one layer a side that reads pictures of 16 pixels."""
    torch.manual_seed(1)
    tokenizer = _tokenizer()
    text = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.4,
    )  # fmt: skip
    vision = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8,
        initializer_range=0.4,
    )  # fmt: skip
    config = transformers.CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8, logit_scale_init_value=1.5
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    size = {"height": 16, "width": 16}
    transformers.CLIPProcessor(
        image_processor=transformers.CLIPImageProcessor(size=size, crop_size=size), tokenizer=tokenizer
    ).save_pretrained(folder)
    return folder


def picture(seed: int, colour: tuple[int, int, int] | None = None, *, size_px: int = 32) -> bytes:
    """A picture as PNG: noise, or a colour with a little noise."""
    rng = random.Random(seed)
    image = Image.new("RGB", (size_px, size_px), colour or (0, 0, 0))
    for x in range(size_px):
        for y in range(size_px):
            base = colour or tuple(rng.randrange(256) for _ in range(3))
            image.putpixel((x, y), tuple(max(0, min(255, c + rng.randrange(-9, 10))) for c in base))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def item(number: int, data: bytes, **truth: object) -> Item:
    """An item of a benchmark."""
    record = EmotionRecord(id=f"t/{number}", image="t.png", split="test", source="t")
    return Item(record, data, Truth(**truth))
