"""Compare our candidate scoring with plain scoring, which repeats the whole input for each candidate.

    python tools/bench/scoring.py
    python tools/bench/scoring.py --device cuda --shapes vicuna7b --images 8

Plain scoring is LAVIS's method: it repeats projected query tokens and prompt for every candidate, and computes logits
at every position of all rows. It has two variants, all candidates at once or one segment per candidate; the faster one
is measured. Both sides use the same model, attention and inputs, run image encoder and Q-Former once per image, and
alternate in one process. Their scores are compared before the measurement.

The default on a CPU is one thread, because other work on a shared machine has too much influence on several threads.
The result contains wall-clock and processor time; other work affects processor time less.

Weights are random, because the time does not depend on them. The tokenizer splits words into pieces of up to four
letters, so labels have one to four tokens.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch.nn import functional as F
from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration, PreTrainedTokenizerFast

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.emotion.questions import categorical_prompt
from lavis_emovit.models.instructblip.loading import LoadedParts, prepare_tokenizers
from lavis_emovit.models.instructblip.model import EmoVIT
from lavis_emovit.models.instructblip.settings import ModelSettings

# The code whose commit the result reports.
SOURCES = ("lavis_emovit/models", "tools/bench/scoring.py")
LABEL_SETS = {"EmoSet": "mikels8", "WEBEmo": "webemo25"}
PIECES = r" ?[A-Za-z]{1,4}|[^A-Za-z]"
SPECIAL = ["[PAD]", "<s>", "</s>", "[UNK]"]
# The beginning of a prompt about an annotated image. It makes the shorter prompt longer than 100 tokens.
CONTEXT = (
    "The picture is bright and colorful, the scene is a park, there are a dog and a ball in it, and somebody is "
    "running across the grass. "
)
SHAPES: dict[str, dict[str, Any]] = {
    "100m": {
        "vision_config": {
            "hidden_size": 320, "intermediate_size": 1280, "num_hidden_layers": 10, "num_attention_heads": 5,
            "image_size": 224, "patch_size": 14,
        },
        "qformer_config": {
            "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 4,
            "vocab_size": 1000, "encoder_hidden_size": 320,
        },
        "text_config": {
            "model_type": "llama", "hidden_size": 640, "intermediate_size": 1728, "num_hidden_layers": 9,
            "num_attention_heads": 10, "num_key_value_heads": 10, "vocab_size": 32000, "max_position_embeddings": 2048,
        },
    },
    # InstructBLIP's shapes: the defaults of transformers are ViT-g/14, BERT-base and Llama-7B.
    "vicuna7b": {
        "vision_config": {}, "qformer_config": {}, "text_config": {"model_type": "llama", "vocab_size": 32001},
    },
    # For tests of this script.
    "tiny": {
        "vision_config": {
            "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
            "image_size": 28, "patch_size": 14,
        },
        "qformer_config": {
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
            "vocab_size": 1000, "encoder_hidden_size": 24,
        },
        "text_config": {
            "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 1000,
        },
    },
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the result and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", choices=SHAPES, default="100m")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=2, help="images per batch, one question each")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds, each with both sides")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "scoring.json")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    model = build_model(arguments.shapes, arguments.device)
    result = {
        "benchmark": "scoring",
        "shapes": arguments.shapes,
        "parameters": count_parameters(model),
        "precision": model.settings.frozen_precision,
        "attention": model.settings.attention,
        "device": arguments.device,
        "threads": torch.get_num_threads(),
        "images_per_batch": arguments.images,
        "rounds": arguments.rounds,
        "label_sets": [measure(model, name, arguments.images, arguments.rounds) for name in LABEL_SETS],
        "command": " ".join(["python tools/bench/scoring.py", *(sys.argv[1:] if argv is None else argv)]),
        **environment_info(*SOURCES),
    }
    write_result(arguments.out, result)
    print(table(result))
    return 0


def question_about(label_set: str) -> str:
    """Prompt with the options of a label set."""
    return CONTEXT + categorical_prompt(get_label_set(LABEL_SETS[label_set]))


def build_model(shapes: str, device: str) -> EmoVIT:
    """A model with random weights; bf16 on a GPU, fp32 elsewhere."""
    torch.manual_seed(0)
    on_gpu = torch.device(device).type == "cuda"
    config = InstructBlipConfig(**SHAPES[shapes], num_query_tokens=32)
    with torch.device(device):
        core = InstructBlipForConditionalGeneration._from_config(
            config, dtype=torch.bfloat16 if on_gpu else torch.float32, attn_implementation="sdpa"
        )
    parts = LoadedParts(core, word_piece_tokenizer(), word_piece_tokenizer())
    prepare_tokenizers(parts)
    settings = ModelSettings(
        arch="emovit_benchmark",
        pretrained="random",
        image_size=config.vision_config.image_size,
        trained_parts=(),
        frozen_precision="bf16" if on_gpu else "fp32",
    )
    return EmoVIT(parts, settings).to(device).eval()


def word_piece_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of words into pieces of up to four letters, for the texts of this benchmark."""
    texts = [text for name in LABEL_SETS for text in (question_about(name), *get_label_set(LABEL_SETS[name]).labels)]
    pieces = sorted({piece for text in texts for piece in re.findall(PIECES, text)})
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *pieces])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", bos_token="<s>", eos_token="</s>", unk_token="[UNK]"
    )


