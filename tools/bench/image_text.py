"""Compare training and scoring of the family `image_text` with TRL, and with an earlier commit of ours.

    python tools/bench/image_text.py --trl-python FOLDER/bin/python

Models have about 100 M random weights, in the shapes of LLaVA 1.5 and Qwen2.5-VL; an image has 576 tokens. Each side is
a process with one thread. Both read the same weights and the same image files, train the same parts
(projector and language model) with the same settings, and take turns, a step each, every step with other images. Losses
and numbers of supervised tokens must be equal in every step. A step is all that training needs: reading images,
forward, backward and AdamW. The clock is processor time, because other work on the machine has little influence on it.

TRL is its `SFTTrainer` with its collator for images, on conversations of prompt and completion. On a GPU, its output
head reads the supervised positions only, as ours does everywhere; on a CPU it reads all positions, which takes half of
a step. Most cases let it read the supervised positions here too, so that the ratio is none of that difference.
`--trl-python` is a Python that has TRL beside the packages of this project; without it, ours is measured alone.

A case of an earlier result with the same shapes stays in it until it is measured again: all take an hour.

The result contains the arithmetic too: positions of both sides, and `limit`, the ratio of their operations by
parameters and positions (a frozen image encoder only forward). It leaves out attention, the optimizer and the reading
of images.

Scoring is compared with the adapter `transformers` of commit c87bad2, which Git must have.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result
from image_text_data import LENGTHS, SHAPES, SHARE_REASONING, BenchModel

SOURCES = ("lavis_emovit/models", "lavis_emovit/processors", "tools/bench")
SIDES = Path(__file__).with_name("image_text_sides.py")
BEFORE = "c87bad2"
LOSS_TOLERANCE, SCORE_TOLERANCE = 1e-4, 1e-3  # of the losses' size; of a sum of log-probabilities

Measured = Mapping[str, dict[str, Any]]  # side -> what it wrote after loading, and in each step


@dataclass(frozen=True)
class Case:
    """A measurement of training.

    Attributes:
        questions, images: questions per image, images per step.
        recompute: whether the backward pass computes the language model's layers again, TRL's default.
        trl_reads_all: whether TRL's output head reads all positions, as it does on a CPU.
    """

    family: str
    questions: int
    images: int
    recompute: bool = False
    trl_reads_all: bool = False

    @property
    def name(self) -> str:
        asked = f"{self.questions} question{'s' * (self.questions > 1)} per image"
        more = ", recomputed" * self.recompute + ", TRL unchanged" * self.trl_reads_all
        return f"{self.family}, {asked}{more}"


CASES = (
    Case("llava15", 4, 2),  # eight pairs, TRL's default
    Case("qwen25vl", 4, 1),
    Case("llava15", 1, 2),
    Case("qwen25vl", 1, 2),
    Case("llava15", 4, 2, recompute=True),
    Case("llava15", 4, 2, trl_reads_all=True),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the result and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trl-python", help="a Python that has TRL beside the packages of this project")
    parser.add_argument("--shapes", choices=SHAPES, default="100m")
    parser.add_argument("--rounds", type=int, default=5, help="steps of each side, after one that does not count")
    parser.add_argument(
        "--cases", type=int, nargs="*", choices=range(len(CASES)), help="numbers of the cases; default: all"
    )
    parser.add_argument("--no-scoring", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "image_text.json")
    arguments = parser.parse_args(argv)
    reason = why_no_trl(arguments.trl_python)
    facts = environment_info(*SOURCES, packages=("accelerate", "datasets"))
    result: dict[str, Any] = {
        "benchmark": "image_text",
        "shapes": {"name": arguments.shapes, **SHAPES[arguments.shapes]},
        "clock": "processor time, user and system, of each side's process and its children",
        "precision": "fp32",
        "trained_parts": ["projector", "language_model"],
        "lengths_tokens": LENGTHS,
        "share_reasoning": SHARE_REASONING,
        "trl_not_measured": reason,
        **earlier(arguments.out, arguments.shapes),
        "command": " ".join(["python tools/bench/image_text.py", *(sys.argv[1:] if argv is None else argv)]),
        **facts,
    }
    result["machine"]["threads"] = 1
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), arguments.shapes, arguments.rounds, None if reason else arguments.trl_python)
        for number in range(len(CASES)) if arguments.cases is None else arguments.cases:
            row = {**bench.train(CASES[number]), "commit": facts["commit"]}
            print(training_row(row), flush=True)
            result["training"] = {**result["training"], row["name"]: row}
            write_result(arguments.out, result)  # the next case takes minutes
        if not arguments.no_scoring:
            result["scoring"] = {**bench.score(), "commit": facts["commit"]}
    write_result(arguments.out, result)
    print(tables(result))
    return 0


def earlier(file: Path, shapes: str) -> dict[str, Any]:
    """What an earlier result measured with the same shapes."""
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if found.get("shapes", {}).get("name") != shapes:
        return {"training": {}, "scoring": None}
    return {key: found[key] for key in ("training", "scoring")}


def why_no_trl(python: str | None) -> str | None:
    """Why TRL cannot be measured, None if it can."""
    if python is None:
        return "--trl-python names no Python that has TRL"
    done = subprocess.run([python, "-c", "from trl import SFTTrainer"], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"{python} cannot import TRL: {done.stderr.strip().splitlines()[-1]}"


class Bench:
    """Measures in a folder, with models of one size.

    Args:
        trl_python: None: TRL is not measured.
    """

    def __init__(self, folder: Path, shapes: str, rounds: int, trl_python: str | None):
        self._folder, self._rounds, self._trl_python = folder, rounds, trl_python
        self._shapes, self._models = shapes, dict[str, BenchModel]()

    def train(self, case: Case) -> dict[str, Any]:
        """SystemExit if the sides do not compute the same."""
        model, rng = self._model(case.family), random.Random(case.name)
        # One more for the warm-up, and one that TRL reads ahead.
        steps = [model.step(rng, case.questions, case.images) for _ in range(self._rounds + 2)]
        work = {
            "folder": str(model.folder),
            "recompute": case.recompute,
            "steps": steps,
            "trl_reads_all": case.trl_reads_all,
        }
        pythons = {"ours": sys.executable} | ({"trl": self._trl_python} if self._trl_python else {})
        found = self._take_turns(work, {side: (python, ROOT) for side, python in pythons.items()})
        differences = []
        for rows in zip(*(side["steps"] for side in found.values())):
            losses, counts = [row["loss"] for row in rows], {row["supervised"] for row in rows}
            differences.append((max(losses) - min(losses)) / max(losses))
            if differences[-1] > LOSS_TOLERANCE or len(counts) > 1:
                raise SystemExit(f"{case.name}: the sides have other losses, {losses}, over {counts} tokens")
        if len({side["loaded"]["trained"] for side in found.values()}) > 1:
            raise SystemExit(f"{case.name}: the sides train other parameters")
        return {
            "name": case.name,
            **asdict(case),
            "pairs": case.images * case.questions,
            "rounds": self._rounds,
            "parameters": model.parameters(),
            "largest_relative_loss_difference": max(differences),
            **training_figures(found, model.parameters(), case),
        }

    def score(self) -> dict[str, Any]:
        """Scores of eight candidates, for a question about each of two images. SystemExit if the scores differ."""
        model, rng = self._model("llava15"), random.Random("scoring")
        candidates = model.candidates(rng)
        steps = [model.step(rng, 1, 2) | {"candidates": candidates} for _ in range(self._rounds + 1)]
        # The earlier adapter joins prompt and answer without a space of its own.
        work = {"folder": str(model.folder), "lead": " ", "steps": steps}
        reason = extract(BEFORE, self._folder / "before")
        checkouts = {"score_ours": ROOT} | ({} if reason else {"score_before": self._folder / "before"})
        found = self._take_turns(work, {side: (sys.executable, checkout) for side, checkout in checkouts.items()})
        result: dict[str, Any] = {
            "family": model.family,
            "images": 2,
            "candidates": len(candidates),
            "before": BEFORE,
            "before_not_measured": reason,
            **costs(found, "score_ours", "score_before"),
        }
        if reason is None:
            mine, theirs = (np.array([row["scores"] for row in side["steps"]]) for side in found.values())
            result["largest_score_difference"] = float(abs(mine - theirs).max())
            if result["largest_score_difference"] > SCORE_TOLERANCE:
                raise SystemExit(f"scores differ by {result['largest_score_difference']}")
        return result

    def _model(self, family: str) -> BenchModel:
        if family not in self._models:
            self._models[family] = BenchModel(self._folder / family, family, self._shapes)
        return self._models[family]

    def _take_turns(self, work: dict[str, Any], sides: Mapping[str, tuple[str, Path]]) -> Measured:
        """Run each side (a Python and a checkout of ours) in its process, one step of each in turn."""
        file = self._folder / "work.json"
        file.write_text(json.dumps(work | {"scratch": str(self._folder / "scratch")}), encoding="utf-8")
        with ExitStack() as stack:
            running = {name: stack.enter_context(Side(name, *place, file)) for name, place in sides.items()}
            found = {name: {"loaded": side.read(), "steps": list[Any]()} for name, side in running.items()}
            for number in range(self._rounds + 1):
                for name in list(running)[:: 1 if number % 2 else -1]:
                    found[name]["steps"].append(running[name].step())
        for side in found.values():
            del side["steps"][0]  # the warm-up
        return found


class Side:
    """A process of `image_text_sides.py`."""

    def __init__(self, name: str, python: str, checkout: Path, work: Path):
        environment = {
            **os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "",
        }  # fmt: skip
        self._name, self._errors = name, work.with_name(f"{name}.log")
        command = [python, str(SIDES), name, str(work)]
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()

    def step(self) -> dict[str, Any]:
        assert self._process.stdin
        print("step", file=self._process.stdin, flush=True)
        return self.read()

    def read(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the side {self._name} ended:\n{self._errors.read_text(encoding='utf-8')[-3000:]}")
        return json.loads(line)


def extract(commit: str, folder: Path) -> str | None:
    """Write the package of a commit into a folder; the reason if Git does not have it."""
    archive = folder.with_suffix(".tar")
    command = ["git", "archive", f"--output={archive}", commit, "lavis_emovit"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"Git has no commit {commit} here"
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return None


def costs(found: Measured, ours: str, other: str) -> dict[str, Any]:
    """Processor time and memory of two sides; `other` may be missing."""
    seconds = {name: [row["seconds"] for row in side["steps"]] for name, side in found.items()}
    memory = {
        name: {
            "peak_bytes": max(row["peak_bytes"] for row in side["steps"]),
            "after_loading_bytes": side["loaded"]["memory_bytes"],
        }
        for name, side in found.items()
    }
    result: dict[str, Any] = {"seconds": seconds, "memory": memory}
    if other in found:
        ratios = [slow / fast for slow, fast in zip(seconds[other], seconds[ours])]
        above = {name: row["peak_bytes"] - row["after_loading_bytes"] for name, row in memory.items()}
        result |= {
            "ratio": statistics.median(ratios),
            "ratio_lowest": min(ratios),
            "ratio_highest": max(ratios),
            "memory_ratio": memory[ours]["peak_bytes"] / memory[other]["peak_bytes"],
            "memory_ratio_above_loading": above[ours] / above[other],
        }
    return result


def training_figures(found: Measured, parameters: Mapping[str, int], case: Case) -> dict[str, Any]:
    """What the sides ran over and what it cost, with the ratio that the arithmetic allows."""
    image = found["ours"]["loaded"]["image"]
    sums = {
        name: {key: sum(row[key] for row in side["steps"]) for key in ("positions", "images", "supervised")}
        for name, side in found.items()
    }
    operations = {
        name: (4 if case.recompute else 3) * parameters["language_model"] * row["positions"]
        + 3 * parameters["head"] * row["positions" if name == "trl" and case.trl_reads_all else "supervised"]
        + 3 * parameters["projector"] * image["tokens"] * row["images"]
        + parameters["vision_encoder"] * image["patches"] * row["images"]
        for name, row in sums.items()
    }
    result = {"image": image, "ran_over": sums, **costs(found, "ours", "trl")}
    num_pairs = case.images * case.questions
    result["pairs_per_s"] = {
        name: num_pairs / statistics.median(seconds) for name, seconds in result["seconds"].items()
    }
    if "trl" in found:
        loaded = found["trl"]["loaded"]
        result |= {
            "trl": {key: loaded[key] for key in ("version", "settings")},
            "share_of_positions_saved": 1 - sums["ours"]["positions"] / sums["trl"]["positions"],
            "share_of_padding_in_trl": 1 - sum(row["real"] for row in found["trl"]["steps"]) / sums["trl"]["positions"],
            "limit": operations["trl"] / operations["ours"],
        }
    return result


def tables(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        "| training | ours, pairs/s | TRL, pairs/s | ratio | limit | positions saved | peak, GB: ours | TRL | ratio "
        "| above loading |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        *map(training_row, result["training"].values()),
    ]
    scoring = result["scoring"]
    if scoring is not None:
        compared = spread(scoring) if "ratio" in scoring else scoring["before_not_measured"]
        lines += ["", f"Scoring {scoring['candidates']} labels, against {scoring['before']}: {compared}"]
    if result["trl_not_measured"]:
        lines += ["", f"TRL was not measured: {result['trl_not_measured']}"]
    return "\n".join(lines)


def training_row(row: Mapping[str, Any]) -> str:
    speed, memory = row["pairs_per_s"], row["memory"]
    if "trl" not in speed:
        return f"| {row['name']} | {speed['ours']:.3f} | | | | | {gb(memory['ours'])} | | | |"
    return (
        f"| {row['name']} | {speed['ours']:.3f} | {speed['trl']:.3f} | {spread(row)} | {row['limit']:.2f} "
        f"| {row['share_of_positions_saved']:.0%} | {gb(memory['ours'])} | {gb(memory['trl'])} "
        f"| {row['memory_ratio']:.2f} | {row['memory_ratio_above_loading']:.2f} |"
    )


def spread(row: Mapping[str, Any]) -> str:
    return f"{row['ratio']:.2f} ({row['ratio_lowest']:.2f} to {row['ratio_highest']:.2f})"


def gb(memory: Mapping[str, int]) -> str:
    return f"{memory['peak_bytes'] / 1e9:.2f}"


if __name__ == "__main__":
    raise SystemExit(main())
