"""Record the numerical results and output files of a checkout, and compare them with those of another checkout.

    python tools/golden.py record golden_before.json --checkout ../before
    python tools/golden.py record golden_after.json
    python tools/golden.py compare golden_before.json golden_after.json

A refactoring must not change them. The tool runs only public commands, so it can compare any two versions that have
these commands:

- 20 optimizer steps of the quick start and of the photos recipe with one process, two processes, ZeRO 2 and ZeRO 3
  (two processes): loss and gradient norm of each step, and the validation and test metrics;
- the metrics of `eval/quickstart.yaml` (with the weights of those 20 steps) and of `eval/photos.yaml`;
- sha256 of the files of a shard build, of exported weights and of generated instruction data.

Losses depend on the machine, so record both versions on the same one. Parts that need the London faces are skipped if
the dataset is not available.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STEPS = 20
ENGINES: dict[str, tuple[int, list[str]]] = {
    "one process": (1, []),
    "two processes": (2, []),
    "ZeRO 2": (2, ["run.engine=deepspeed", "run.deepspeed_config={recipes}/deepspeed/zero2.json"]),
    "ZeRO 3": (2, ["run.engine=deepspeed", "run.deepspeed_config={recipes}/deepspeed/zero3.json"]),
}
# Keys of metrics files that describe time, place or speed, not results.
VOLATILE = {"output_dir", "started", "ended", "seconds", "versions", "machine", "wall_s", "created", "time"}


class Checkout:
    """A version of the project. Its commands run in the folder `work`."""

    def __init__(self, root: Path, work: Path):
        self.root, self.work = root.resolve(), work
        self.recipes = self.root / "projects" / "emovit"

    def run(self, *command: str, processes: int = 1) -> None:
        """Run a command of the Python environment; several processes start through torchrun."""
        scripts = Path(sys.executable).parent
        launch = [str(scripts / command[0]), *command[1:]]
        if processes > 1:
            launch = [str(scripts / "torchrun"), "--standalone", f"--nproc_per_node={processes}", *command[1:]]
        environment = {**os.environ, "PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
        environment.setdefault("EMOVIT_SHARED", str(ROOT.parent / "shared"))
        print("+", " ".join(command), flush=True)
        done = subprocess.run(launch, cwd=self.work, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(launch)} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}")

    def train(self, recipe: str, output: str, options: list[str], processes: int) -> dict[str, Any]:
        """Losses, gradient norms and metrics of the first steps of a recipe."""
        filled = [option.format(recipes=self.recipes) for option in options]
        self.run(
            "python", "-m", "lavis.train", "--cfg-path", str(self.recipes / f"{recipe}.yaml"), "--options",
            f"run.max_steps={STEPS}", f"run.output_dir={output}", *filled,
            processes=processes,
        )  # fmt: skip
        rows = [json.loads(line) for line in (self.work / output / "log.jsonl").read_text().splitlines()]
        steps = [row for row in rows if row["event"] == "step"]
        assert len(steps) == STEPS, f"{output}: {len(steps)} steps"
        return {
            "loss": [row["loss"] for row in steps],
            "grad_norm": [row["grad_norm"] for row in steps],
            "metrics": self.numbers(output, "metrics.json"),
        }

    def numbers(self, output: str, name: str) -> dict[str, float]:
        """All numbers of a metrics file, by their paths in the file."""
        return dict(flatten(json.loads((self.work / output / name).read_text())))

    def hashes(self, folder: str, keep: tuple[str, ...] = ()) -> dict[str, str]:
        """sha256 of each file below a folder; `keep` selects files by name."""
        root = self.work / folder
        files = sorted(path for path in root.rglob("*") if path.is_file() and (not keep or path.name in keep))
        assert files, root
        return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def flatten(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Paths and values of all numbers in nested mappings and lists."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in VOLATILE:
                yield from flatten(inner, f"{path}/{key}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from flatten(inner, f"{path}/{number}")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield path, value


def record(checkout: Checkout, shared: Path) -> dict[str, Any]:
    """Run all parts with one checkout."""
    golden: dict[str, Any] = {}
    has_faces = (shared / "data" / "london_faces").is_dir()
    for recipe in ("quickstart", "photos") if has_faces else ("quickstart",):
        for engine, (processes, options) in ENGINES.items():
            output = f"runs/{recipe} {engine}".replace(" ", "_")
            golden[f"{recipe}: {engine}"] = checkout.train(recipe, output, options, processes)
    checkout.run(
        "python", "-m", "lavis.evaluate", "--cfg-path", str(checkout.recipes / "eval" / "quickstart.yaml"), "--options",
        "run.checkpoint=runs/quickstart_one_process", "run.output_dir=runs/eval",
    )  # fmt: skip
    golden["eval/quickstart"] = checkout.numbers("runs/eval", "metrics.json")
    if has_faces:
        suite = str(checkout.recipes / "eval" / "photos.yaml")
        checkout.run("python", "-m", "lavis.evaluate", "--cfg-path", suite, "--options", "suite.output_dir=runs/photos")
        golden["eval/photos"] = checkout.numbers("runs/photos", "metrics.json")

    checkout.run("emovit", "data", "draw", "--out", "drawn", "--images-per-class", "12")
    checkout.run("emovit", "data", "import", "emoset", "drawn", "--out", "drawn/records.jsonl")
    checkout.run("emovit", "shards", "build", "drawn/records.jsonl", "--out", "shards", "--samples-per-shard", "20")
    golden["drawn set"] = checkout.hashes("drawn")
    golden["shards"] = checkout.hashes("shards")
    checkpoint = next((checkout.work / "runs" / "quickstart_one_process" / "checkpoints").glob("ckpt-*"))
    for target in ("export/folder", "export/weights.pth", "export/trained.safetensors"):
        checkout.run("emovit", "convert", str(checkpoint.relative_to(checkout.work)), target)
    golden["export"] = checkout.hashes("export")
    checkout.run("emovit", "generate", "all", "drawn/records.jsonl", "--out", "generated/all")
    if has_faces:
        faces = shared / "data" / "london_faces"
        checkout.run("emovit", "data", "import", "london_faces", str(faces), "--out", "faces.jsonl")
        checkout.run("emovit", "generate", "seke", "faces.jsonl", "--images", str(faces), "--out", "generated/seke")
    # Only the training data: pages and summaries contain folder names.
    golden["generated"] = checkout.hashes("generated", keep=("records.jsonl", "seke.jsonl"))
    return golden


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Differences between two recordings, one line each."""
    missing = [f"{part}: missing in one recording" for part in before.keys() ^ after.keys()]
    found = []
    for part in before.keys() & after.keys():
        left, right = (dict(flatten_leaves(side[part])) for side in (before, after))
        for name in sorted(left.keys() | right.keys()):
            if left.get(name) != right.get(name):
                found.append(f"{part}{name}: {left.get(name, 'absent')} -> {right.get(name, 'absent')}")
    return sorted(missing + found)


def flatten_leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Paths and values of all leaves in nested mappings and lists."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield path, value
        return
    for key, inner in items:
        yield from flatten_leaves(inner, f"{path} {key}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="run a checkout and write its results")
    recording.add_argument("out", type=Path)
    recording.add_argument("--checkout", type=Path, default=ROOT)
    recording.add_argument("--work", type=Path, help="folder for the files of the runs; default: a temporary folder")
    comparing = commands.add_parser("compare", help="list the differences between two recordings")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "compare":
        before, after = (json.loads(path.read_text()) for path in (arguments.before, arguments.after))
        differences = compare(before, after)
        print("\n".join(differences) or f"all {len(before)} parts are equal")
        raise SystemExit(bool(differences))
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        shared = Path(os.environ.get("EMOVIT_SHARED", ROOT.parent / "shared"))
        golden = record(Checkout(arguments.checkout, work), shared)
    arguments.out.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
    print(f"{len(golden)} parts: {arguments.out}")


if __name__ == "__main__":
    main()
