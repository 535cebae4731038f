#!/usr/bin/env bash
# transformers 5: with `label_smoothing_factor`, the Trainer teaches LLaVA to repeat its input.
#
# Without label smoothing the model computes the loss and shifts the labels by one token, so that each token predicts the
# next one. With `TrainingArguments(label_smoothing_factor=0.1)` the Trainer computes the loss itself, and version 5.24
# shifts the labels only for classes of the causal language models' list. LlavaForConditionalGeneration is not in it: each
# token is compared with itself. The loss falls faster than the right one would, there is no warning, and the trained model
# repeats one token. The Trainer was corrected for causal language models (pull request 17987) and for their PEFT wrappers
# (issue 27161). Gemma 3 is in the list; SmolVLM and PaliGemma are not.
#
# Run: bash findings/transformers_label_smoothing_teaches_llava_to_copy.sh
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
    Trainer,
    TrainingArguments,
)

transformers.logging.set_verbosity_error()
print(f"torch {torch.__version__}, transformers {transformers.__version__}")
IMAGE, QUESTION, ANSWER = [3] * 4, [5, 6, 7], [8, 9, 10, 2]
TOKENS = torch.tensor(IMAGE + QUESTION + ANSWER)
START = len(IMAGE + QUESTION)
LABELS = torch.tensor([-100] * START + ANSWER)
ROW = {"input_ids": TOKENS, "labels": LABELS, "pixel_values": torch.ones(3, 16, 16)}


def make_trainer(smoothing):
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=16, patch_size=8, **small),
        text_config=LlamaConfig(vocab_size=16, **small),
        image_token_index=3,
    )
    options = TrainingArguments(
        "out", use_cpu=True, report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
        max_steps=30, learning_rate=1e-2, lr_scheduler_type="constant", label_smoothing_factor=smoothing,
    )
    trainer = Trainer(LlavaForConditionalGeneration(config), options, train_dataset=[ROW])
    trainer.remove_callback(PrinterCallback)
    return trainer


def written_after_training(smoothing):
    trainer = make_trainer(smoothing)
    trainer.train()
    prompt = {"input_ids": TOKENS[None, :START], "pixel_values": ROW["pixel_values"][None]}
    tokens = trainer.model.eval().generate(**prompt, max_new_tokens=len(ANSWER), do_sample=False, pad_token_id=0)
    return tokens[0, START:].tolist()


trainer = make_trainer(1e-12)  # almost no smoothing: both losses should agree
batch = {name: value[None] for name, value in ROW.items()}
with torch.no_grad():
    of_trainer = trainer.compute_loss(trainer.model.eval(), dict(batch)).item()
    output = trainer.model(**batch)
    unshifted = torch.nn.functional.cross_entropy(output.logits[0], LABELS).item()
print(f"loss of the model {output.loss:.4f}, of the Trainer with a smoothing of 1e-12 {of_trainer:.4f}")
print(f"cross-entropy of each token's logits with this token itself {unshifted:.4f}")
without, smoothed = written_after_training(0.0), written_after_training(0.1)
print(f"answer in the data {ANSWER}; written after 30 steps: {without}, with a smoothing of 0.1: {smoothed}")
assert abs(of_trainer - unshifted) < 1e-4 < abs(of_trainer - output.loss.item()), "the behaviour has changed"
assert without == ANSWER != smoothed, "the behaviour has changed"
PYTHON
