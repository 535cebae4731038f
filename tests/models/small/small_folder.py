"""A random folder in the layout of `emovit_small`: its own image encoder, and a Q-Former and a Llama of two layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import BertTokenizerFast, LlamaForCausalLM, PreTrainedTokenizerFast

from lavis_emovit.files import write_json
from lavis_emovit.models.instructblip.loading import LLM
from lavis_emovit.models.small import vision
from lavis_emovit.models.small.architecture import SmallConfig, SmallCore
from lavis_emovit.models.small.model import EmoVITSmall
from lavis_emovit.models.small.settings import ModelSettings

# Two query tokens after those for the eight words of names, which the reading loss trains.
NUM_QUERIES, IMAGE_PX, WIDTH = 10, 64, 32
LINES = ["Which emotion is it: amusement, anger, awe, sadness?", "Predict emotion: awe", "It is dark, says the girl."]
# As in SmolLM2: the pad token is the end token, and `<|endoftext|>` is unknown.
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def chat_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        LINES * 3, trainers.BpeTrainer(vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    end, start, turn_end = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=start, eos_token=turn_end, pad_token=turn_end, unk_token=end
    )


def letter_tokenizer() -> BertTokenizerFast:
    """BERT's tokenizer with a word piece for each letter."""
    signs = [chr(code) for code in range(33, 127)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *signs, *(f"##{sign}" for sign in signs)]
    return BertTokenizerFast(vocab={piece: index for index, piece in enumerate(pieces)})


def write_folder(folder: Path, seed: int = 0, llm_width: int = WIDTH) -> Path:
    """Write configuration, weights as large as trained ones, and tokenizers."""
    torch.manual_seed(seed)
    words, letters = chat_tokenizer(), letter_tokenizer()
    values: dict[str, Any] = {
        "num_query_tokens": NUM_QUERIES,
        "qformer_config": {
            "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
            "vocab_size": len(letters), "max_position_embeddings": 128, "encoder_hidden_size": vision.WIDTH,
            "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        },
        "text_config": {
            "hidden_size": llm_width, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": len(words), "tie_word_embeddings": True, "bos_token_id": 1,
            "eos_token_id": 2, "pad_token_id": 2,
        },
    }  # fmt: skip
    config = SmallConfig(values)
    core, language_model = SmallCore(config), LlamaForCausalLM(config.text_config)
    with torch.no_grad():
        for module in (core, language_model):
            for name, parameter in module.named_parameters():
                if parameter.dim() == 4:
                    torch.nn.init.kaiming_normal_(parameter)
                elif parameter.dim() > 1:
                    reads_cells = "crossattention" in name or "of_image" in name
                    parameter.normal_(std=0.02 if reads_cells else 0.25)
        core.vision_model.encoder.words.normal_()
        core.vision_model.encoder.words[::3, 2:] = 0  # names of two words
    state = {**core.state_dict(), **{LLM + name: tensor for name, tensor in language_model.state_dict().items()}}
    del state[f"{LLM}lm_head.weight"]  # tied
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, str(folder / "model.safetensors"), {"format": "pt"})
    words.save_pretrained(folder / "tokenizer")
    letters.save_pretrained(folder / "qformer_tokenizer")
    write_json(folder / "config.json", values)
    return folder


def settings_of(folder: Path, **changes: Any) -> ModelSettings:
    values = {"image_size": IMAGE_PX, "num_query_token": NUM_QUERIES, "max_txt_len": 64, **changes}
    return ModelSettings(arch="emovit_small", model_type="small", pretrained=str(folder), **values)


def load(folder: Path, **changes: Any) -> EmoVITSmall:
    return EmoVITSmall.from_settings(settings_of(folder, **changes))


def make_batch() -> dict[str, Any]:
    torch.manual_seed(1)
    return {
        "image": torch.randn(2, 3, IMAGE_PX, IMAGE_PX),
        "image_index": torch.tensor([0, 1, 1]),
        "text_input": ["Which emotion is it?", "Which emotion is it: awe or sadness?", "Is it dark?"],
        "text_output": ["Predict emotion: awe", "sadness", "It is dark, says the girl."],
    }
