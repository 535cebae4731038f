"""Fifty answers of emovit_small about real photographs, for people to judge: do they name something that is there?

    python tools/bench/small_answers.py ask --sheet sheet.png                     # images with their answers
    python tools/bench/small_answers.py judge --named 0 3 7                       # after looking at the sheet
    python tools/bench/small_answers.py ask --checkpoint output/emovit/small/oasis --out after.json --sheet after.png

`ask` draws the photographs from OASIS by the seed, and asks "What is in this image?". `judge` stores the numbers of the
answers that name something in the photograph, as one person judged them, and the count. The sheet is for looking only:
the photographs are not ours.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result

QUESTION = "What is in this image?"
COLUMNS, TILE_PX, TEXT_PX = 5, 300, 52


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=("ask", "judge"))
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", help="checkpoint of a run; by default the model before tuning")
    parser.add_argument("--named", type=int, nargs="*", default=[], help="numbers of the answers that name something")
    parser.add_argument("--sheet", type=Path, default=Path("sheet.png"))
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "small_answers.json")
    arguments = parser.parse_args(argv)
    if arguments.step == "judge":
        result = json.loads(arguments.out.read_text(encoding="utf-8"))
        for number, row in enumerate(result["answers"]):
            row["names_something_there"] = number in arguments.named
        result["num_named"] = len(arguments.named)
        write_result(arguments.out, result)
        print(f"{result['num_named']} of {len(result['answers'])} answers name something that is there")
        return 0
    folder = Path(os.environ.get("EMOVIT_SHARED", ROOT.parent / "shared")) / "data" / "oasis"
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        rows = random.Random(arguments.seed).sample(list(csv.DictReader(file)), arguments.count)
    images = [Image.open(folder / row["image"]).convert("RGB") for row in rows]
    answers = ask(images, arguments.checkpoint)
    draw_sheet(images, answers, arguments.sheet)
    write_result(
        arguments.out,
        {
            "benchmark": "small_answers",
            "question": QUESTION,
            "checkpoint": arguments.checkpoint,
            "answers": [{"image": row["oasis_id"], "answer": answer} for row, answer in zip(rows, answers)],
            "command": f"python tools/bench/small_answers.py ask --count {arguments.count} --seed {arguments.seed}"
            + (f" --checkpoint {arguments.checkpoint}" if arguments.checkpoint else ""),
            **environment_info("lavis_emovit/models", "tools/bench/small_answers.py"),
        },
    )
    return 0


def ask(images: Sequence[Image.Image], checkpoint: str | None) -> list[str]:
    """The model's answer about each image."""
    import torch

    from lavis_emovit.models.small.model import EmoVITSmall

    tuned = {"load_finetuned": True, "finetuned": checkpoint} if checkpoint else {}
    model = EmoVITSmall.from_config({"arch": "emovit_small", "num_query_token": 16, **tuned}).eval()
    processor, _ = model.processors()
    answers: list[str] = []
    for first in range(0, len(images), 10):
        batch = torch.stack([processor(image) for image in images[first : first + 10]])
        answers += model.generate({"image": batch, "prompt": QUESTION}, max_length=24)
    return answers


def draw_sheet(images: Sequence[Image.Image], answers: Sequence[str], path: Path) -> None:
    rows = -(-len(images) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * TILE_PX, rows * (TILE_PX * 4 // 5 + TEXT_PX)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (image, answer) in enumerate(zip(images, answers)):
        left, top = number % COLUMNS * TILE_PX, number // COLUMNS * (TILE_PX * 4 // 5 + TEXT_PX)
        sheet.paste(image.resize((TILE_PX - 6, TILE_PX * 4 // 5)), (left, top))
        words = f"{number}: {answer}"
        lines = [words[start : start + 46] for start in range(0, min(len(words), 138), 46)]
        pen.text((left, top + TILE_PX * 4 // 5 + 2), "\n".join(lines), fill="black")
    sheet.save(path)


if __name__ == "__main__":
    raise SystemExit(main())
