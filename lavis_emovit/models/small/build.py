"""From the installed packages to a folder of weights, once for each machine.

The Q-Former begins as MiniLM's BERT, as BLIP-2's began as BERT; its cross-attention and its query tokens are new, drawn
from a fixed seed. What the warm-up of `tools/make_small.py` learned then replaces them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors.torch import save_file
from transformers import AutoTokenizer

from lavis_emovit.errors import WeightsError
from lavis_emovit.files import atomic_folder, file_sha256, load_json, obey_umask, read_file, write_json
from lavis_emovit.models.instructblip.loading import LLM, quiet
from lavis_emovit.models.small import packages, vision
from lavis_emovit.models.small.architecture import (
    CONFIG_NAME,
    LLM_TOKENIZER,
    QFORMER_TOKENIZER,
    WEIGHTS_NAME,
    SmallConfig,
    SmallCore,
)
from lavis_emovit.models.tensors import check_fit, read_tensor_file
from lavis_emovit.models.trained_parts import load_values
from lavis_emovit.paths import PACKAGE_ROOT, cache_root

# Both are part of the folder's name: a change of the build or of the warm-up makes a new folder.
VERSION = 2
WARM_UP_SHA256 = "7b111c2ec8f27abd5b049d35ca2f4a35bf1e41385d46c272aef6ba72b9121a1d"
# Endings of the two factors of an adapter in the warm-up's file.
ADAPTER_A, ADAPTER_B = ".adapter_a", ".adapter_b"
NUM_QUERY_TOKENS = 16
SEED = 0
WARM_UP = PACKAGE_ROOT / "models" / "data" / "emovit_small" / "warm_up.safetensors"


def built_folder() -> Path:
    """The folder that `build` makes, whether it exists or not."""
    return cache_root() / f"emovit_small-v{VERSION}-{WARM_UP_SHA256[:8]}"


def build() -> Path:
    """Build the folder unless it is there, and return it.

    Raises:
        WeightsError: a package is missing or damaged.
    """
    folder = built_folder()
    if (folder / CONFIG_NAME).is_file():
        return folder
    packages.check_installed()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not (folder / CONFIG_NAME).is_file():
            with atomic_folder(folder) as unfinished:
                write_parts(unfinished, _read_warm_up())
                shutil.rmtree(folder, ignore_errors=True)  # without its configuration it was not complete
    return folder


def _read_warm_up() -> dict[str, torch.Tensor]:
    if file_sha256(WARM_UP) != WARM_UP_SHA256:
        raise WeightsError(f"{WARM_UP} is damaged; install lavis-emovit again, or let git fetch the file again")
    return dict(read_tensor_file(WARM_UP))


def write_parts(folder: Path, warm_up: Mapping[str, torch.Tensor]) -> None:
    """Write the folder of weights, with what a warm-up learned; nothing at first."""
    language_state, text_config, tokenizer = _read_language(packages.verified(packages.LANGUAGE))
    qformer_file = packages.verified(packages.QFORMER)
    minilm = read_tensor_file(qformer_file)
    values = {
        "num_query_tokens": NUM_QUERY_TOKENS,
        "qformer_config": _qformer_sizes(load_json(read_file(qformer_file.parent / "config.json"))),
        "text_config": text_config,
        "made_from": packages.origin(),
    }
    core = new_core(values, minilm)
    vision_file = packages.verified(packages.VISION)
    encoder = vision.fold(torch.load(vision_file, map_location="cpu", weights_only=True), str(vision_file))
    words = _words(name_words(class_names(), tokenizer), language_state["model.embed_tokens.weight"])
    core.vision_model.encoder.load_state_dict({**encoder, "words": words})
    apply_warm_up(core, warm_up, str(WARM_UP))
    language_state = add_adapters({LLM + name: tensor for name, tensor in language_state.items()}, warm_up)
    state = {**core.state_dict(), **language_state}
    write_weights(folder, state)
    with quiet():
        tokenizer.save_pretrained(folder / LLM_TOKENIZER)
        AutoTokenizer.from_pretrained(qformer_file.parent).save_pretrained(folder / QFORMER_TOKENIZER)
    write_json(folder / CONFIG_NAME, values)


def write_weights(folder: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Write tensors as float32, so that a model that is loaded for answers is a view on the file."""
    tensors = {name: tensor.float().contiguous() for name, tensor in state.items()}
    save_file(tensors, str(folder / WEIGHTS_NAME), {"format": "pt"})
    obey_umask(folder / WEIGHTS_NAME)


