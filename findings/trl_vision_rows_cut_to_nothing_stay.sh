#!/usr/bin/env bash
# trl: text rows that `max_length` leaves without an answer are dropped, rows with an image stay and teach nothing.
#
# `SFTConfig.max_length` is 1024 by default and cuts the end of a row. A prompt that fills it loses its answer, so all
# labels are masked. For text, SFTTrainer drops such rows while it prepares the dataset. Datasets with images are not
# prepared but collated on the fly, where nothing is dropped: the row stays in the batch with no label, the loss and the
# gradient of a batch of such rows are 0, and there is no warning. An image of 1,000 tokens (Qwen2.5-VL: about 890 x 890
# pixels) and a question of 30 tokens are enough. Below, `max_length` is 24 and an image has 4 tokens, so no
# placeholder of the image is cut and the model raises no error either.
#
# Run: bash findings/trl_vision_rows_cut_to_nothing_stay.sh      (exits with 1 if this changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet trl==1.16.0 transformers==5.24.0 torch==2.13.0 \
    datasets==5.2.0 pillow==13.0.0
cd "$folder"
export HF_HOME="$folder/cache" HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1
"$folder/venv/bin/python" - 2> "$folder/log" <<'PYTHON' || { cat "$folder/log"; exit 1; }
import datasets
import transformers
import trl
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, LlamaConfig, LlamaForCausalLM, LlavaConfig
from transformers import LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast

print(f"trl {trl.__version__}, transformers {transformers.__version__}, datasets {datasets.__version__}")

# A LLaVA with bytes as tokens and images of 2 x 2 patches.
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
small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
language = LlamaConfig(**small, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
both = LlavaConfig(
    vision_config=CLIPVisionConfig(**small, image_size=28, patch_size=14), text_config=language,
    image_token_index=tokenizer.convert_tokens_to_ids("<image>"), image_seq_length=4, vision_feature_layer=-1,
)


def rows(questions, image):
    found = [
        {"prompt": [{"role": "user", "content": q}], "completion": [{"role": "assistant", "content": "awe"}]}
        for q in questions
    ]
    return datasets.Dataset.from_list([row | ({"images": [image]} if image is not None else {}) for row in found])


def train(model, questions, image, tool):
    settings = trl.SFTConfig(
        output_dir="run", max_length=24, per_device_train_batch_size=2, max_steps=1, logging_steps=1, report_to="none",
        use_cpu=True, bf16=False, eos_token="</s>" if image is None else None,
    )
    trainer = trl.SFTTrainer(model, args=settings, train_dataset=rows(questions, image), processing_class=tool)
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.remove_callback(transformers.trainer_callback.ProgressCallback)
    trainer.train()
    return len(trainer.train_dataset), trainer.state.log_history[0]["loss"], trainer.state.log_history[0]["grad_norm"]


image = Image.new("RGB", (28, 28), "navy")
long = "What does a person feel who sees this?"
kept, loss, _ = train(LlamaForCausalLM(language), ["Why?", long], None, tokenizer)
print(f"text:   {kept} of 2 rows stay, loss {loss:.2f}")
kept_with_image, loss_of_long, gradient = train(LlavaForConditionalGeneration(both), [long, long], image, processor)
print(f"images: {kept_with_image} of 2 rows stay, loss {loss_of_long:.2f}, norm of the gradient {gradient:.2f}")
_, loss_of_short, _ = train(LlavaForConditionalGeneration(both), ["Why?", "Who?"], image, processor)
print(f"images, short questions: loss {loss_of_short:.2f}")
assert kept == 1 and loss > 0 and loss_of_short > 0, "text rows or short rows do not behave as expected"
assert (kept_with_image, loss_of_long, gradient) == (2, 0, 0), "the behaviour has changed"
PYTHON
# The progress bars of the text rows name what is done to them.
if grep -iE "fully masked|no labels|truncat|max_length" "$folder/log" | grep -v "train dataset:"; then
    echo "there is a warning now"
    exit 1
fi
