#!/usr/bin/env bash
# trl: with a column `messages`, SFTTrainer teaches a vision model to predict the placeholders of its image.
#
# The collator for images copies `input_ids` to `labels` and masks the padding only. The processor has replaced
# "<image>" by one placeholder for each image token by then: 576 for LLaVA-1.5, up to 2,880 for LLaVA-NeXT. All of them
# are labels, although their embeddings are replaced by those of the image and the token carries no information. The
# loss is the mean over all labels, so an answer of ten tokens has under 2 % of it, and the loss falls quickly while the
# model learns to repeat one token. The examples of transformers for vision models mask these labels. `prompt` with
# `completion`, or `assistant_only_loss` with a chat template that marks answers, avoid it; nothing says so.
#
# Run: bash findings/trl_vision_messages_teach_image_placeholders.sh      (exits with 1 if this changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet trl==1.16.0 transformers==5.24.0 torch==2.13.0 \
    datasets==5.2.0 pillow==13.0.0
cd "$folder"
export HF_HOME="$folder/cache" HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1
"$folder/venv/bin/python" - <<'PYTHON'
import transformers
import trl
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import CLIPImageProcessorPil, LlavaProcessor, PreTrainedTokenizerFast
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

print(f"trl {trl.__version__}, transformers {transformers.__version__}")

# A processor of LLaVA with bytes as tokens and images of 2 x 2 patches.
text = Tokenizer(models.BPE({token: n for n, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
text.pre_tokenizer, text.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=text, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
tokenizer.add_tokens([AddedToken("<image>", special=True, normalized=False)])
template = (
    "{% for m in messages %}{{ m['role'][0] + ':' }}{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for p in m['content'] %}{{ '<image>' if p['type'] == 'image' else p['text'] }}{% endfor %}{% endif %}"
    "{% if m['role'] == 'assistant' %}</s>{% endif %}{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
)
tokenizer.chat_template = template
images = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
processor = LlavaProcessor(
    images, tokenizer, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1,
    chat_template=template,
)
placeholder = tokenizer.convert_tokens_to_ids("<image>")
question, answer = {"role": "user", "content": "Which emotion?"}, {"role": "assistant", "content": "awe"}
image = Image.new("RGB", (28, 28), "navy")


def labels(**row):
    only = "completion" in row
    collator = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=only)
    batch = collator([{**row, "images": [image]}])
    found = [token for token in batch["labels"][0].tolist() if token != -100]
    print(f"{', '.join(row):20} labels {tokenizer.decode(found)!r}")
    return found.count(placeholder), tokenizer.decode(found)


of_messages = labels(messages=[question, answer])
of_completion = labels(prompt=[question], completion=[answer])
assert of_completion == (0, "awe</s>"), "prompt and completion do not behave as expected"
assert of_messages == (4, "u:<image><image><image><image>Which emotion?a:awe</s>"), "the behaviour has changed"
PYTHON
