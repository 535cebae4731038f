"""Folders with tiny models of the published vision-language families: random weights, model, processor, tokenizer.

Each function takes the sizes of `tiny_parts.Sizes` and returns the folder. What makes a family special is kept: where
the published processor puts image tokens, which classes read text and images, which masks and positions the model has.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import transformers
from tiny_parts import Sizes, fill, make_tokenizer

# Each part of a message is an image or text; these say what a family writes for a message.
LLAVA = (
    "{% for message in messages %}{% if message.role != 'system' %}{{ message.role | upper }}: {% endif %}"
    "{% for part in message.content if part.type == 'image' %}<image>\n{% endfor %}"
    "{% for part in message.content if part.type == 'text' %}{{ part.text }} {% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
LLAVA_NEXT = (
    "{% for message in messages %}{% if message.role == 'assistant' %} {{ message.content[0].text }}</s>"
    "{% elif message.role == 'system' %}<<SYS>>\n{{ message.content[0].text }}\n<</SYS>>\n\n{% else %}[INST] "
    "{% for part in message.content if part.type == 'image' %}<image>\n{% endfor %}"
    "{% for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %} [/INST]{% endif %}{% endfor %}"
)
QWEN = (
    "SYSTEM{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN_SYSTEM = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou answer questions about images.<|im_end|>\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set system = messages[0].content[0].text + '\n\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}<start_of_turn>{{ 'model' if message.role == 'assistant' else message.role }}\n"
    "{% if loop.first %}{{ system }}{% endif %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<start_of_image>{% else %}{{ part.text | trim }}{% endif %}{% endfor %}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
SMOLVLM = (
    "<|im_start|>{% for message in messages %}{{ message.role | capitalize }}:"
    "{% if message.content[0].type != 'image' %} {% endif %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


def _save(model: transformers.PreTrainedModel, processor: transformers.ProcessorMixin, folder: Path, seed: int) -> Path:
    fill(model, seed)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _llava_tokenizer() -> transformers.PreTrainedTokenizerBase:
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = make_tokenizer(
        "LlamaTokenizer", ["<unk>", "<s>", "</s>"], **special, add_bos_token=True, padding_side="left"
    )
    # The published tokenizer gained both after training, behind the trained vocabulary.
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"], "pad_token": "<pad>"})
    return tokenizer


def make_llava15(folder: Path, **sizes: object) -> Path:
    """LLaVA 1.5: a CLIP tower, the last layer but one without its class token, a projector of two layers, Llama."""
    size = Sizes(**sizes)
    tokenizer = _llava_tokenizer()
    tokens = (size.image_px // size.patch_px) ** 2
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**size.vision()).to_dict(),
        text_config=transformers.LlamaConfig(**size.text(tokenizer)).to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), image_seq_length=tokens,
    )  # fmt: skip
    px = size.image_px
    image_processor = transformers.CLIPImageProcessor(size={"shortest_edge": px}, crop_size={"height": px, "width": px})
    processor = transformers.LlavaProcessor(
        image_processor=image_processor, tokenizer=tokenizer, patch_size=size.patch_px, num_additional_image_tokens=1,
        vision_feature_select_strategy="default", chat_template=LLAVA,
    )  # fmt: skip
    return _save(transformers.LlavaForConditionalGeneration(config), processor, folder, 10)


def make_llava_next(folder: Path, **sizes: object) -> Path:
    """LLaVA-NeXT with Mistral: up to four tiles and the whole image, an image_newline behind each row of the tiles."""
    size = Sizes(**sizes)
    tokenizer = _llava_tokenizer()
    px = size.image_px
    grids = [[px, 2 * px], [2 * px, px], [2 * px, 2 * px], [3 * px, px], [px, 3 * px]]
    config = transformers.LlavaNextConfig(
        vision_config=transformers.CLIPVisionConfig(**size.vision()).to_dict(),
        text_config=transformers.MistralConfig(**size.text(tokenizer, sliding_window=None)).to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), image_grid_pinpoints=grids,
        image_seq_length=(px // size.patch_px) ** 2,
    )  # fmt: skip
    image_processor = transformers.LlavaNextImageProcessor(
        size={"shortest_edge": px}, crop_size={"height": px, "width": px}, image_grid_pinpoints=grids
    )
    processor = transformers.LlavaNextProcessor(
        image_processor=image_processor, tokenizer=tokenizer, patch_size=size.patch_px, num_additional_image_tokens=1,
        vision_feature_select_strategy="default", chat_template=LLAVA_NEXT,
    )  # fmt: skip
    return _save(transformers.LlavaNextForConditionalGeneration(config), processor, folder, 14)


def _qwen_tokenizer() -> transformers.PreTrainedTokenizerBase:
    tokenizer = make_tokenizer("Qwen2Tokenizer", [], eos_token="<|im_end|>", pad_token="<|endoftext|>")
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": [*names, "<|video_pad|>"]})
    return tokenizer


def _mrope(size: Sizes, shares: tuple[int, int, int], **more: object) -> dict:
    half = size.width // size.heads // 2
    height, width = (half * share // sum(shares) for share in shares[1:])
    return {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [half - height - width, height, width], **more}


def _qwen_tokens(tokenizer: transformers.PreTrainedTokenizerBase) -> dict[str, int]:
    names = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    names |= {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    return {key: tokenizer.convert_tokens_to_ids(name) for key, name in names.items()}


def _qwen_images(size: Sizes) -> dict:
    merged = (2 * size.patch_px) ** 2
    return {"patch_size": size.patch_px, "size": {"shortest_edge": merged, "longest_edge": 1280 * merged}}


def make_qwen25vl(folder: Path, **sizes: object) -> Path:
    """Qwen2.5-VL: patches of images in their own size, windows in the vision tower, positions in three parts."""
    size = Sizes(**{"patch_px": 4, **sizes})
    tokenizer = _qwen_tokenizer()
    vision = {
        "depth": size.vision_layers, "hidden_size": size.vision_width, "intermediate_size": size.vision_width * 2,
        "num_heads": size.vision_heads, "patch_size": size.patch_px, "window_size": size.vision_window * size.patch_px,
        "out_hidden_size": size.width, "fullatt_block_indexes": [size.vision_layers - 1],
    }  # fmt: skip
    config = transformers.Qwen2_5_VLConfig(
        text_config=size.text(tokenizer, rope_parameters=_mrope(size, (16, 24, 24))), vision_config=vision,
        **_qwen_tokens(tokenizer),
    )  # fmt: skip
    processor = transformers.Qwen2_5_VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(**_qwen_images(size)), tokenizer=tokenizer,
        video_processor=transformers.Qwen2VLVideoProcessor(**_qwen_images(size)),
        chat_template=QWEN.replace("SYSTEM", QWEN_SYSTEM),
    )  # fmt: skip
    return _save(transformers.Qwen2_5_VLForConditionalGeneration(config), processor, folder, 11)


def make_qwen3vl(folder: Path, **sizes: object) -> Path:
    """Qwen3-VL: features of several vision layers are added to the first layers of the language model (deepstack)."""
    size = Sizes(**{"patch_px": 4, "vision_layers": 3, **sizes})
    tokenizer = _qwen_tokenizer()
    vision = {
        "depth": size.vision_layers, "hidden_size": size.vision_width, "intermediate_size": size.vision_width * 2,
        "num_heads": size.vision_heads, "patch_size": size.patch_px, "out_hidden_size": size.width,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": list(range(min(size.layers, size.vision_layers - 1))),
    }  # fmt: skip
    rope = _mrope(size, (24, 20, 20), mrope_interleaved=True)
    config = transformers.Qwen3VLConfig(
        text_config=size.text(tokenizer, head_dim=size.width // size.heads, rope_parameters=rope),
        vision_config=vision, **_qwen_tokens(tokenizer),
    )  # fmt: skip
    processor = transformers.Qwen3VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(**_qwen_images(size)), tokenizer=tokenizer,
        video_processor=transformers.Qwen3VLVideoProcessor(**_qwen_images(size)),
        chat_template=QWEN.replace("SYSTEM", ""),
    )  # fmt: skip
    return _save(transformers.Qwen3VLForConditionalGeneration(config), processor, folder, 12)


def _gemma_tokenizer(**special: str) -> transformers.PreTrainedTokenizerBase:
    return make_tokenizer(
        "GemmaTokenizer", ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"], extra_special_tokens=special
    )


def make_gemma3(folder: Path, **sizes: object) -> Path:
    """Gemma 3: SigLIP, image tokens that see each other, layers with a short window before layers that see everything.

    Pan-and-scan is an option of each call of the processor: its default replaces what the image processor saved.
    """
    size = Sizes(**{"patch_px": 4, **sizes})
    special = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer = _gemma_tokenizer(**special)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"]})
    image, begin, end = (tokenizer.convert_tokens_to_ids(token) for token in special.values())
    tokens = (size.image_px // size.patch_px // 2) ** 2
    head = size.width // size.heads
    text = size.text(
        tokenizer, head_dim=head, query_pre_attn_scalar=head, sliding_window=size.window,
        layer_types=["full_attention" if layer % 2 else "sliding_attention" for layer in range(size.layers)],
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        },
    )  # fmt: skip
    config = transformers.Gemma3Config(
        text_config=text, vision_config=size.vision(model_type="siglip_vision_model", vision_use_head=False),
        mm_tokens_per_image=tokens, image_token_index=image, boi_token_index=begin, eoi_token_index=end,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")],
    )  # fmt: skip
    px = size.image_px
    image_processor = transformers.Gemma3ImageProcessor(size={"height": px, "width": px})
    processor = transformers.Gemma3Processor(
        image_processor=image_processor, tokenizer=tokenizer, image_seq_length=tokens, chat_template=GEMMA
    )
    return _save(transformers.Gemma3ForConditionalGeneration(config), processor, folder, 13)


def make_smolvlm(folder: Path, **sizes: object) -> Path:
    """SmolVLM (Idefics3): named tiles, the whole image behind them, four patches in one token."""
    size = Sizes(**{"patch_px": 4, **sizes})
    tokenizer = make_tokenizer(
        "GPT2Tokenizer", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], bos_token="<|im_start|>",
        eos_token="<end_of_utterance>", pad_token="<|im_end|>",
    )  # fmt: skip
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    names = ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", *tiles]
    tokenizer.add_special_tokens({"additional_special_tokens": names})
    config = transformers.Idefics3Config(
        vision_config=size.vision(), text_config=transformers.LlamaConfig(**size.text(tokenizer)).to_dict(),
        scale_factor=2, image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    image_processor = transformers.Idefics3ImageProcessor(
        size={"longest_edge": 4 * size.image_px}, max_image_size={"longest_edge": size.image_px}
    )
    processor = transformers.Idefics3Processor(
        image_processor=image_processor, tokenizer=tokenizer, chat_template=SMOLVLM,
        image_seq_len=(size.image_px // size.patch_px // 2) ** 2,
    )  # fmt: skip
    return _save(transformers.Idefics3ForConditionalGeneration(config), processor, folder, 15)


def make_paligemma2(folder: Path, **sizes: object) -> Path:
    """PaliGemma 2: Gemma 2 whose prompt sees itself in both directions, no chat template, capped logits."""
    size = Sizes(**{"patch_px": 8, **sizes})
    tokenizer = _gemma_tokenizer(image_token="<image>")
    tokens = (size.image_px // size.patch_px) ** 2
    image_processor = transformers.SiglipImageProcessor(size={"height": size.image_px, "width": size.image_px})
    image_processor.image_seq_length = tokens
    # It adds the tokens of places and segments to the tokenizer.
    processor = transformers.PaliGemmaProcessor(image_processor=image_processor, tokenizer=tokenizer)
    head = size.width // size.heads
    text = size.text(tokenizer, head_dim=head, query_pre_attn_scalar=head, sliding_window=size.context)
    config = transformers.PaliGemmaConfig(
        text_config={"model_type": "gemma2", **text}, projection_dim=size.width, hidden_size=size.width,
        vision_config=size.vision(model_type="siglip_vision_model", vision_use_head=False),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), vocab_size=text["vocab_size"],
    )  # fmt: skip
    return _save(transformers.PaliGemmaForConditionalGeneration(config), processor, folder, 16)


def make_blip2_opt(folder: Path, *, query_tokens: int = 3, **sizes: object) -> Path:
    """BLIP-2 with OPT: query tokens of a Q-Former stand before the begin token, no chat template."""
    size = Sizes(**sizes)
    special = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "</s>"}
    tokenizer = make_tokenizer("GPT2Tokenizer", ["<s>", "<pad>", "</s>"], **special, add_bos_token=True)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    text = size.text(tokenizer, ffn_dim=size.width * size.mlp, word_embed_proj_dim=size.width, dropout=0.0)
    config = transformers.Blip2Config(
        vision_config=size.vision(),
        qformer_config={**size.vision(), "encoder_hidden_size": size.vision_width, "vocab_size": 16},
        text_config=transformers.OPTConfig(**text).to_dict(), num_query_tokens=query_tokens,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    image_processor = transformers.BlipImageProcessor(size={"height": size.image_px, "width": size.image_px})
    processor = transformers.Blip2Processor(image_processor, tokenizer, num_query_tokens=query_tokens)
    return _save(transformers.Blip2ForConditionalGeneration(config), processor, folder, 17)


# What a family without a chat template reads.
PROMPTS = {"paligemma2": "<image>{}", "blip2_opt": "Question: {} Answer:"}

FAMILIES: dict[str, Callable[..., Path]] = {
    "llava15": make_llava15,
    "llava_next": make_llava_next,
    "qwen25vl": make_qwen25vl,
    "qwen3vl": make_qwen3vl,
    "gemma3": make_gemma3,
    "smolvlm": make_smolvlm,
    "paligemma2": make_paligemma2,
    "blip2_opt": make_blip2_opt,
}
