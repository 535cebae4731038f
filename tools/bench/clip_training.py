"""Training on clips: a step on clips with several questions each, beside the plain way.

    python tools/bench/clip_training.py [--arch emovit_tiny emovit_small] [--frames 8] [--questions 4] [--clips 4]

The plain way encodes the frames of a clip again for each of its questions. Both sides have the same weights and
texts, and their losses and gradients are compared. They take turns in one process with one thread, and the ratio is
that of the medians of its processor time. It grows with the questions, and with the share of the image encoder in a
step, which is measured too: the Q-Former reads each frame with each question, so neither it nor the language model
can share its work. Do not run it beside other work.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lavis.models import load_model

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result

_SEED = 0


def batch_of(model: Any, num_clips: int, num_frames: int, num_questions: int, shared: bool) -> dict[str, Any]:
    """`num_questions` questions about each clip; without `shared`, each comes with its clip again."""
    size = model.settings.image_size
    generator = torch.Generator().manual_seed(_SEED)
    clips = torch.randn(num_clips, 3, num_frames, size, size, generator=generator)
    index = torch.arange(num_clips).repeat_interleave(num_questions)
    numbers = range(len(index))
    return {
        "image": clips if shared else clips[index],
        "image_index": index if shared else torch.arange(len(index)),
        "text_input": [f"What does the person do, and how does the mood change? {number}" for number in numbers],
        "text_output": [f"The mood changes from calm to tense at second {number}." for number in numbers],
    }


def step(model: Any, batch: dict[str, Any]) -> tuple[float, float, float]:
    """Seconds of a forward and a backward pass, the loss of a token, and the norm of the gradient."""
    start = time.process_time()
    found = model.answer_loss(batch)
    loss = found.loss_sum / found.num_tokens
    loss.backward()
    taken_s = time.process_time() - start
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = float(torch.stack([gradient.norm() for gradient in gradients]).norm())
    model.zero_grad(set_to_none=True)
    return taken_s, float(loss.detach()), norm


def encoder_s(model: Any, clips: torch.Tensor) -> float:
    """Seconds to encode all frames, as a step with a frozen encoder does."""
    start = time.process_time()
    with torch.no_grad():
        model.encode_images(clips)
    return time.process_time() - start


def compare(arch: str, num_clips: int, num_frames: int, num_questions: int, rounds: int) -> dict[str, float]:
    torch.manual_seed(_SEED)
    model = load_model(arch).eval()  # without dropout, so that both sides have one loss
    sizes = num_clips, num_frames, num_questions
    sides = {name: batch_of(model, *sizes, shared=name == "shared") for name in ("shared", "plain")}
    (_, loss, norm), (_, plain_loss, plain_norm) = (step(model, batch) for batch in sides.values())
    if abs(loss - plain_loss) > 1e-4 * plain_loss or abs(norm - plain_norm) > 1e-3 * plain_norm:
        raise SystemExit(
            f"{arch}: loss {loss:.6f} and {plain_loss:.6f}, gradient {norm:.6f} and {plain_norm:.6f} differ"
        )
    taken: dict[str, list[float]] = {name: [] for name in (*sides, "encoder")}
    for _ in range(rounds):
        for name, batch in sides.items():
            taken[name].append(step(model, batch)[0])
        taken["encoder"].append(encoder_s(model, sides["shared"]["image"]))
    shared_s, plain_s, once_s = (statistics.median(of) for of in taken.values())
    return {
        "shared_s": round(shared_s, 4),
        "plain_s": round(plain_s, 4),
        "times_as_fast": round(plain_s / shared_s, 3),
        "encoder_share_of_plain": round(num_questions * once_s / plain_s, 3),
        "loss": round(loss, 5),
        "loss_difference": abs(loss - plain_loss),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="+", default=["emovit_tiny", "emovit_small"])
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "clip_training.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sizes = {"clips": arguments.clips, "frames": arguments.frames, "questions": arguments.questions}
    results = {}
    for arch in arguments.arch:
        results[arch] = compare(arch, *sizes.values(), arguments.rounds)
        print(f"{arch}: {results[arch]}", flush=True)
    command = " ".join(["python tools/bench/clip_training.py", *sys.argv[1:]])
    write_result(
        arguments.out,
        {
            "benchmark": "clip_training",
            **sizes,
            "models": results,
            "command": command,
            **environment_info("lavis_emovit"),
        },
    )


if __name__ == "__main__":
    main()
