"""Compare our training step with the original code's plain step, on EmoVIT's mix of text lengths.

    python tools/bench/training_step.py                                      # about 100 M parameters, on the CPU
    python tools/bench/training_step.py --device cuda --shapes vicuna7b      # 7B shapes in bf16, on one GPU

Weights are random. Both sides alternate and train the same weights (Q-Former, query tokens, projection, layer norm) on
the same batches with a learning rate of zero, so their losses must stay equal. The plain step encodes an image again
for each question, pads every row to the longest row of its batch, uses eager attention and computes logits at every
position. It is measured with several batch sizes: `ratio` refers to the whole batch at once, `ratio_to_best_plain` to
the fastest batch size.

The clock is the processor time of this process on a CPU, because other work on the machine has little influence on it,
and wall-clock time on a GPU.

As in the log of a run, model FLOPs utilisation counts only the operations that the samples need: 4NT for the frozen
language model after the Q-Former, and no padding.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn import functional as F
from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration, LlamaConfig, PreTrainedTokenizerFast

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result

MAX_TXT_LEN, MAX_OUTPUT_TXT_LEN = 128, 256  # EmoVIT's
NUM_WORDS = 8000
LOSS_TOLERANCE = 1e-3

# EmoVIT's mix: 82 % of the pairs are categorical, one per image. 7 % of the images also have the three questions of a
# conversation, and 0.7 % a reasoning question. Lengths in tokens, as (question), (answer), are drawn uniformly from
# these ranges. The ranges are estimates from the prompts, because the data are not public.
LENGTHS = {
    "categorical": ((44, 64), (6, 9)),
    "conversation": ((8, 24), (12, 48)),
    "complex": ((15, 30), (60, 160)),
    "reasoning": ((15, 40), (120, 250)),
}
SHARE_CONVERSATION, SHARE_REASONING = 0.07, 0.007

SHAPES: dict[str, dict[str, Any]] = {
    "toy": {
        "vision": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
        "image": {"image_size": 28, "patch_size": 14},
        "qformer": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
        "text": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
        "vocab_size": 9000,
        "num_query_tokens": 4,
    },
    "cpu100m": {
        "vision": {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 6},
        "image": {"image_size": 224, "patch_size": 14},
        "qformer": {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 4},
        "text": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 12, "num_attention_heads": 9},
        "vocab_size": 32000,
        "num_query_tokens": 32,
    },
    "vicuna7b": {
        "vision": {"hidden_size": 1408, "intermediate_size": 6144, "num_hidden_layers": 39, "num_attention_heads": 16},
        "image": {"image_size": 224, "patch_size": 14},
        "qformer": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
        "text": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
        "vocab_size": 32001,
        "num_query_tokens": 32,
    },
}


@dataclass
class Side:
    """An implementation of the step, and its measurements."""

    name: str
    loss: Callable[[dict[str, Any]], float]  # forward and backward of a batch; returns its mean loss per answer token
    attention: str
    seconds: list[float]
    tokens_run: int = 0
    tokens_real: int = 0
    peak_memory_bytes: int = 0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the result and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shapes", choices=SHAPES, default="cpu100m")
    parser.add_argument("--images", type=int, default=32, help="images per batch")
    parser.add_argument(
        "--batches", type=int, default=1, help="number of different batches; every round uses all of them"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--plain-batch-sizes",
        type=int,
        nargs="*",
        default=[8, 1],
        help="batch sizes of the plain step, in addition to the whole batch",
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peak-tflops", type=float, help="peak of the device, if gpu_peaks.json does not contain it")
    parser.add_argument(
        "--out",
        type=Path,
        help="default: benchmarks/training_step.json, or training_step_<shapes>.json for other shapes",
    )
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    suffix = "" if arguments.shapes == "cpu100m" else f"_{arguments.shapes}"
    out = arguments.out or ROOT / "benchmarks" / f"training_step{suffix}.json"
    result = {
        **measure(arguments),
        "command": " ".join(["python tools/bench/training_step.py", *(sys.argv[1:] if argv is None else argv)]),
        **environment_info("lavis_emovit/models", "tools/bench/training_step.py"),
    }
    result["machine"]["threads"] = torch.get_num_threads()
    write_result(out, result)
    print(table(result))
    return 0


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all sides in alternating rounds.

    Raises:
        AssertionError: the losses of two sides differ by more than the tolerance.
    """
    device = torch.device(arguments.device)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    is_half = device.type == "cuda"
    model = build_model(arguments.shapes, device, torch.bfloat16 if is_half else torch.float32, arguments.seed)
    image_size = SHAPES[arguments.shapes]["image"]["image_size"]
    batches = make_batches(arguments.batches, arguments.images, image_size, arguments.seed)
    sides = [Side("ours", lambda batch: our_loss(model, batch), "sdpa", [])]
    largest = max(len(batch["text_input"]) for batch in batches)
    for size in [largest, *sorted((size for size in arguments.plain_batch_sizes if size < largest), reverse=True)]:
        name = "plain" if size == largest else f"plain, {size} at a time"
        sides.append(Side(name, lambda batch, size=size: plain_loss(model, batch, size), "eager", []))

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, weight_decay=0.0)
    losses: dict[str, list[float]] = {side.name: [] for side in sides}
    for round_number in range(arguments.rounds + 1):
        is_warm_up = round_number == 0  # two pairs, not timed
        for side in list(sides):
            model.core.set_attn_implementation(side.attention)
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            for batch in [first_pairs(batches[0], 2)] if is_warm_up else batches:
                _wait(device)
                started = clock()
                try:
                    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_half), counting(model, side):
                        loss = side.loss(batch)
                except torch.cuda.OutOfMemoryError:
                    if side.name == "ours":
                        raise
                    sides.remove(side)  # this batch size does not fit into memory
                    optimizer.zero_grad(set_to_none=True)
                    break
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                _wait(device)
                if not is_warm_up:
                    side.seconds.append(clock() - started)
                    losses[side.name].append(loss)
            if is_warm_up:
                side.tokens_run = 0
            if device.type == "cuda":
                side.peak_memory_bytes = torch.cuda.max_memory_allocated()
    tolerance = LOSS_TOLERANCE if not is_half else 0.02  # bf16 activations round differently in other kernels
    for side in sides[1:]:
        for ours, theirs in zip(losses["ours"], losses[side.name]):
            assert abs(ours - theirs) < tolerance, f"loss of {side.name} is {theirs}, ours {ours}"
    difference = max(
        abs(ours - theirs) for side in sides[1:] for ours, theirs in zip(losses["ours"], losses[side.name])
    )
    return summarise(model, batches, sides, arguments, difference)


