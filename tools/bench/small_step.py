"""Compare a training step of emovit_small with the plain step, on one CPU core: the same weights, the same losses.

    python tools/bench/small_step.py

A batch has 16 images with 32 questions: each image has the categorical question, half of them also the question for
valence and arousal, the other half an explanation of 60 to 80 tokens. The plain step encodes an image again for each
question, pads every row to the longest one, and computes logits at every position. Both sides alternate; the clock is
the processor time of this process. The memory is the largest resident size of a process that takes three steps with
AdamW and does nothing else.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result

NUM_IMAGES = 16
LOSS_TOLERANCE = 1e-3
LABELS = "amusement, anger, awe, contentment, disgust, excitement, fear, sadness"
CATEGORICAL = (
    f"Which of these emotions fits the picture best: {LABELS}? Give one of them, in the form "
    "'Predict emotion: <emotion>'.",
    "Predict emotion: contentment",
)
AFFECT = (
    "Estimate valence and arousal of the feeling that this image conveys, each as a number between -1 and 1.",
    "Valence: 0.42, arousal: -0.17.",
)
EXPLANATION = (
    "Which emotion does this picture evoke, and why?",
    "Predict emotion: contentment. Reason: the picture shows a wooden house by a lake, with a boat and a garden full "
    "of flowers. The light is soft, the colours are warm, and nobody is in a hurry. Nothing in it asks for attention, "
    "so one would like to sit down there and stay until the evening, with a book and a cup of tea.",
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--memory", choices=("fp32", "bf16"), help="only take three steps and print the resident memory"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "small_step.json")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    if arguments.memory:
        print(json.dumps(resident_memory(arguments.memory)))
        return 0
    result = {
        "benchmark": "small_step",
        **measure(arguments.rounds),
        "resident_memory_gb": {precision: in_own_process(precision) for precision in ("fp32", "bf16")},
        "command": "python tools/bench/small_step.py",
        **environment_info("lavis_emovit/models", "tools/bench/small_step.py"),
    }
    result["machine"]["threads"] = 1
    write_result(arguments.out, result)
    print(json.dumps({key: result[key] for key in ("ratio", "seconds", "resident_memory_gb")}, indent=1))
    return 0


def measure(rounds: int) -> dict[str, Any]:
    """Median seconds of both steps, and their ratio. AssertionError if their losses differ."""
    model, batch = load("fp32"), make_batch()
    sides: dict[str, Callable[[], torch.Tensor]] = {
        "ours": lambda: mean_loss(model.answer_loss(batch)),
        "plain": lambda: plain_loss(model, batch),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    losses: dict[str, float] = {}
    for number in range(rounds + 1):
        for name, loss_of in sides.items():
            started = time.process_time()
            loss = loss_of()
            loss.backward()
            model.zero_grad(set_to_none=True)
            if number:  # the first round is a warm-up
                seconds[name].append(time.process_time() - started)
            losses[name] = loss.item()
    difference = abs(losses["ours"] - losses["plain"])
    assert difference < LOSS_TOLERANCE, losses
    median = {name: statistics.median(values) for name, values in seconds.items()}
    sizes = model.answer_loss(batch).sizes
    return {
        "images": NUM_IMAGES,
        "pairs": len(batch["text_input"]),
        "precision": "fp32",
        "clock": "processor time of this process",
        "rounds": rounds,
        "seconds": median,
        "seconds_by_round": seconds,
        "ratio": median["plain"] / median["ours"],
        "positions": {"real": sizes.real_positions[0], "ours": sizes.run_positions[0]},
        "largest_loss_difference": difference,
    }


def load(precision: str) -> Any:
    """The model without dropout and without the reading loss, which the plain step does not have."""
    from lavis_emovit.models.small.model import EmoVITSmall

    values = {"arch": "emovit_small", "num_query_token": 16, "frozen_precision": precision, "reading_loss": 0.0}
    return EmoVITSmall.from_config(values).eval()


def make_batch() -> dict[str, Any]:
    torch.manual_seed(0)
    second = [AFFECT if number % 2 else EXPLANATION for number in range(NUM_IMAGES)]
    pairs = [pair for other in second for pair in (CATEGORICAL, other)]
    return {
        "image": torch.randn(NUM_IMAGES, 3, 224, 224),
        "image_index": torch.arange(NUM_IMAGES).repeat_interleave(2),
        "text_input": [question for question, _ in pairs],
        "text_output": [answer for _, answer in pairs],
    }


def mean_loss(loss: Any) -> torch.Tensor:
    return loss.loss_sum / loss.num_tokens


def plain_loss(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """The mean loss of the answers' tokens, without sharing, grouping, or choice of positions."""
    core, tokenizer = model.core, model.llm_tokenizer
    begin, turn = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in turns())
    embeds = model.encode_images(batch["image"][batch["image_index"]])
    words = model.qformer_tokenizer(batch["text_input"], padding="longest", return_tensors="pt")
    queries = core.query_tokens.expand(len(embeds), -1, -1)
    mask = torch.cat([torch.ones(queries.shape[:2], dtype=torch.long), words.attention_mask], dim=1)
    found = core.qformer(
        input_ids=words.input_ids, attention_mask=mask, query_embeds=queries, encoder_hidden_states=embeds
    ).last_hidden_state[:, : queries.shape[1]]
    prefix = core.language_projection(found)
    rows, labels = [], []
    for question, answer in zip(batch["text_input"], batch["text_output"]):
        prompt = tokenizer(question, add_special_tokens=False)["input_ids"] + turn
        written = [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        rows.append(prompt + written)
        labels.append([-100] * (len(begin) + prefix.shape[1] + len(prompt)) + written)
    longest = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (longest - len(row)) for row in rows])
    real = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    head = core.get_input_embeddings()(torch.tensor([begin] * len(rows)))
    inputs = torch.cat([head, prefix, core.get_input_embeddings()(ids)], dim=1)
    visible = torch.cat([torch.ones(len(rows), inputs.shape[1] - longest, dtype=torch.long), real], dim=1)
    logits = core.language_model(inputs_embeds=inputs, attention_mask=visible, use_cache=False).logits
    width = logits.shape[1]
    targets = torch.tensor([row + [-100] * (width - len(row)) for row in labels])
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten(), ignore_index=-100)


def turns() -> tuple[str, str]:
    from lavis_emovit.models.small.model import ANSWER_TURN, TURN

    return TURN, ANSWER_TURN


def resident_memory(precision: str) -> float:
    """Largest resident memory in GB of three steps with AdamW, the batch in pieces of 8 images."""
    model, batch = load(precision), make_batch()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    for _ in range(3):
        for first in range(0, NUM_IMAGES, 8):
            part = {name: values[2 * first : 2 * first + 16] for name, values in batch.items() if name != "image"}
            part["image"], part["image_index"] = batch["image"][first : first + 8], part["image_index"] - first
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
                loss = mean_loss(model.answer_loss(part))
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    # `ru_maxrss` begins with the size of the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / 1e9  # type: ignore[index]


def in_own_process(precision: str) -> float:
    command = [sys.executable, __file__, "--memory", precision]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


if __name__ == "__main__":
    raise SystemExit(main())
