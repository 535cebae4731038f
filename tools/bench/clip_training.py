"""Training on clips: a step on clips with several questions each, beside the plain way.

    python tools/bench/clip_training.py [--arch emovit_tiny] [--frames 8] [--questions 4] [--clips 4] [--rounds 5]

The plain way encodes the frames of a clip again for each of its questions. Both sides have the same weights and texts,
and their losses and gradients are compared; they take turns in one process, and the ratio is that of the medians. It
grows with the questions, and with the share of the image encoder in a step: choose the model and the numbers that you
train with. Do not run it beside other work.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from lavis.models import load_model

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
    start = time.perf_counter()
    found = model.answer_loss(batch)
    loss = found.loss_sum / found.num_tokens
    loss.backward()
    taken_s = time.perf_counter() - start
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = float(torch.stack([gradient.norm() for gradient in gradients]).norm())
    model.zero_grad(set_to_none=True)
    return taken_s, float(loss.detach()), norm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="emovit_tiny")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.manual_seed(_SEED)
    model = load_model(arguments.arch).eval()  # without dropout, so that both sides have one loss
    sizes = arguments.clips, arguments.frames, arguments.questions
    sides = {name: batch_of(model, *sizes, shared=name == "shared") for name in ("shared", "plain")}
    (_, loss, norm), (_, plain_loss, plain_norm) = (step(model, batch) for batch in sides.values())
    if abs(loss - plain_loss) > 1e-4 * plain_loss or abs(norm - plain_norm) > 1e-3 * plain_norm:
        raise SystemExit(f"loss {loss:.6f} and {plain_loss:.6f}, gradient {norm:.6f} and {plain_norm:.6f} differ")
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(arguments.rounds):
        for name, batch in sides.items():
            taken[name].append(step(model, batch)[0])
    shared_s, plain_s = (statistics.median(taken[name]) for name in sides)
    print(
        f"{arguments.arch}, {arguments.clips} clips of {arguments.frames} frames with {arguments.questions} questions: "
        f"{shared_s:.3f} s, plain {plain_s:.3f} s: {plain_s / shared_s:.2f} times the clips a second, loss {loss:.5f}"
    )


if __name__ == "__main__":
    main()
