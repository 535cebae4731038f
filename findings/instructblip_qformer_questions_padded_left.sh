#!/usr/bin/env bash
# transformers 5: InstructBlipProcessor pads the Q-Former's questions on the side of the language model's tokenizer.
#
# A saved InstructBLIP processor holds two tokenizers: the language model's, which pads on the left for generation, and
# the Q-Former's, which pads on the right, since a BERT has absolute positions. Loaded with transformers 5.24, each has
# its own side (`padding_side` says left and right). But `processor(text=..., padding=True)` passes the saved options of
# the first tokenizer, `padding_side` among them, to the second too. In a batch, every shorter question starts at a later
# position, and the query tokens, the model's only view of the image, differ from those of the same question alone.
# Without `padding_side` in `processor.tokenizer.init_kwargs`, both tokenizers pad on their own side.
#
# Run: bash findings/instructblip_qformer_questions_padded_left.sh   (about 1 GB in a temporary folder; exits with 1 if
# this changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 numpy==2.4.6 pillow==13.0.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import tempfile

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    BlipImageProcessorPil,
    InstructBlipProcessor,
    InstructBlipQFormerConfig,
    InstructBlipQFormerModel,
    PreTrainedTokenizerFast,
)

print(f"torch {torch.__version__}, transformers {transformers.__version__}")
QUESTIONS = ["what emotion is it", "the mood"]
WORDS = ["[PAD]", "[UNK]", "what", "emotion", "is", "it", "the", "mood"]


def tokenizer(padding_side):
    words = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", padding_side=padding_side
    )


folder = tempfile.mkdtemp()
parts = BlipImageProcessorPil(), tokenizer("left"), tokenizer("right")
InstructBlipProcessor(*parts, num_query_tokens=4).save_pretrained(folder)
processor = InstructBlipProcessor.from_pretrained(folder)
sides = processor.tokenizer.padding_side, processor.qformer_tokenizer.padding_side
print("padding_side of the language model's and the Q-Former's tokenizer:", *sides)

torch.manual_seed(0)
config = InstructBlipQFormerConfig(
    vocab_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
    encoder_hidden_size=8, max_position_embeddings=16, initializer_range=0.2,
)
qformer = InstructBlipQFormerModel(config).eval()
queries, image = torch.randn(1, 4, 16), torch.randn(1, 3, 8)


def query_outputs(encoding, row):
    mask = encoding["qformer_attention_mask"][row : row + 1]
    with torch.no_grad():
        output = qformer(
            input_ids=encoding["qformer_input_ids"][row : row + 1],
            attention_mask=torch.cat([torch.ones(1, 4, dtype=mask.dtype), mask], dim=1),
            query_embeds=queries,
            encoder_hidden_states=image,
        )
    return output.last_hidden_state[:, :4]


def in_a_batch():
    """The Q-Former's mask of the shorter question, and the change of its outputs against the question alone."""
    batch = processor(text=QUESTIONS, padding=True, return_tensors="pt")
    alone = processor(text=QUESTIONS[1:], padding=True, return_tensors="pt")
    change = (query_outputs(batch, 1) - query_outputs(alone, 0)).abs().max().item()
    return batch["qformer_attention_mask"][1].tolist(), change


mask, change = in_a_batch()
print(f"as loaded: mask of the Q-Former's shorter question {mask}, outputs change by {change:.4f}")
processor.tokenizer.init_kwargs.pop("padding_side")
own_mask, own_change = in_a_batch()
print(f"without the saved option: mask {own_mask}, outputs change by {own_change:.6f}")
assert sides == ("left", "right"), "the behaviour has changed"
assert mask == [0, 0, 1, 1] and change > 1e-3, "the behaviour has changed"
assert own_mask == [1, 1, 0, 0] and own_change < 1e-5, "the behaviour has changed"
PYTHON
