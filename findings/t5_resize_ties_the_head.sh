#!/usr/bin/env bash
# transformers 5: resizing the vocabulary of a T5 with its own output head replaces the head by the input table.
#
# Flan-T5 has an output head that differs from its input embeddings (`tie_word_embeddings: false` in its config.json).
# In transformers 5.24, T5Config turns that False into True when it is made. `from_pretrained` still loads the separate
# head of the file, and the model computes with it. `resize_token_embeddings`, which is needed to add one token, then
# ties the head to the input embeddings without a warning: the trained head is gone, and all logits change.
#
# Run: bash findings/t5_resize_ties_the_head.sh      (about 1 GB in a temporary folder; exits with 1 if this changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 safetensors==0.8.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import T5Config, T5ForConditionalGeneration

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.manual_seed(0)
print(f"torch {torch.__version__}, transformers {transformers.__version__}")

# A checkpoint with a head of its own, as Flan-T5's is.
config = T5Config(
    vocab_size=32, d_model=16, d_kv=4, d_ff=32, num_layers=1, num_heads=2, tie_word_embeddings=False,
    decoder_start_token_id=0,
)
folder = tempfile.mkdtemp()
T5ForConditionalGeneration(config).save_pretrained(folder)
state = load_file(f"{folder}/model.safetensors")
state["lm_head.weight"] = torch.randn(32, 16)
save_file(state, f"{folder}/model.safetensors", metadata={"format": "pt"})

model = T5ForConditionalGeneration.from_pretrained(folder).eval()
inputs = {"input_ids": torch.tensor([[3, 4, 5, 1]]), "decoder_input_ids": torch.tensor([[0, 6, 7]])}
is_loaded = torch.equal(model.lm_head.weight, state["lm_head.weight"])
with torch.no_grad():
    before = model(**inputs).logits
    model.resize_token_embeddings(33)
    after = model(**inputs).logits[..., :32]
is_kept = torch.equal(model.lm_head.weight[:32], state["lm_head.weight"])
is_tied = model.lm_head.weight.data_ptr() == model.shared.weight.data_ptr()
change = (after - before).abs().max().item()
print(f"T5Config(tie_word_embeddings=False).tie_word_embeddings: {config.tie_word_embeddings}")
print(f"separate head loaded from the file: {is_loaded}")
print(f"after resize_token_embeddings: head kept {is_kept}, tied to the input {is_tied}, logits change by {change:.2f}")
assert config.tie_word_embeddings and is_loaded and is_tied and not is_kept and change > 1, "the behaviour has changed"
PYTHON
