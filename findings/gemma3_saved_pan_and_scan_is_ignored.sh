#!/usr/bin/env bash
# transformers 5: Gemma3Processor ignores the pan-and-scan that is saved with its image processor.
#
# Pan-and-scan cuts a wide or tall image into crops, and the model reads the image and its crops. `do_pan_and_scan: true`
# in processor_config.json is loaded: `processor.image_processor.do_pan_and_scan` is True, and the image processor called
# alone returns the crops. Called through the processor, as for any prompt, it returns the whole image only: version 5.24
# passes the defaults of the class Gemma3Processor as arguments, and they replace all saved options of pan-and-scan. A
# model that was trained with crops is asked without them, and nothing is logged. The option works in each call, and in
# `from_pretrained`, but the latter only because the tokenizer stores unknown options and the processor passes them on.
#
# Run: bash findings/gemma3_saved_pan_and_scan_is_ignored.sh
# (about 1 GB in a temporary folder; exits with 1 if this changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 numpy==2.4.6 pillow==13.0.0
cd "$folder"
export HF_HOME="$folder/cache" HF_HUB_OFFLINE=1
"$folder/venv/bin/python" - <<'PYTHON'
import json
import tempfile
from pathlib import Path

import transformers
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import Gemma3ImageProcessorPil, Gemma3Processor, PreTrainedTokenizerFast

print(f"transformers {transformers.__version__}")
SPECIAL = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
WORDS = ["<pad>", "<unk>", *SPECIAL.values(), "Which", "emotion"]
words = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
words.pre_tokenizer = WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", extra_special_tokens=SPECIAL
)
OPTIONS = {
    "do_pan_and_scan": True, "pan_and_scan_min_crop_size": 256, "pan_and_scan_max_num_crops": 4,
    "pan_and_scan_min_ratio_to_activate": 1.2,
}
IMAGE = Image.new("RGB", (1600, 500), "navy")


def num_images(processor, **options):
    batch = processor(images=[[IMAGE]], text=["<start_of_image> Which emotion"], return_tensors="pt", **options)
    return len(batch["pixel_values"])


folder = tempfile.mkdtemp()
image_processor = Gemma3ImageProcessorPil(size={"height": 32, "width": 32}, **OPTIONS)
Gemma3Processor(image_processor, tokenizer, image_seq_length=4).save_pretrained(folder)
saved = json.loads(Path(folder, "processor_config.json").read_text())["image_processor"]["do_pan_and_scan"]
processor = Gemma3Processor.from_pretrained(folder)
print(f"do_pan_and_scan: {saved} in the file, {processor.image_processor.do_pan_and_scan} in the image processor")
alone = len(processor.image_processor([[IMAGE]], return_tensors="pt")["pixel_values"])
together = num_images(processor)
per_call = num_images(processor, images_kwargs={"do_pan_and_scan": True})
print(f"images and crops: {alone} from the image processor, {together} from the processor, ", end="")
print(f"{per_call} with the option in the call")
with_options = Gemma3Processor.from_pretrained(folder, **OPTIONS)
is_in_tokenizer = "do_pan_and_scan" in with_options.tokenizer.init_kwargs
at_load = num_images(with_options)
print(f"with the options in from_pretrained: {at_load}; the tokenizer has them: {is_in_tokenizer}")
assert saved and alone == per_call == at_load == 4 and together == 1 and is_in_tokenizer, "the behaviour has changed"
PYTHON
