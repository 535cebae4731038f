#!/usr/bin/env bash
# transformers 5: Qwen2.5-VL, Gemma 3 and PaliGemma give other logits, without an error, if token types are left out.
#
# Processors of these models return `mm_token_type_ids` or `token_type_ids` beside input_ids, pixel_values and the size of
# the image. In version 5.24 they decide more than their name says: Qwen2.5-VL computes the rows and columns of its image
# tokens from them, Gemma 3 lets its image tokens see each other, and PaliGemma its whole prompt. Code that passes the keys
# it knows, such as a collator written for Qwen2.5-VL in version 4, which did without them, runs as before: Qwen2.5-VL
# counts image tokens as text, the others use a causal mask, and nothing is logged. Qwen3-VL raises an error that names the
# missing key. Issue 1416 of ModelTC/LightX2V reports the case of Qwen2.5-VL.
#
# Run: bash findings/transformers_missing_token_types_change_the_answer.sh
# (about 1 GB in a temporary folder; exits with 1 if this changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 numpy==2.4.6
cd "$folder"
export HF_HOME="$folder/cache" HF_HUB_OFFLINE=1
"$folder/venv/bin/python" - <<'PYTHON'
import torch
import transformers
from transformers import AutoModelForImageTextToText, Gemma3Config, PaliGemmaConfig, Qwen2_5_VLConfig, Qwen3VLConfig

transformers.logging.set_verbosity_error()
print(f"torch {torch.__version__}, transformers {transformers.__version__}")
IMAGE = 3
TOKENS = torch.tensor([[5, IMAGE, IMAGE, IMAGE, IMAGE, 6, 7, 8, 9]])
IS_IMAGE = (TOKENS == IMAGE).long()
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {**SMALL, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 16}
SIGLIP = {**SMALL, "model_type": "siglip_vision_model", "image_size": 16, "vision_use_head": False}
PIXELS = torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)
ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
QWEN_VISION = {
    "depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 4, "out_hidden_size": 32,
}
QWEN = {"image_token_id": IMAGE, "video_token_id": 1, "vision_start_token_id": 5}
# 4 x 4 patches, each of two frames, three colours and 4 x 4 pixels; four patches become one token.
PATCHES = {
    "pixel_values": torch.linspace(-1, 1, 16 * 96).reshape(16, 96), "image_grid_thw": torch.tensor([[1, 4, 4]]),
}


def change(config, types, **image):
    """How much the logits behind the last token change without the token types that the processor returns."""
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config).eval()
    batch = {"input_ids": TOKENS, "attention_mask": torch.ones_like(TOKENS), **image}
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.5)
        return (model(**batch, **types).logits - model(**batch).logits)[0, -1].abs().max().item()


qwen25 = Qwen2_5_VLConfig(text_config={**TEXT, "rope_parameters": ROPE}, vision_config=QWEN_VISION, **QWEN)
gemma = Gemma3Config(
    text_config={**TEXT, "query_pre_attn_scalar": 16}, vision_config={**SIGLIP, "patch_size": 4},
    mm_tokens_per_image=4, image_token_index=IMAGE, boi_token_index=5, eoi_token_index=6,
)
paligemma = PaliGemmaConfig(
    text_config={**TEXT, "model_type": "gemma2", "query_pre_attn_scalar": 16}, projection_dim=32, hidden_size=32,
    vision_config={**SIGLIP, "patch_size": 8}, image_token_index=IMAGE,
)
changes = {
    "Qwen2.5-VL without mm_token_type_ids": change(qwen25, {"mm_token_type_ids": IS_IMAGE}, **PATCHES),
    "Gemma 3 without token_type_ids": change(gemma, {"token_type_ids": IS_IMAGE}, pixel_values=PIXELS),
    "PaliGemma 2 without token_type_ids": change(
        paligemma, {"token_type_ids": torch.zeros_like(TOKENS)}, pixel_values=PIXELS
    ),
}
for name, value in changes.items():
    print(f"{name}: no error, logits behind the last token change by {value:.3f}")
qwen3 = Qwen3VLConfig(
    text_config={**TEXT, "rope_parameters": {**ROPE, "mrope_interleaved": True}}, **QWEN,
    vision_config={**QWEN_VISION, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
)
try:
    change(qwen3, {"mm_token_type_ids": IS_IMAGE}, **PATCHES)
    error = ""
except ValueError as raised:
    error = str(raised)
print(f"Qwen3-VL without mm_token_type_ids: {error or 'no error'}")
assert min(changes.values()) > 1e-2 and "mm_token_type_ids" in error, "the behaviour has changed"
PYTHON
