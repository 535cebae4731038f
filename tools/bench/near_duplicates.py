"""How near copies of a picture come to it, and different pictures to each other, in bits of the perceptual hash.

    python tools/bench/near_duplicates.py --root ../shared/data

Copies: compressed again (JPEG, quality 50), halved in size, and cropped by 2 %, of 60 pictures of each set. Different
pictures: all pairs of the pictures of a set. Also: how long the hashes of 118,102 pictures, as many as EmoSet has, take
to be compared with each other.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import date
from itertools import combinations
from pathlib import Path
from typing import Any

import imagehash
from PIL import Image

from lavis_emovit.distributed.machine import machine_facts, package_versions
from lavis_emovit.sources.checks import _near_pairs, check_file, open_thumbnail

ROOT = Path(__file__).resolve().parents[2]
SETS = ("london_faces", "oasis", "bass")
CHOSEN = 60
NUM_HASHES = 118_102


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("../shared/data"), help="folder of the three sets")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "near_duplicates.json")
    arguments = parser.parse_args(argv)
    result: dict[str, Any] = {"benchmark": "near_duplicates", "sets": {}}
    for name in SETS:
        files = sorted((arguments.root / name / "images").iterdir())
        started_s = time.perf_counter()
        hashes = {path: check_file(str(path)).phash for path in files}
        seconds = time.perf_counter() - started_s
        result["sets"][name] = {
            "num_pictures": len(files),
            "pictures_per_s": round(len(files) / seconds, 1),
            "copies": copies(random.Random(0).sample(files, CHOSEN), hashes),
            "different": different([value for value in hashes.values() if value is not None]),
        }
    rng = random.Random(0)
    many = {rng.getrandbits(64): [str(number)] for number in range(NUM_HASHES)}
    started_s = time.perf_counter()
    _near_pairs(many, 2)
    result["compare"] = {"num_hashes": len(many), "near_bits": 2, "seconds": round(time.perf_counter() - started_s, 2)}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    result |= {
        "command": f"python tools/bench/near_duplicates.py --root {arguments.root}",
        "date": date.today().isoformat(),
        "commit": commit,
        "versions": {**package_versions(), "imagehash": imagehash.__version__, "pillow": Image.__version__},
        "machine": machine_facts(),
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["sets"], indent=1))
    return 0


def copies(files: Sequence[Path], hashes: dict[Path, int | None]) -> dict[str, dict[str, int]]:
    """Kind of copy -> bits that differ -> pictures."""
    found: dict[str, Counter[int]] = {"jpeg quality 50": Counter(), "half size": Counter(), "cropped by 2 %": Counter()}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.jpg"
        for path in files:
            image = open_thumbnail(path, 10_000)
            width, height = image.size
            changed = {
                "jpeg quality 50": image,
                "half size": image.resize((width // 2, height // 2)),
                "cropped by 2 %": image.crop((width // 50, height // 50, width, height)),
            }
            for kind, picture in changed.items():
                picture.save(copy, quality=50 if kind.startswith("jpeg") else 90)
                one, other = hashes[path], check_file(str(copy)).phash
                if one is not None and other is not None:
                    found[kind][(one ^ other).bit_count()] += 1
    return {kind: {str(bits): count for bits, count in sorted(counts.items())} for kind, counts in found.items()}


def different(hashes: Sequence[int]) -> dict[str, int]:
    """Pairs in all, and pairs that differ in at most 2, 4, 6 and 8 bits."""
    bits = [(one ^ other).bit_count() for one, other in combinations(hashes, 2)]
    return {"pairs": len(bits), **{f"at most {limit}": sum(b <= limit for b in bits) for limit in (2, 4, 6, 8)}}


if __name__ == "__main__":
    raise SystemExit(main())
