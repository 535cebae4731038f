"""Write a folder of random bfloat16 weights in the exact shapes of InstructBLIP-Vicuna, to measure its memory and time.

    python tools/make_random_weights.py --size 7b --out weights/random_7b
    python tools/make_random_weights.py --size 7b --divide-depth 8 --out weights/random_1b

The folder has the layout of the published ones: `config.json`, safetensors shards with their index, both tokenizers.
The shapes are those of EVA ViT-g, BERT-base and Llama; `--divide-depth` keeps every width and takes fewer layers. One
shard is in memory at a time. The tokenizers are those of `emovit_tiny`, filled up to the published numbers of tokens by
entries that no text produces. The model's answers have no meaning.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration

from lavis_emovit.models.instructblip.weights import shipped_folder

INDEX = "model.safetensors.index.json"
# Rows of the published embeddings: Llama's 32,000 tokens and [PAD], BERT's 30,522 and [DEC].
LLM_TOKENS, QFORMER_TOKENS = 32_001, 30_523
_LLAMA = {"model_type": "llama", "vocab_size": LLM_TOKENS, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6}
SIZES: dict[str, dict[str, Any]] = {
    "7b": {
        **_LLAMA, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32,
    },
    "13b": {
        **_LLAMA, "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40,
        "num_attention_heads": 40, "num_key_value_heads": 40,
    },
}  # fmt: skip
_VISION = {
    "hidden_size": 1408, "intermediate_size": 6144, "num_hidden_layers": 39, "num_attention_heads": 16,
    "image_size": 224, "patch_size": 14, "qkv_bias": True,
}  # fmt: skip
_QFORMER = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "max_position_embeddings": 512, "vocab_size": QFORMER_TOKENS, "cross_attention_frequency": 2,
    "encoder_hidden_size": 1408,
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Write the folder and print its size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="7b")
    parser.add_argument("--divide-depth", type=int, default=1, help="take one layer of so many, in encoder and Llama")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shard-bytes", type=int, default=1_900_000_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    config = build_config(arguments.size, arguments.divide_depth)
    counts = write_folder(config, arguments.out, shard_bytes=arguments.shard_bytes, seed=arguments.seed)
    total = sum(counts.values())
    print(f"{arguments.out}: {total:,} parameters, {2 * total / 1e9:.2f} GB: {counts}")
    return 0


def build_config(size: str, divide_depth: int = 1) -> InstructBlipConfig:
    """Configuration of InstructBLIP with Vicuna of a size, with one of `divide_depth` layers."""
    text, vision = dict(SIZES[size]), dict(_VISION)
    for part in (text, vision):
        part["num_hidden_layers"] = max(1, part["num_hidden_layers"] // divide_depth)
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return InstructBlipConfig(
        vision_config=vision,
        qformer_config=dict(_QFORMER),
        text_config={**text, **tokens},
        num_query_tokens=32,
        image_token_index=3,  # `<image>` of emovit_tiny's tokenizer
    )


def count_parameters(config: InstructBlipConfig) -> dict[str, int]:
    """Parameters by part, without any memory for them."""
    counts: dict[str, int] = {}
    for name, tensor in _meta_state(config).items():
        part = name.split(".")[0]
        counts[part] = counts.get(part, 0) + tensor.numel()
    return counts


def write_folder(config: InstructBlipConfig, folder: Path, *, shard_bytes: int, seed: int = 0) -> dict[str, int]:
    """Write configuration, tokenizers and weights, one shard after another; returns the parameters by part."""
    folder.mkdir(parents=True, exist_ok=True)
    config.architectures = ["InstructBlipForConditionalGeneration"]
    config.dtype = torch.bfloat16
    config.save_pretrained(folder)
    write_tokenizers(folder, config.text_config.vocab_size, config.qformer_config.vocab_size)
    state = _meta_state(config)
    plan = split_torch_state_dict_into_shards(state, max_shard_size=shard_bytes)
    generator = torch.Generator().manual_seed(seed)
    for file, names in plan.filename_to_tensors.items():
        shard = {name: _random_values(name, state[name].shape, generator) for name in names}
        save_file(shard, str(folder / file), metadata={"format": "pt"})
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return count_parameters(config)


def _meta_state(config: InstructBlipConfig) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        model = InstructBlipForConditionalGeneration(config)
    return {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}


def _random_values(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """As a new model is initialised: norms are the identity, biases zero, everything else is drawn."""
    if "norm" in name.lower() and name.endswith(".weight"):
        return torch.ones(shape, dtype=torch.bfloat16)
    if name.endswith(".bias"):
        return torch.zeros(shape, dtype=torch.bfloat16)
    return torch.empty(shape, dtype=torch.bfloat16).normal_(std=0.02, generator=generator)


def write_tokenizers(folder: Path, llm_tokens: int, qformer_tokens: int) -> None:
    """Write `emovit_tiny`'s tokenizers with so many entries each; those that it does not have are never produced."""
    tiny = shipped_folder("package:emovit_tiny")
    for source, target, num_tokens in (
        (tiny, folder, llm_tokens),
        (tiny / "qformer_tokenizer", folder / "qformer_tokenizer", qformer_tokens),
    ):
        target.mkdir(parents=True, exist_ok=True)
        content = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
        vocabulary = content["model"]["vocab"]
        taken = {*vocabulary.values(), *(token["id"] for token in content["added_tokens"])}
        free = [number for number in range(num_tokens) if number not in taken]
        # A character of the private use area at both ends: no text contains it, and no merge leads to it.
        vocabulary.update({f"\ue000{number}\ue000": number for number in free})
        (target / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        shutil.copy(source / "tokenizer_config.json", target)


if __name__ == "__main__":
    raise SystemExit(main())
