"""Write golden data for `tests/models/test_golden.py` with a plain reimplementation of LAVIS's model.

    python tools/make_reference.py /tmp/reference --seed 1 --vision-depth 2 --queries 5 --cross-every 3

The data are random weights in LAVIS's layout, tokenizers, inputs, and the outputs of InstructBLIP's forward pass. The
implementation uses none of our model classes. It computes every layer from the tensors of the state dict, one sample at
a time, without cache or padding. The golden test first checks that it reproduces the outputs of the original code.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from tokenizers import BertWordPieceTokenizer
from torch.nn import functional as F

Tensors = dict[str, torch.Tensor]
IGNORED = -100
MAX_TXT_LEN, MAX_OUTPUT_TXT_LEN = 128, 256
PAD, END, DEC = "[PAD]", "</s>", "[DEC]"
INSTRUCTIONS = (
    "Which of these does the picture evoke:  amusement, awe, fear or sadness? Answer with one word, please:",
    "Is it dark?",
    "Why do the two girls laugh at the  café, and what would change if it rained?",
)
ANSWERS = ("awe", "No.", "They watch a clown; rain would drive them inside.")
CANDIDATES = ("amusement", "anger", "awe", "contentment", "disgust", "excitement", "fear", "sadness")


@dataclass(frozen=True)
class Sizes:
    """Shape of a reference model."""

    image_size: int = 42
    patch_size: int = 14
    vision_width: int = 40
    vision_depth: int = 2
    vision_heads: int = 5
    vision_mlp: int = 90
    qformer_width: int = 48
    qformer_depth: int = 6
    qformer_heads: int = 3
    qformer_mlp: int = 80
    cross_every: int = 3
    queries: int = 5
    llm_width: int = 56
    llm_depth: int = 3
    llm_heads: int = 7
    llm_mlp: int = 100


class PlainModel:
    """LAVIS's InstructBLIP, computed from a state dict with LAVIS's names.

    Args:
        state: weights.
        config: sizes, as in `reference.json`.
        folder: contains `tokenizer.model` and `vocab.txt`.
    """

    def __init__(self, state: Tensors, config: dict[str, Any], folder: Path):
        self.state, self.config = state, config
        self.pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        self.words = BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True)
        self.end = self.pieces.piece_to_id(END)

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.state[name + ".weight"], self.state.get(name + ".bias"))

    def norm(self, name: str, x: torch.Tensor, eps: float) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], self.state[name + ".weight"], self.state[name + ".bias"], eps)

    def images(self, image: torch.Tensor) -> torch.Tensor:
        """EVA's encoder and the following layer norm: [B, 3, H, W] -> [B, P, D]."""
        name, heads = "visual_encoder.", self.config["vit"]["num_heads"]
        patches = F.conv2d(
            image,
            self.state[name + "patch_embed.proj.weight"],
            self.state[name + "patch_embed.proj.bias"],
            stride=self.config["patch_size"],
        )
        x = torch.cat(
            [self.state[name + "cls_token"].expand(len(image), -1, -1), patches.flatten(2).transpose(1, 2)], 1
        )
        x = x + self.state[name + "pos_embed"]
        for layer in range(self.config["vit"]["depth"]):
            block = f"{name}blocks.{layer}."
            y = self.norm(block + "norm1", x, 1e-6)
            q_bias, v_bias = self.state[block + "attn.q_bias"], self.state[block + "attn.v_bias"]
            bias = torch.cat([q_bias, torch.zeros_like(q_bias), v_bias])
            q, k, v = F.linear(y, self.state[block + "attn.qkv.weight"], bias).chunk(3, -1)
            x = x + self.linear(block + "attn.proj", attend(q, k, v, heads))
            y = self.norm(block + "norm2", x, 1e-6)
            x = x + self.linear(block + "mlp.fc2", F.gelu(self.linear(block + "mlp.fc1", y)))
        return self.norm("ln_vision", x, 1e-5)

    def queries(self, embeds_PD: torch.Tensor, word_ids: list[int]) -> torch.Tensor:
        """The Q-Former's query output for one image and one text: [Q, D]."""
        name, config = "Qformer.bert.", self.config["qformer"]
        words = self.state[name + "embeddings.word_embeddings.weight"][word_ids]
        words = words + self.state[name + "embeddings.position_embeddings.weight"][: len(word_ids)]
        num_queries = self.state["query_tokens"].shape[1]
        x = self.norm(name + "embeddings.LayerNorm", torch.cat([self.state["query_tokens"][0], words]), 1e-12)
        for layer in range(config["num_hidden_layers"]):
            block = f"{name}encoder.layer.{layer}."
            x = self._attention(block + "attention.", x, x)
            query, text = x[:num_queries], x[num_queries:]
            if layer % config["cross_attention_freq"] == 0:
                query = self._attention(block + "crossattention.", query, embeds_PD)
            x = torch.cat([self._feed(block, query, "_query"), self._feed(block, text, "")])
        return x[:num_queries]

    def _attention(self, block: str, x: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        q = self.linear(block + "self.query", x)
        k, v = (self.linear(block + f"self.{part}", source) for part in ("key", "value"))
        mixed = attend(q[None], k[None], v[None], self.config["qformer"]["num_attention_heads"])[0]
        return self.norm(block + "output.LayerNorm", self.linear(block + "output.dense", mixed) + x, 1e-12)

    def _feed(self, block: str, x: torch.Tensor, kind: str) -> torch.Tensor:
        inner = F.gelu(self.linear(f"{block}intermediate{kind}.dense", x))
        return self.norm(f"{block}output{kind}.LayerNorm", self.linear(f"{block}output{kind}.dense", inner) + x, 1e-12)

    def language(self, embeds_TD: torch.Tensor) -> torch.Tensor:
        """Llama: [T, D] -> logits [T, V]."""
        x, config = embeds_TD, self.config["llm"]
        heads, eps = config["num_attention_heads"], config["rms_norm_eps"]
        for layer in range(config["num_hidden_layers"]):
            block = f"llm_model.model.layers.{layer}."
            y = rms_norm(x, self.state[block + "input_layernorm.weight"], eps)
            q, k, v = (self.linear(block + f"self_attn.{part}_proj", y) for part in "qkv")
            mixed = attend(rotate(q, heads)[None], rotate(k, heads)[None], v[None], heads, causal=True)[0]
            x = x + self.linear(block + "self_attn.o_proj", mixed)
            y = rms_norm(x, self.state[block + "post_attention_layernorm.weight"], eps)
            gate, up = F.silu(self.linear(block + "mlp.gate_proj", y)), self.linear(block + "mlp.up_proj", y)
            x = x + self.linear(block + "mlp.down_proj", gate * up)
        return self.linear("llm_model.lm_head", rms_norm(x, self.state["llm_model.model.norm.weight"], eps))

    # Texts

    def word_ids(self, text: str) -> list[int]:
        """Q-Former ids, truncated on the left to `MAX_TXT_LEN` including special tokens."""
        inner = self.words.encode(text, add_special_tokens=False).ids[-(MAX_TXT_LEN - 2) :]
        return [self.words.token_to_id("[CLS]"), *inner, self.words.token_to_id("[SEP]")]

    def prompt_ids(self, text: str, limit: int | None = None) -> list[int]:
        """Language model ids, truncated on the left. As in LAVIS, they begin with the end token."""
        ids = self.pieces.encode(text)
        return [self.end, *(ids if limit is None else ids[-(limit - 1) :])]

    def embed(self, ids: list[int]) -> torch.Tensor:
        return self.state["llm_model.model.embed_tokens.weight"][ids]

    # Golden data

    def prefix(self, embeds_PD: torch.Tensor, question: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The query output and its projection for the language model."""
        output = self.queries(embeds_PD, self.word_ids(question))
        return output, self.linear("llm_proj", output)

    def answer_nll(self, prefix_QD: torch.Tensor, prompt: list[int], answer: list[int]) -> torch.Tensor:
        """Negative log-likelihood of each answer token: [len(answer)]."""
        logits = self.language(torch.cat([prefix_QD, self.embed(prompt + answer)]))[-len(answer) - 1 : -1]
        return F.cross_entropy(logits, torch.tensor(answer), reduction="none")

    def outputs(self, reference: dict[str, Any], image: torch.Tensor) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The arrays of `reference.npz`, and gradient norms and greedy ids for `reference.json`."""
        instructions, candidates = reference["instructions"], reference["candidates"]
        for name, tensor in self.state.items():
            is_trained = not name.startswith(("visual_encoder.", "llm_model.")) and tensor.is_floating_point()
            tensor.requires_grad_(is_trained)
        embeds = self.images(image)
        pairs = [self.prefix(embeds[i], question) for i, question in enumerate(instructions)]
        nlls = [
            self.answer_nll(
                llm_input,
                self.prompt_ids(question, reference["max_txt_len"]),
                [*self.pieces.encode(answer), self.end][: reference["max_output_txt_len"]],
            )
            for (_, llm_input), question, answer in zip(pairs, instructions, reference["answers"])
        ]
        loss = torch.cat(nlls).mean()
        loss.backward()
        with torch.no_grad():
            candidate_losses = self.candidate_losses(embeds, instructions[0], candidates)
            greedy = [
                self.greedy(llm_input, self.prompt_ids(question), reference["greedy_generation"]["max_new_tokens"])
                for (_, llm_input), question in zip(pairs, instructions)
            ]
        arrays = {
            "image": image,
            "image_embeds": embeds,
            "query_output": torch.stack([output for output, _ in pairs]),
            "llm_inputs": torch.stack([llm_input for _, llm_input in pairs]),
            "batch_loss": loss,
            "sample_losses": torch.stack([nll.mean() for nll in nlls]),
            "candidate_losses": candidate_losses,
            "class_ranks": torch.argsort(candidate_losses, dim=-1),
        }
        norms = {
            name: float(tensor.grad.norm()) if tensor.grad is not None else 0.0
            for name, tensor in self.state.items()
            if tensor.requires_grad
        }
        return {name: tensor.detach().numpy() for name, tensor in arrays.items()}, {
            "grad_norms": norms,
            "greedy_ids": greedy,
        }

    def candidate_losses(self, embeds_BPD: torch.Tensor, question: str, candidates: Sequence[str]) -> torch.Tensor:
        """LAVIS's loss: the sum over the candidate's tokens, divided by the padded length of the rows."""
        prompt = self.prompt_ids(question)
        rows = [self.pieces.encode(candidate) for candidate in candidates]
        length = self.state["query_tokens"].shape[1] + len(prompt) + max(map(len, rows)) - 1
        prefixes = [self.prefix(embeds_PD, question)[1] for embeds_PD in embeds_BPD]
        return torch.stack(
            [torch.stack([self.answer_nll(prefix, prompt, row).sum() / length for row in rows]) for prefix in prefixes]
        )

    def greedy(self, prefix_QD: torch.Tensor, prompt: list[int], max_new_tokens: int) -> list[int]:
        """Ids of the greedy continuation, up to the end token."""
        ids: list[int] = []
        for _ in range(max_new_tokens):
            ids.append(int(self.language(torch.cat([prefix_QD, self.embed(prompt + ids)]))[-1].argmax()))
            if ids[-1] == self.end:
                break
        return ids


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, causal: bool = False) -> torch.Tensor:
    """Softmax attention; all tensors are [B, T, D]."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if causal:
        scores = scores + torch.full(scores.shape[-2:], float("-inf")).triu(1)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Llama's RMS norm: no mean, no bias."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def rotate(x_TD: torch.Tensor, heads: int, base: float = 10000.0) -> torch.Tensor:
    """Rotary embedding of positions 0 to T-1; the two halves of a head form the pairs."""
    x = x_TD.unflatten(-1, (heads, -1))
    half = x.shape[-1] // 2
    angles = torch.arange(len(x))[:, None] * base ** (-torch.arange(half) / half)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).flatten(1)


def random_state(sizes: Sizes, words: int, pieces: int) -> Tensors:
    """Random weights with LAVIS's names and shapes, large enough that every part affects the outputs."""
    state: Tensors = {}

    def matrix(name: str, rows: int, columns: int, bias: bool = True) -> None:
        state[name + ".weight"] = torch.randn(rows, columns) * 1.5 / columns**0.5
        if bias:
            state[name + ".bias"] = torch.randn(rows) * 0.1

    def norm(name: str, width: int) -> None:
        state[name + ".weight"], state[name + ".bias"] = 1 + torch.randn(width) * 0.1, torch.randn(width) * 0.1

    width, patch = sizes.vision_width, sizes.patch_size
    vision = "visual_encoder."
    state[vision + "cls_token"] = torch.randn(1, 1, width)
    state[vision + "pos_embed"] = torch.randn(1, (sizes.image_size // patch) ** 2 + 1, width)
    state[vision + "patch_embed.proj.weight"] = torch.randn(width, 3, patch, patch) * 0.1
    state[vision + "patch_embed.proj.bias"] = torch.randn(width) * 0.1
    for layer in range(sizes.vision_depth):
        block = f"{vision}blocks.{layer}."
        norm(block + "norm1", width), norm(block + "norm2", width)
        matrix(block + "attn.qkv", 3 * width, width, bias=False)
        state[block + "attn.q_bias"], state[block + "attn.v_bias"] = torch.randn(width), torch.randn(width) * 0.1
        matrix(block + "attn.proj", width, width)
        matrix(block + "mlp.fc1", sizes.vision_mlp, width), matrix(block + "mlp.fc2", width, sizes.vision_mlp)
    norm("ln_vision", width)

    hidden, bert = sizes.qformer_width, "Qformer.bert."
    state["query_tokens"] = torch.randn(1, sizes.queries, hidden)
    state[bert + "embeddings.position_ids"] = torch.arange(MAX_TXT_LEN)[None]
    state[bert + "embeddings.word_embeddings.weight"] = torch.randn(words, hidden)
    state[bert + "embeddings.position_embeddings.weight"] = torch.randn(MAX_TXT_LEN, hidden) * 0.3
    norm(bert + "embeddings.LayerNorm", hidden)
    for layer in range(sizes.qformer_depth):
        block = f"{bert}encoder.layer.{layer}."
        kinds = {"attention": hidden} | ({"crossattention": width} if layer % sizes.cross_every == 0 else {})
        for kind, source in kinds.items():
            matrix(f"{block}{kind}.self.query", hidden, hidden)
            matrix(f"{block}{kind}.self.key", hidden, source), matrix(f"{block}{kind}.self.value", hidden, source)
            matrix(f"{block}{kind}.output.dense", hidden, hidden), norm(f"{block}{kind}.output.LayerNorm", hidden)
        for kind in ("", "_query"):
            matrix(f"{block}intermediate{kind}.dense", sizes.qformer_mlp, hidden)
            matrix(f"{block}output{kind}.dense", hidden, sizes.qformer_mlp)
            norm(f"{block}output{kind}.LayerNorm", hidden)

    llm, matrices = sizes.llm_width, (("gate", "mlp"), ("up", "mlp"))
    state["llm_model.model.embed_tokens.weight"] = torch.randn(pieces, llm)
    for layer in range(sizes.llm_depth):
        block = f"llm_model.model.layers.{layer}."
        for part in "qkvo":
            matrix(f"{block}self_attn.{part}_proj", llm, llm, bias=False)
        for part, kind in matrices:
            matrix(f"{block}{kind}.{part}_proj", sizes.llm_mlp, llm, bias=False)
        matrix(f"{block}mlp.down_proj", llm, sizes.llm_mlp, bias=False)
        for part in ("input_layernorm", "post_attention_layernorm"):
            state[f"{block}{part}.weight"] = 1 + torch.randn(llm) * 0.1
    state["llm_model.model.norm.weight"] = 1 + torch.randn(llm) * 0.1
    matrix("llm_model.lm_head", pieces, llm, bias=False)
    matrix("llm_proj", llm, hidden)
    return state


def write_tokenizers(folder: Path) -> tuple[int, int]:
    """Write a word-piece vocabulary and a Llama-style sentencepiece model; return their sizes with the added tokens."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *"?,.:;", *(f"##{letter}" for letter in letters)]
    words += ["the", "picture", "emotion", "which", *CANDIDATES]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(words)) + "\n", encoding="utf-8")
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*INSTRUCTIONS, *ANSWERS, *CANDIDATES] * 4), model_writer=out, model_type="bpe",
        vocab_size=330, byte_fallback=True, character_coverage=1.0, hard_vocab_limit=False, minloglevel=2,
        normalization_rule_name="identity", remove_extra_whitespaces=False,
    )  # fmt: skip
    (folder / "tokenizer.model").write_bytes(out.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue()).get_piece_size()
    return len(dict.fromkeys(words)) + 1, pieces + 1


def write_reference(folder: Path, sizes: Sizes, seed: int) -> None:
    """Write weights, tokenizers, inputs and outputs of a random model to `folder`."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    words, pieces = write_tokenizers(folder)
    state = random_state(sizes, words, pieces)
    torch.save({"model": state}, folder / "model.pth")
    config = {
        "image_size": sizes.image_size,
        "patch_size": sizes.patch_size,
        "vit": {"embed_dim": sizes.vision_width, "depth": sizes.vision_depth, "num_heads": sizes.vision_heads,
                "mlp_ratio": sizes.vision_mlp / sizes.vision_width},
        "qformer": {"hidden_size": sizes.qformer_width, "num_hidden_layers": sizes.qformer_depth,
                    "num_attention_heads": sizes.qformer_heads, "intermediate_size": sizes.qformer_mlp,
                    "max_position_embeddings": MAX_TXT_LEN, "cross_attention_freq": sizes.cross_every,
                    "vocab_size": words},
        "num_query_token": sizes.queries,
        "llm": {"hidden_size": sizes.llm_width, "intermediate_size": sizes.llm_mlp,
                "num_hidden_layers": sizes.llm_depth, "num_attention_heads": sizes.llm_heads,
                "max_position_embeddings": 512, "vocab_size": pieces, "rms_norm_eps": 1e-6},
    }  # fmt: skip
    reference: dict[str, Any] = {
        "config": config,
        "max_txt_len": MAX_TXT_LEN,
        "max_output_txt_len": MAX_OUTPUT_TXT_LEN,
        "sizes": asdict(sizes),
        "seed": seed,
        "instructions": list(INSTRUCTIONS),
        "answers": list(ANSWERS),
        "candidates": list(CANDIDATES),
        "greedy_generation": {"max_new_tokens": 12},
    }
    model = PlainModel(state, config, folder)
    arrays, rest = model.outputs(reference, torch.randn(len(INSTRUCTIONS), 3, sizes.image_size, sizes.image_size))
    reference["grad_norms"] = rest["grad_norms"]
    reference["greedy_generation"]["ids"] = rest["greedy_ids"]
    np.savez(folder / "reference.npz", **arrays)
    (folder / "reference.json").write_text(json.dumps(reference, indent=1), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the data of a model with the given sizes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    for name, value in asdict(Sizes()).items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=value)
    arguments = vars(parser.parse_args(argv))
    folder, seed = arguments.pop("folder"), arguments.pop("seed")
    write_reference(folder, Sizes(**arguments), seed)
    print(f"wrote {folder}; to use it: EMOVIT_REFERENCE_DIR={folder} pytest tests/models/test_golden.py")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
