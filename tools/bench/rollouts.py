"""Compare the answers a second of a group, sampled by the family `image_text` and by TRL itself, on the same model.

    python tools/bench/rollouts.py
    python tools/bench/rollouts.py --shapes tiny --rounds 2 --out /tmp/rollouts.json

The model is a LLaVA with random weights (about 100 M; an image has 576 tokens). Both sides read the same image files
and questions, sample the same number of tokens for groups of the same size in float32, and take turns in one process
with one thread. TRL's side is its GRPOTrainer's own generation, with what its processor prepares: every answer has a
row with its own image. The clock is processor time, because other work on the machine has little influence on it.

That both draw from the same distribution is shown by `tests/rl/test_sampling.py`.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result
from image_text_data import SHAPES, BenchModel
from image_text_sides import our_model, read_images
from PIL import Image

QUESTION_WORDS = 30


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", choices=SHAPES, default="100m")
    parser.add_argument("--rounds", type=int, default=5, help="groups of each side, after one that does not count")
    parser.add_argument("--group", type=int, default=8, help="answers to a question")
    parser.add_argument("--tokens", type=int, nargs="+", default=[16, 64], help="lengths of the answers")
    parser.add_argument("--images", type=int, default=1, help="questions at once, each about an image of its own")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "rollouts.json")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        bench = BenchModel(Path(folder, "llava15"), "llava15", arguments.shapes)
        cases = [measure(bench, tokens, arguments) for tokens in arguments.tokens]
    facts = environment_info("lavis_emovit/models", "tools/bench", packages=("trl", "accelerate"))
    facts["machine"]["threads"] = 1
    result = {
        "benchmark": "rollouts",
        "shapes": {"name": arguments.shapes, **SHAPES[arguments.shapes]["llava15"]},
        "clock": "processor time, user and system; median of the rounds",
        "group": arguments.group,
        "images": arguments.images,
        "rounds": arguments.rounds,
        "cases": cases,
        "command": " ".join(["python tools/bench/rollouts.py", *(sys.argv[1:] if argv is None else argv)]),
        **facts,
    }
    write_result(arguments.out, result)
    for case in cases:
        print(
            f"answers of {case['tokens']} tokens: {case['ours_per_s']:.2f} a second, TRL {case['trl_per_s']:.2f}, "
            f"ratio {case['ratio']:.2f}"
        )
    return 0


def measure(bench: BenchModel, tokens: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Answers a second of both sides, which take turns."""
    rng = random.Random(0)
    sides = {"ours": our_side(bench, tokens, arguments.group), "trl": trl_side(bench, tokens, arguments.group)}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(arguments.rounds + 1):
        step = bench.step(rng, 1, arguments.images)
        questions = [bench.words(rng, QUESTION_WORDS) for _ in step["images"]]
        for name, sample in sides.items():
            torch.manual_seed(number)
            begin = time.process_time()
            num_tokens = sample(step["images"], questions)
            spent = time.process_time() - begin
            # No answer ends early, so that both sides do the same work.
            assert num_tokens == [tokens] * (arguments.group * arguments.images), (name, num_tokens)
            if number:
                seconds[name].append(spent)
    count = arguments.group * arguments.images
    rates = {name: count / statistics.median(some) for name, some in seconds.items()}
    return {
        "tokens": tokens,
        "ours_per_s": round(rates["ours"], 3),
        "trl_per_s": round(rates["trl"], 3),
        "ratio": round(rates["ours"] / rates["trl"], 3),
        "seconds": {name: [round(one, 3) for one in some] for name, some in seconds.items()},
    }


def our_side(bench: BenchModel, tokens: int, group: int) -> Callable[[list[str], list[str]], list[int]]:
    model = our_model({"folder": str(bench.folder)}, frozen_precision="fp32")
    model.train(False)
    model._end_ids = lambda: [-1]  # no token ends an answer

    def sample(paths: list[str], questions: list[str]) -> list[int]:
        batch = {"image": read_images(model, paths), "text_input": questions}
        return list(map(len, model.sample_answers(batch, group, max_new_tokens=tokens)))

    return sample


def trl_side(bench: BenchModel, tokens: int, group: int) -> Callable[[list[str], list[str]], list[int]]:
    from datasets import Dataset
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from trl import GRPOConfig, GRPOTrainer

    trainer = GRPOTrainer(
        model=AutoModelForImageTextToText.from_pretrained(bench.folder, dtype=torch.float32),
        reward_funcs=[lambda **_: []],
        processing_class=AutoProcessor.from_pretrained(bench.folder),
        train_dataset=Dataset.from_dict({"prompt": ["?"]}),
        args=GRPOConfig(
            output_dir=str(bench.folder / "trl"), num_generations=group, per_device_train_batch_size=group,
            max_completion_length=tokens, use_cpu=True, bf16=False, report_to=[], gradient_checkpointing=False,
        ),
    )  # fmt: skip
    trainer.eos_token_ids = trainer.generation_config.eos_token_id = [-1]

    def sample(paths: list[str], questions: list[str]) -> list[int]:
        # As its training does: every answer has a prompt with the image.
        prompts = []
        for path, question in zip(paths, questions):
            image = Image.open(path)
            image.load()
            content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
            prompts += [[{"role": "user", "content": content}]] * group
        ids, images, fields = trainer._tokenize_prompts(prompts)
        written, _ = trainer._generate_single_turn(ids, images, fields, group)
        return list(map(len, written))

    return sample


if __name__ == "__main__":
    raise SystemExit(main())
