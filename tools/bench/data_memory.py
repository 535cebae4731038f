"""Peak memory of the commands on many records, above an empty process.

    python tools/bench/data_memory.py --out benchmarks/data_memory.json

Draws a folder of small images, eight classes, and runs `emovit data import`, `stats`, `verify` and `dedupe` and
`emovit shards build` on it, each in a process. Subtracts the peak of a process that only starts Python.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result

LABELS = ("amusement", "anger", "awe", "contentment", "disgust", "excitement", "fear", "sadness")
# Linux counts the peak of a process from its start, unlike `ru_maxrss`, which a fork inherits.
_RUN = """
import sys
if sys.argv[1:]:
    from lavis_emovit.cli.main import main
    assert main(sys.argv[1:]) == 0
with open("/proc/self/status") as file:
    print(next(line for line in file if line.startswith("VmHWM")), end="")
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run all commands and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "data_memory.json")
    parser.add_argument("--records", type=int, default=200_000)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        draw_images(place / "images", arguments.records)
        records = str(place / "records.jsonl")
        commands = {
            "import": ["data", "import", "folder", str(place / "images"), "--label-set", "mikels8", "--out", records],
            "import_split": [
                *("data", "import", "folder", str(place / "images"), "--label-set", "mikels8"),
                *("--out", str(place / "split.jsonl"), "--split-seed", "0", "--stratify"),
            ],
            "stats": ["data", "stats", records],
            "verify": ["data", "verify", records],
            "dedupe": ["data", "dedupe", records, "--out", str(place / "clean.jsonl")],
            "build": ["shards", "build", records, "--out", str(place / "shards"), "--processes", "1"],
        }
        empty_mb = peak_mb([])
        above = {name: round(peak_mb(command) - empty_mb) for name, command in commands.items()}
    result = {
        "benchmark": "data_memory",
        "command": f"python tools/bench/data_memory.py --records {arguments.records}",
        "num_records": arguments.records,
        "empty_process_mb": round(empty_mb),
        "peak_mb_above_an_empty_process": above,
        **environment_info("lavis_emovit", "tools/bench/data_memory.py"),
    }
    write_result(arguments.out, result)
    print(json.dumps(above))
    return 0


def draw_images(folder: Path, count: int) -> None:
    """Small PNG files with different content, a folder for each label."""
    rng = np.random.default_rng(0)
    for label in LABELS:
        (folder / label).mkdir(parents=True)
    for number in range(count):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / LABELS[number % len(LABELS)] / f"{number:07d}.png", compress_level=1)


def peak_mb(command: Sequence[str]) -> float:
    """Peak resident memory of a process with a command of `emovit`, or with nothing to do, in MB."""
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *command], stdout=subprocess.PIPE, text=True, cwd=ROOT, check=True
    )
    return int(done.stdout.splitlines()[-1].split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    raise SystemExit(main())