def measure(model: EmoVIT, name: str, num_images: int, rounds: int) -> dict[str, Any]:
    """Measure both sides with one label set."""
    labels = list(get_label_set(LABEL_SETS[name]).labels)
    size = model.settings.image_size
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(num_images, 3, size, size, generator=generator).to(model.device)
    samples = {"image": image, "prompt": [question_about(name)] * num_images}
    sides: dict[str, Callable[[], torch.Tensor]] = {
        "plain": lambda: plain_scores(model, samples, labels, 1),
        "plain, segments": lambda: plain_scores(model, samples, labels, len(labels)),
        "one pass": lambda: model.score_candidates(samples, labels),
        "perception": lambda: model._visual_prefix(samples, samples["prompt"]),
    }
    with torch.no_grad():
        scores = {side: run() for side, run in sides.items() if side != "perception"}  # also a warm-up
        difference = max(float((other - scores["one pass"]).abs().max()) for other in scores.values())
        tolerance = 1e-4 if model.settings.frozen_precision == "fp32" else 0.5
        if difference > tolerance:
            raise SystemExit(f"the scores of both sides differ by {difference}")
        trial = {side: timed(sides[side], model.device) for side in ("plain", "plain, segments")}
        num_segments = 1 if trial["plain"] <= trial["plain, segments"] else len(labels)
        sides["plain"] = lambda: plain_scores(model, samples, labels, num_segments)
        del sides["plain, segments"]
        times = [{side: timed(run, model.device) for side, run in sides.items()} for _ in range(rounds)]
    clock, processor = (
        {side: statistics.median(row[side][kind] for row in times) for side in sides} for kind in (0, 1)
    )
    return {
        "label_set": name,
        "num_candidates": len(labels),
        "prompt_tokens": len(model._whole_prompts(samples["prompt"][:1])[0]),
        "visual_tokens": int(model.core.query_tokens.shape[1]),
        "candidate_tokens": sum(model.candidate_lengths(labels).int().tolist()),
        "largest_score_difference": difference,
        "plain_segments": num_segments,
        "plain_images_per_s": num_images / clock["plain"],
        "images_per_s": num_images / clock["one pass"],
        "ratio": clock["plain"] / clock["one pass"],
        "ratio_of_processor_time": processor["plain"] / processor["one pass"],
        # Without image encoder and Q-Former, which take the same time on both sides.
        "ratio_of_language_model": (processor["plain"] - processor["perception"])
        / (processor["one pass"] - processor["perception"]),
        "median_seconds": clock,
        "median_processor_seconds": processor,
        "ratio_of_each_round": [round(row["plain"][0] / row["one pass"][0], 2) for row in times],
    }


def plain_scores(model: EmoVIT, samples: dict[str, Any], candidates: list[str], num_segments: int) -> torch.Tensor:
    """Summed log-likelihoods [N, C] from plain scoring: one full row per candidate, logits at every position."""
    language_model, tokenizer = model.core.language_model, model.llm_tokenizer
    prompts = samples["prompt"]
    prefix = model._visual_prefix(samples, prompts)
    prompt_rows = [
        [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]] for text in prompts
    ]
    answer_rows = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in candidates]
    per_segment = len(candidates) // num_segments
    losses = []
    for start in range(0, len(candidates), per_segment):
        answers = answer_rows[start : start + per_segment]
        rows = [prompt + answer for prompt in prompt_rows for answer in answers]
        longest = max(len(row) for row in rows)
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=model.device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=model.device)
        targets = ids.masked_fill(mask == 0, -100)
        for row, prompt in enumerate(prompt for prompt in prompt_rows for _ in answers):
            targets[row, : len(prompt)] = -100
        repeated = prefix.repeat_interleave(len(answers), dim=0)
        embeds = language_model.get_input_embeddings()(ids)
        seen = torch.ones(repeated.shape[:2], dtype=mask.dtype, device=model.device)
        logits = language_model(
            inputs_embeds=torch.cat([repeated.to(embeds.dtype), embeds], dim=1),
            attention_mask=torch.cat([seen, mask], dim=1),
            use_cache=False,
        ).logits.float()
        labels = torch.cat([torch.full_like(seen, -100), targets], dim=1)[:, 1:]
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels.flatten(), reduction="none")
        losses.append(loss.view(len(rows), -1).sum(dim=1).view(len(prompts), len(answers)))
    return -torch.cat(losses, dim=1)


def timed(run: Callable[[], Any], device: torch.device) -> tuple[float, float]:
    """Wall-clock and processor seconds of one call. On a GPU both are wall-clock seconds."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
    clock, processor = time.perf_counter(), time.process_time()
    run()
    if on_gpu:
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - clock
    return seconds, seconds if on_gpu else time.process_time() - processor


def count_parameters(model: EmoVIT) -> dict[str, int]:
    """Number of parameters of each part and in total."""
    parts = {
        "vision_encoder": model.core.vision_model,
        "qformer": model.core.qformer,
        "language_model": model.core.language_model,
    }
    counts = {name: sum(parameter.numel() for parameter in part.parameters()) for name, part in parts.items()}
    return {**counts, "total": sum(parameter.numel() for parameter in model.core.parameters())}


def table(result: dict[str, Any]) -> str:
    """The result as a Markdown table."""
    lines = [
        "| labels | prompt tokens | plain, images/s | one pass, images/s | ratio | of processor time | "
        "of the language model alone |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in result["label_sets"]:
        lines.append(
            f"| {row['label_set']}, {row['num_candidates']} | {row['prompt_tokens']} | {row['plain_images_per_s']:.2f} "
            f"| {row['images_per_s']:.2f} | {row['ratio']:.1f}x | {row['ratio_of_processor_time']:.1f}x "
            f"| {row['ratio_of_language_model']:.1f}x |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