def build_model(shapes: str, device: torch.device, frozen_dtype: torch.dtype, seed: int) -> Any:
    """An EmoVIT model with random weights and without dropout, in training mode."""
    from lavis_emovit.models.instructblip.loading import LoadedParts, prepare_tokenizers
    from lavis_emovit.models.instructblip.model import EmoVIT
    from lavis_emovit.models.instructblip.settings import ModelSettings

    sizes = SHAPES[shapes]
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    text = LlamaConfig(**sizes["text"], vocab_size=sizes["vocab_size"], max_position_embeddings=2048, **special)
    config = InstructBlipConfig(
        vision_config={**sizes["vision"], **sizes["image"]},
        qformer_config={
            **sizes["qformer"],
            "vocab_size": NUM_WORDS + 8,
            "encoder_hidden_size": sizes["vision"]["hidden_size"],
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        text_config=text.to_dict(),
        num_query_tokens=sizes["num_query_tokens"],
    )
    config._attn_implementation = "sdpa"
    torch.manual_seed(seed)
    with device:
        core = InstructBlipForConditionalGeneration._from_config(config, dtype=frozen_dtype)
    with torch.no_grad():
        core.query_tokens.normal_(std=0.02)
    parts = LoadedParts(core, word_tokenizer(), word_tokenizer())
    prepare_tokenizers(parts)
    settings = ModelSettings(
        arch="emovit_benchmark",
        pretrained="none",
        image_size=sizes["image"]["image_size"],
        num_query_token=sizes["num_query_tokens"],
        frozen_precision="fp32" if frozen_dtype == torch.float32 else "bf16",
        max_txt_len=MAX_TXT_LEN,
        max_output_txt_len=MAX_OUTPUT_TXT_LEN,
    )
    return EmoVIT(parts, settings).to(device).train()


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token for each of the words w0 to w7999, so texts have exact lengths."""
    words = ["[PAD]", "<s>", "</s>", "[UNK]", *(f"w{number}" for number in range(NUM_WORDS))]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="[PAD]", unk_token="[UNK]"
    )


def make_batches(num_batches: int, num_images: int, image_size: int, seed: int) -> list[dict[str, Any]]:
    """Random batches of EmoVIT's mix: a categorical question per image, and longer questions for some images.

    The shares refer to all batches together. The images with longer questions are random.
    """
    rng = random.Random(seed)
    total = num_batches * num_images
    with_conversation = set(rng.sample(range(total), max(1, round(SHARE_CONVERSATION * total))))
    with_reasoning = set(rng.sample(range(total), max(1, round(SHARE_REASONING * total))))

    def words(length: tuple[int, int]) -> str:
        return " ".join(f"w{rng.randrange(NUM_WORDS)}" for _ in range(rng.randint(*length)))

    batches = []
    for number in range(num_batches):
        pairs: list[tuple[int, str]] = []
        for image in range(num_images):
            position = number * num_images + image
            kinds = ["categorical"]
            kinds += ["conversation", "conversation", "complex"] if position in with_conversation else []
            kinds += ["reasoning"] if position in with_reasoning else []
            pairs += [(image, kind) for kind in kinds]
        pixels = torch.Generator().manual_seed(seed + number)
        batches.append(
            {
                "image": torch.randn(num_images, 3, image_size, image_size, generator=pixels),
                "image_index": torch.tensor([image for image, _ in pairs]),
                "text_input": [words(LENGTHS[kind][0]) for _, kind in pairs],
                "text_output": [words(LENGTHS[kind][1]) for _, kind in pairs],
                "kind": [kind for _, kind in pairs],
            }
        )
    return batches


def first_pairs(batch: dict[str, Any], count: int) -> dict[str, Any]:
    """The first pairs of a batch, with all its images."""
    return {name: values if name == "image" else values[:count] for name, values in batch.items()}


def our_loss(model: Any, batch: dict[str, Any]) -> float:
    """Forward and backward pass of the model."""
    loss = model(batch)["loss"]
    loss.backward()
    return loss.item()


def plain_loss(model: Any, batch: dict[str, Any], rows_at_once: int) -> float:
    """Forward and backward pass as in the original code, with the same weights."""
    from lavis_emovit.models import text

    core, device = model.core, model.device
    prompts = text.encode_prompts(model.llm_tokenizer, batch["text_input"], MAX_TXT_LEN, False)
    answers = text.encode_answers(model.llm_tokenizer, batch["text_output"], MAX_OUTPUT_TXT_LEN)
    total = sum(len(answer) for answer in answers)
    loss_sum = 0.0
    for first in range(0, len(prompts), rows_at_once):
        rows = slice(first, first + rows_at_once)
        image = batch["image"][batch["image_index"][rows]].to(device)
        embeds = model.encode_images(image)
        words = model.qformer_tokenizer(
            batch["text_input"][rows], padding="longest", truncation=True, max_length=MAX_TXT_LEN, return_tensors="pt"
        ).to(device)
        queries = core.query_tokens.expand(len(image), -1, -1)
        query_mask = torch.ones(queries.shape[:2], dtype=torch.long, device=device)
        query_output = core.qformer(
            input_ids=words.input_ids,
            attention_mask=torch.cat([query_mask, words.attention_mask], dim=1),
            query_embeds=queries,
            encoder_hidden_states=embeds,
            encoder_attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long, device=device),
        ).last_hidden_state[:, : queries.shape[1]]
        prefix = core.language_projection(query_output)
        joined = text.join_prompts_and_answers(prompts[rows], answers[rows], model.llm_tokenizer.pad_token_id)
        tokens = core.get_input_embeddings()(joined.input_ids.to(device))
        logits = core.language_model(
            inputs_embeds=torch.cat([prefix.to(tokens.dtype), tokens], dim=1),
            attention_mask=torch.cat([query_mask, joined.attention_mask.to(device)], dim=1),
            use_cache=False,
        ).logits.float()
        labels = F.pad(joined.labels, (queries.shape[1], 0), value=text.IGNORED).to(device)
        losses = F.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=text.IGNORED, reduction="sum"
        )
        (losses / total).backward()
        loss_sum += losses.item()
    return loss_sum / total


@contextmanager
def counting(model: Any, side: Side) -> Iterator[None]:
    """Count the positions of the language model's forward passes."""

    def count(module: Any, args: Any, kwargs: Any) -> None:
        side.tokens_run += math.prod(kwargs["inputs_embeds"].shape[:2])

    handle = model.core.language_model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def summarise(
    model: Any, batches: list[dict[str, Any]], sides: list[Side], arguments: argparse.Namespace, difference: float
) -> dict[str, Any]:
    """Figures of all sides. Times are medians over rounds, for all batches together."""
    pairs = sum(len(batch["text_input"]) for batch in batches)
    real, supervised = _real_tokens(model, batches)
    flops = useful_flops(model, batches)
    peak = arguments.peak_tflops or _peak_tflops(model.device)
    measured = {}
    for side in sides:
        rounds = [
            sum(side.seconds[first : first + len(batches)]) for first in range(0, len(side.seconds), len(batches))
        ]
        seconds = statistics.median(rounds)
        measured[side.name] = {
            "samples_per_s": pairs / seconds,
            "tokens_per_s": real / seconds,
            "padding_share": 1 - real * arguments.rounds / side.tokens_run,
            "seconds_by_round": [round(value, 3) for value in rounds],
            "useful_tflops": flops / seconds / 1e12,
            "mfu": flops / seconds / 1e12 / peak if peak else None,
            "peak_memory_gib": side.peak_memory_bytes / 2**30 if side.peak_memory_bytes else None,
        }
    speed = {name: figures["samples_per_s"] for name, figures in measured.items()}
    best_plain = max(value for name, value in speed.items() if name != "ours")
    sizes = {
        part: sum(parameter.numel() for parameter in module.parameters())
        for part, module in (
            ("image_encoder", model.core.vision_model),
            ("qformer", model.core.qformer),
            ("language_model", model.core.language_model),
        )
    }
    kinds = [kind for batch in batches for kind in batch["kind"]]
    return {
        "benchmark": "training_step",
        "shapes": arguments.shapes,
        "sizes": {**SHAPES[arguments.shapes], "parameters": {**sizes, **model.parameter_counts()}},
        "precision": model.settings.frozen_precision,
        "batch": {
            "images": arguments.images * len(batches),
            "pairs": pairs,
            "share_categorical": kinds.count("categorical") / pairs,
            "real_tokens": real,
            "supervised_tokens": supervised,
            "num_batches": len(batches),
        },
        "lengths_tokens": LENGTHS,
        "rounds": arguments.rounds,
        "clock": "wall time" if model.device.type == "cuda" else "processor time of this process",
        "sides": measured,
        "ratio": speed["ours"] / speed["plain"] if "plain" in speed else None,
        "ratio_to_best_plain": speed["ours"] / best_plain,
        "largest_loss_difference": difference,
        "peak_tflops": peak,
    }


def useful_flops(model: Any, batches: list[dict[str, Any]]) -> float:
    """Operations that the samples need, without padding and repeated image encoding."""
    from lavis_emovit.models.lengths import PassSizes

    real, supervised = _real_tokens(model, batches)
    sizes = PassSizes(
        num_images=sum(len(batch["image"]) for batch in batches),
        num_reads=sum(len(batch["text_input"]) for batch in batches),
        num_question_tokens=sum(len(row.split()) for batch in batches for row in batch["text_input"]),
        real_positions=(real,),
        run_positions=(real,),
        num_supervised=supervised,
    )
    return model.step_flops().total(sizes)


def _real_tokens(model: Any, batches: list[dict[str, Any]]) -> tuple[int, int]:
    """Positions of the language model without padding, and the number of supervised positions."""
    pairs = sum(len(batch["text_input"]) for batch in batches)
    questions = sum(min(len(row.split()), MAX_TXT_LEN - 1) + 1 for batch in batches for row in batch["text_input"])
    answers = sum(min(len(row.split()) + 1, MAX_OUTPUT_TXT_LEN) for batch in batches for row in batch["text_output"])
    return model.core.query_tokens.shape[1] * pairs + questions + answers, answers


def _peak_tflops(device: torch.device) -> float | None:
    """bf16 peak of this GPU, or None if its name is unknown."""
    from lavis_emovit.runners.gpus import peak_flops

    if device.type != "cuda":
        return None
    peak = peak_flops(torch.cuda.get_device_name(device), is_half=True)
    return peak / 1e12 if peak else None


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def table(result: dict[str, Any]) -> str:
    """The result as a Markdown table."""
    lines = [
        "| | samples/s | tokens/s | padding | MFU | peak memory | ours is faster by |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    ours = result["sides"]["ours"]["samples_per_s"]
    for name, side in result["sides"].items():
        mfu = "" if side["mfu"] is None else f"{side['mfu']:.2f}"
        memory = "" if side["peak_memory_gib"] is None else f"{side['peak_memory_gib']:.1f} GiB"
        factor = "" if name == "ours" else f"{ours / side['samples_per_s']:.2f}"
        padding = f"{100 * side['padding_share']:.0f} %"
        lines.append(
            f"| {name} | {side['samples_per_s']:.2f} | {side['tokens_per_s']:.0f} | {padding} | {mfu} | {memory} "
            f"| {factor} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