def class_names() -> list[str]:
    """Names of ImageNet-1k's classes, in the order of the classifier: the first of their synonyms."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return [info.index_to_description(index).partition(",")[0] for index in range(vision.NUM_CLASSES)]


def name_words(names: list[str], tokenizer: Any) -> torch.Tensor:
    """Token ids of names, long [classes, T]; cut if a name has more, as 4 % have, and -1 if it has fewer."""
    ids = torch.full((len(names), vision.WORDS_PER_NAME), -1)
    for index, name in enumerate(names):
        row = tokenizer(f" {name}", add_special_tokens=False)["input_ids"][: vision.WORDS_PER_NAME]
        ids[index, : len(row)] = torch.tensor(row)
    return ids


def _words(ids: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
    """The language model's embeddings of the names, with a standard deviation of 1; zero at -1."""
    return embeddings[ids.clamp(min=0)] / embeddings.std() * (ids >= 0)[..., None]


def _read_language(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any], Any]:
    """Tensors, sizes and tokenizer of the 4-bit file; the output head is tied, so it is not among the tensors."""
    from transformers import LlamaForCausalLM

    with quiet():
        model: Any = LlamaForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    sizes = model.config.to_diff_dict()
    kept = {key: value for key, value in sizes.items() if key not in ("quantization_config", "_name_or_path", "dtype")}
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    return state, kept, tokenizer


def _qformer_sizes(bert: Mapping[str, Any]) -> dict[str, Any]:
    same = (
        "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
        "max_position_embeddings", "hidden_act", "layer_norm_eps", "pad_token_id",
    )  # fmt: skip
    return {**{key: bert[key] for key in same}, "encoder_hidden_size": vision.WIDTH, "cross_attention_frequency": 2}


def new_core(values: dict[str, Any], minilm: Mapping[str, torch.Tensor]) -> SmallCore:
    """The modules with MiniLM's weights in the Q-Former and seeded new ones; without a language model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        core = SmallCore(SmallConfig(values))
        for name, parameter in core.named_parameters():
            if ".crossattention." in name and name.endswith(("query.weight", "key.weight", "value.weight")):
                torch.nn.init.xavier_uniform_(parameter)
        torch.nn.init.normal_(core.query_tokens, std=0.02)
        torch.nn.init.zeros_(core.query_tokens_of_image.weight)
    check_fit(state := _qformer_from(minilm, core), core.qformer.state_dict(), packages.QFORMER.distribution, needed=())
    core.qformer.load_state_dict(state, strict=False)
    return core


def _qformer_from(minilm: Mapping[str, torch.Tensor], core: SmallCore) -> dict[str, torch.Tensor]:
    """The tensors of the Q-Former that BERT has. Queries and text begin with the same feed-forward layers."""
    state = {}
    for name in core.qformer.state_dict():
        source = name.replace("attention.attention.", "attention.self.").replace("_query.", ".")
        source = source.replace("embeddings.layernorm.", "embeddings.LayerNorm.")
        if ".crossattention." not in name and source in minilm:
            state[name] = minilm[source]
    # The Q-Former has no types of tokens; all are of the first one.
    state["embeddings.word_embeddings.weight"] = (
        minilm["embeddings.word_embeddings.weight"] + minilm["embeddings.token_type_embeddings.weight"][0]
    )
    return state


def apply_warm_up(core: SmallCore, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Replace the tensors that the warm-up trained; WeightsError if one is unknown or of another shape."""
    own = core.state_dict()
    state = {name: tensor for name, tensor in state.items() if not name.endswith((ADAPTER_A, ADAPTER_B))}
    check_fit(state, own, source, needed=())
    load_values(own, state)


def add_adapters(weights: Mapping[str, torch.Tensor], warm_up: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The language model's weights with the products of the adapters that the warm-up trained."""
    added = dict(weights)
    for name, a_RD in warm_up.items():
        if name.endswith(ADAPTER_A):
            layer = name.removesuffix(ADAPTER_A)
            added[f"{layer}.weight"] = added[f"{layer}.weight"] + warm_up[layer + ADAPTER_B].float() @ a_RD.float()
    return added


if __name__ == "__main__":
    print(f"emovit_small: {build()}")
