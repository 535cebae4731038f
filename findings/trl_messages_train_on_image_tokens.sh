#!/usr/bin/env bash
# TRL: with `messages`, SFTTrainer trains a vision-language model to predict the image's placeholder tokens.
#
# An image stands in the token sequence as placeholders, 576 times the same token for LLaVA 1.5. For records with
# `messages`, the collator of SFTTrainer 1.16 excludes only padding from the labels, and LLaVA's class in transformers 5.24
# does not exclude the placeholders either. Of the 582 tokens below, 576 are placeholders and 2 belong to the answer. The
# logged loss is mostly theirs, and the share of the answer in the gradient is small. No message mentions it; only the
# labels in the example of the collator's docstring show it, and issue 3751 (open) takes the opposite for granted. The
# same record as `prompt` and `completion` has a loss on the answer only.
#
# Run: bash findings/trl_messages_train_on_image_tokens.sh
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
WORDS = ["<pad>", "<unk>", "</s>", "<image>", "USER:", "ASSISTANT:", "which", "emotion", "anger"]
TEMPLATE = (
    "{% for message in messages %}{{ message.role | upper }}: {% for part in message.content %}"
    "{{ '<image> ' if part.type == 'image' else part.text + ' ' }}{% endfor %}"
    "{% if message.role == 'assistant' %}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT: {% endif %}"
)
words = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
words.pre_tokenizer = WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", eos_token="</s>")
tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
# LLaVA 1.5's images: 336 x 336 pixels in patches of 14 x 14, so 576 tokens.
processor = LlavaProcessor(
    CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}), tokenizer,
    patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1, chat_template=TEMPLATE,
)
small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
torch.manual_seed(0)
model = LlavaForConditionalGeneration(
    LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=336, patch_size=14, **small),
        text_config=LlamaConfig(vocab_size=16, **small),
        image_token_index=3,
    )
)
QUESTION = [{"role": "user", "content": "which emotion"}]
ANSWER = [{"role": "assistant", "content": "anger"}]


def count(**record):
    """Number of tokens with a loss, and of image tokens among them."""
    record["image"] = Image.new("RGB", (336, 336), "navy")
    options = SFTConfig("out", use_cpu=True, bf16=False, report_to="none", max_length=None, disable_tqdm=True)
    trainer = SFTTrainer(model, options, train_dataset=Dataset.from_list([record]), processing_class=processor)
    batch = next(iter(trainer.get_train_dataloader()))
    labels = batch["labels"][0]
    with torch.no_grad():
        logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits[0]
        each = torch.nn.functional.cross_entropy(logits[:-1], labels[1:], reduction="none")
        loss = trainer.compute_loss(model, dict(batch)).item()
    is_image = labels[1:] == 3
    num_labels, num_image = int((labels != -100).sum()), int(is_image.sum())
    print(f"{', '.join(record)}: {num_labels} tokens with a loss, {num_image} of them of the image; ", end="")
    print(f"loss {loss:.4f}, of which {each[is_image].sum() / each.sum():.1%} is from the image's tokens")
    assert abs(loss - each.sum().item() / int((labels[1:] != -100).sum())) < 1e-3, "the behaviour has changed"
    return num_labels, num_image


messages, split = count(messages=QUESTION + ANSWER), count(prompt=QUESTION, completion=ANSWER)
assert messages == (582, 576) and split == (2, 0), "the behaviour has changed"
PYTHON
