#!/usr/bin/env bash
# transformers 5: with gradient accumulation, the Trainer weights answers by tokens for LLaVA, by micro-batches for Qwen-VL.
#
# Since version 4.46 the Trainer divides the loss of all micro-batches of a step by their common number of tokens, so that
# `gradient_accumulation_steps` does not change the result. In version 5.24 this holds for LLaVA, SmolVLM, Gemma 3 and
# PaliGemma. Qwen2.5-VL and Qwen3-VL set `accepts_loss_kwargs = False` (since pull request 40333), and the Trainer takes
# the mean of the means instead: a token of an answer with one word counts as much as all tokens of a long one in another
# micro-batch. Where short and long answers are mixed, the batch size per device changes the training, and two models in
# one comparison are trained on differently weighted data. Nothing is logged.
#
# Run: bash findings/transformers_accumulation_weights_qwen_vl_by_micro_batch.sh
# (about 1 GB in a temporary folder; exits with 1 if this changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 accelerate==1.15.0 numpy==2.4.6 pillow==13.0.0
cd "$folder"
export HF_HOME="$folder/cache" HF_HUB_OFFLINE=1
"$folder/venv/bin/python" - <<'PYTHON'
import torch
import transformers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PrinterCallback,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Trainer,
    TrainingArguments,
)

transformers.logging.set_verbosity_error()
print(f"torch {torch.__version__}, transformers {transformers.__version__}")
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TOKENS = torch.tensor([[5, 3, 3, 3, 3, 6, 7, 8, 9, 10, 11, 12]] * 2)
LABELS = TOKENS.clone()
LABELS[0, :-1] = LABELS[1, :-5] = -100  # an answer of one token, and one of five


def make_llava():
    vision = CLIPVisionConfig(image_size=16, patch_size=8, **SMALL)
    config = LlavaConfig(
        vision_config=vision, text_config=LlamaConfig(vocab_size=16, **SMALL), image_token_index=3
    )
    return LlavaForConditionalGeneration(config), {"pixel_values": torch.ones(2, 3, 16, 16)}


def make_qwen():
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    vision = {
        "depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 4,
        "out_hidden_size": 32,
    }
    config = Qwen2_5_VLConfig(
        text_config={**SMALL, "num_key_value_heads": 2, "vocab_size": 16, "rope_parameters": rope},
        vision_config=vision, image_token_id=3, video_token_id=1, vision_start_token_id=5,
    )
    image = {"pixel_values": torch.ones(2, 16, 96), "image_grid_thw": torch.tensor([[1, 4, 4]] * 2)}
    return Qwen2_5_VLForConditionalGeneration(config), {**image, "mm_token_type_ids": (TOKENS == 3).long()}


def collate(rows):
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    if "image_grid_thw" in batch:
        batch["pixel_values"] = batch["pixel_values"].flatten(0, 1)
    return batch


def update(make, batch_size):
    """The change of all weights in one step of SGD over both rows, in micro-batches of this size."""
    torch.manual_seed(0)
    model, image = make()
    columns = {"input_ids": TOKENS, "labels": LABELS, **image}
    rows = [{name: value[row] for name, value in columns.items()} for row in range(2)]
    before = torch.cat([weight.detach().flatten() for weight in model.parameters()])
    options = TrainingArguments(
        "out", use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True, logging_strategy="no",
        max_steps=1, per_device_train_batch_size=batch_size, gradient_accumulation_steps=2 // batch_size,
        optim="sgd", learning_rate=1.0, lr_scheduler_type="constant", max_grad_norm=0.0, remove_unused_columns=False,
    )
    trainer = Trainer(model, options, train_dataset=rows, data_collator=collate)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return torch.cat([weight.detach().flatten() for weight in model.parameters()]) - before


def difference(make):
    whole, accumulated = update(make, 2), update(make, 1)
    return ((accumulated - whole).norm() / whole.norm()).item()


llava, qwen = difference(make_llava), difference(make_qwen)
print(f"two rows in one batch against two micro-batches: updates differ by {llava:.1e} for LLaVA, {qwen:.1%} for Qwen")
assert llava < 1e-4 and qwen > 0.1, "the behaviour has changed"
PYTHON
