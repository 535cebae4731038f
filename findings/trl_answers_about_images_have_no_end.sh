#!/usr/bin/env bash
# TRL: SFTTrainer adds the end token to answers of plain text, but not to the same answers beside an image.
#
# A record has the texts `prompt` and `completion`. Without an image, SFTTrainer appends the tokenizer's end token to the
# completion (since pull request 3091), and the model learns where an answer ends. With an `image` column, version 1.16
# prepares the record in its collator for images, which appends nothing: no end token has a loss, and the trained model
# writes on after the answer until the token limit. Nothing is logged. Records in conversational form are not affected,
# where the chat template writes the end. An end token in the completion's own text is kept in both cases.
#
# Run: bash findings/trl_answers_about_images_have_no_end.sh
# (about 1 GB in a temporary folder; exits with 1 if this changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 trl==1.16.0 accelerate==1.15.0 \
  datasets==5.2.0 pyarrow==26.0.1 numpy==2.4.6 pillow==13.0.0
cd "$folder"
export HF_HOME="$folder/cache" HF_HUB_OFFLINE=1
"$folder/venv/bin/python" - <<'PYTHON'
import torch
import transformers
import trl
from datasets import Dataset, disable_progress_bars
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from trl import SFTConfig, SFTTrainer

transformers.logging.set_verbosity_error()
disable_progress_bars()
print(f"torch {torch.__version__}, transformers {transformers.__version__}, trl {trl.__version__}")
WORDS = ["<pad>", "<unk>", "</s>", "<image>", "which", "emotion", "anger"]
words = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
words.pre_tokenizer = WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", eos_token="</s>")
tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
processor = LlavaProcessor(
    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}), tokenizer, patch_size=8,
    vision_feature_select_strategy="default", num_additional_image_tokens=1,
)
small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
model = LlavaForConditionalGeneration(
    LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=16, patch_size=8, **small),
        text_config=LlamaConfig(vocab_size=16, **small),
        image_token_index=3,
    )
)


def trained_tokens(**record):
    """The tokens that SFTTrainer computes the loss of."""
    options = SFTConfig("out", use_cpu=True, bf16=False, report_to="none", max_length=None, disable_tqdm=True)
    trainer = SFTTrainer(model, options, train_dataset=Dataset.from_list([record]), processing_class=processor)
    labels = next(iter(trainer.get_train_dataloader()))["labels"][0]
    return tokenizer.decode(labels[labels != -100]).split()


IMAGE = Image.new("RGB", (16, 16), "navy")
without = trained_tokens(prompt="which emotion", completion=" anger")
with_image = trained_tokens(prompt="<image> which emotion", completion=" anger", image=IMAGE)
marked = trained_tokens(prompt="<image> which emotion", completion=" anger </s>", image=IMAGE)
print(f"tokens with a loss: {without} without an image, {with_image} with one, {marked} with </s> in the record")
assert without == marked == ["anger", "</s>"] and with_image == ["anger"], "the behaviour has changed"
PYTHON
