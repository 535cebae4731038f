"""Training on clips: a step on clips with several questions each, beside the plain way.

    python tools/bench/clip_training.py [--arch emovit_tiny emovit_small llava15] [--frames 8] [--questions 4]

The plain way gives a clip to the model again for each of its questions. Both sides have the same weights and texts, and
their losses and gradients are compared. They take turns in one process with one thread, and the ratio is that of the
medians of its processor time. It grows with the questions, and with the share of what questions can share: the image
encoder, whose share of the plain step is measured too, and the keys and values that a Q-Former makes of its features.
The rest of a Q-Former, and the language model behind it, read each frame with each question. A model without a Q-Former
reads the frames before the question, so there its language model shares them too.

`llava15` has about 100 M random weights in the shapes of LLaVA 1.5, with 196 tokens a frame instead of 576; one clip.
Do not run it beside other work.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lavis.models import load_model
from PIL import Image

from lavis_emovit.clips.clip import Clip, FrameSettings
from lavis_emovit.clips.reading import bundle_of

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result
from image_text_data import IMAGE_PX, SHAPES, BenchModel

_SEED = 0
_LLAVA = "llava15"
# 196 tokens a frame; of 576, a step of this model takes minutes.
SHAPES["clips"] = {_LLAVA: {**SHAPES["100m"][_LLAVA], "image_px": 196}}
IMAGE_PX["clips"] = IMAGE_PX["100m"]


def loaded(arch: str, folder: Path) -> Any:
    """The model; one with random weights is written to `folder`."""
    torch.manual_seed(_SEED)
    if arch != _LLAVA:
        return load_model(arch)
    from lavis_emovit.models.image_text.model import ImageText
    from lavis_emovit.processors import emovit_image_text, emovit_text  # noqa: F401  both register a processor

    path = str(BenchModel(folder / _LLAVA, _LLAVA, "clips").folder)
    return ImageText.from_config(
        {"arch": "emovit_image_text", "path": path, "trained_parts": ["projector", "language_model"]}
    )


def clips_of(model: Any, num_clips: int, num_frames: int) -> Any:
    """Clips of noise, as the model's processor gives them."""
    if getattr(model.settings, "image_size", None) is not None:
        size, generator = model.settings.image_size, torch.Generator().manual_seed(_SEED)
        return torch.randn(num_clips, 3, num_frames, size, size, generator=generator)
    numbers = np.random.default_rng(_SEED)
    images = model.processors()[0]
    images = type(images)(images.settings.model_copy(update={"frames": FrameSettings(num_frames=num_frames)}))
    clip = Clip(rate_fps=1, frames=tuple(f"{number}.png" for number in range(num_frames)))
    return images.stack([images.read(_noise(numbers, num_frames), clip)[0] for _ in range(num_clips)])


def _noise(numbers: np.random.Generator, num_frames: int) -> bytes:
    frames = []
    for number in range(num_frames):
        buffer = io.BytesIO()
        Image.fromarray(numbers.integers(0, 255, (240, 320, 3), dtype=np.uint8)).save(buffer, "PNG")
        frames.append((float(number), "png", buffer.getvalue()))
    return bundle_of(frames)


def batch_of(clips: Any, num_questions: int, shared: bool) -> dict[str, Any]:
    """`num_questions` questions about each clip; without `shared`, each comes with its clip again."""
    index = torch.arange(len(clips)).repeat_interleave(num_questions)
    numbers = range(len(index))
    again = clips[index] if isinstance(clips, torch.Tensor) else type(clips)(tuple(clips.images[n] for n in index))
    return {
        "image": clips if shared else again,
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


def encoder_s(model: Any, clips: Any) -> float:
    """Seconds to encode all frames, as a step with a frozen encoder does."""
    is_tensor = isinstance(clips, torch.Tensor)
    pixels = clips if is_tensor else torch.cat([clip.features["pixel_values"] for clip in clips.images])
    start = time.process_time()
    with torch.no_grad():
        model.encode_images(pixels) if is_tensor else model.core.model.vision_tower(pixels)
    return time.process_time() - start


def compare(model: Any, num_clips: int, frames: int, questions: int, rounds: int) -> dict[str, float]:
    model.eval()  # without dropout, so that both sides have one loss
    clips = clips_of(model, num_clips, frames)
    sides = {name: batch_of(clips, questions, shared=name == "shared") for name in ("shared", "plain")}
    (_, loss, norm), (_, plain_loss, plain_norm) = (step(model, batch) for batch in sides.values())
    if abs(loss - plain_loss) > 1e-4 * plain_loss or abs(norm - plain_norm) > 1e-3 * plain_norm:
        raise SystemExit(f"loss {loss:.6f} and {plain_loss:.6f}, gradient {norm:.6f} and {plain_norm:.6f} differ")
    taken: dict[str, list[float]] = {name: [] for name in (*sides, "encoder")}
    for _ in range(rounds):
        for name, batch in sides.items():
            taken[name].append(step(model, batch)[0])
        taken["encoder"].append(encoder_s(model, clips))
    shared_s, plain_s, once_s = (statistics.median(of) for of in taken.values())
    return {
        "clips": num_clips,
        "shared_s": round(shared_s, 4),
        "plain_s": round(plain_s, 4),
        "times_as_fast": round(plain_s / shared_s, 3),
        "encoder_share_of_plain": round(questions * once_s / plain_s, 3),
        "loss": round(loss, 5),
        "loss_difference": abs(loss - plain_loss),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="+", default=["emovit_tiny", "emovit_small", _LLAVA])
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "clip_training.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sizes = {"frames": arguments.frames, "questions": arguments.questions}
    results = {}
    for arch in arguments.arch:
        num_clips = 1 if arch == _LLAVA else arguments.clips
        with tempfile.TemporaryDirectory() as folder:
            results[arch] = compare(loaded(arch, Path(folder)), num_clips, **sizes, rounds=arguments.rounds)
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
