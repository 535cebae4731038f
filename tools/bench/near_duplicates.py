"""Measure the distances of copies and of different images, in bits of the perceptual hash.

    python tools/bench/near_duplicates.py --root ../shared/data

Copies are made of 60 images of each set: recompressed (JPEG quality 50), halved in size, and cropped by 2 %. Different
images are all pairs of images of a set. The result also contains the time of comparing 118,102 hashes with each other,
the number of images of EmoSet.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result

from lavis_emovit.sources.checks import check_file, near_hashes, open_thumbnail

SETS = ("london_faces", "oasis", "bass")
NUM_COPIED = 60
NUM_HASHES = 118_102


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("../shared/data"), help="folder with the three datasets")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "near_duplicates.json")
    arguments = parser.parse_args(argv)
    result: dict[str, Any] = {"benchmark": "near_duplicates", "sets": {}}
    for name in SETS:
        files = sorted((arguments.root / name / "images").iterdir())
        started = time.perf_counter()
        hashes = {path: check_file(str(path)).phash for path in files}
        seconds = time.perf_counter() - started
        result["sets"][name] = {
            "num_pictures": len(files),
            "pictures_per_s": round(len(files) / seconds, 1),
            "copies": copies(random.Random(0).sample(files, NUM_COPIED), hashes),
            "different": different([value for value in hashes.values() if value is not None]),
        }
    rng = random.Random(0)
    many = {rng.getrandbits(64) for _ in range(NUM_HASHES)}
    started = time.perf_counter()
    near_hashes(many, 2)
    result["compare"] = {"num_hashes": len(many), "near_bits": 2, "seconds": round(time.perf_counter() - started, 2)}
    result |= {
        "command": f"python tools/bench/near_duplicates.py --root {arguments.root}",
        **environment_info(packages=("imagehash", "pillow")),
    }
    write_result(arguments.out, result)
    print(json.dumps(result["sets"], indent=1))
    return 0


def copies(files: Sequence[Path], hashes: dict[Path, int | None]) -> dict[str, dict[str, int]]:
    """Kind of copy -> number of differing bits -> number of images."""
    counts: dict[str, Counter[int]] = {
        "jpeg quality 50": Counter(),
        "half size": Counter(),
        "cropped by 2 %": Counter(),
    }
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.jpg"
        for path in files:
            image = open_thumbnail(path, 10_000)
            width, height = image.size
            variants = {
                "jpeg quality 50": image,
                "half size": image.resize((width // 2, height // 2)),
                "cropped by 2 %": image.crop((width // 50, height // 50, width, height)),
            }
            for kind, changed in variants.items():
                changed.save(copy, quality=50 if kind.startswith("jpeg") else 90)
                one, other = hashes[path], check_file(str(copy)).phash
                if one is not None and other is not None:
                    counts[kind][(one ^ other).bit_count()] += 1
    return {kind: {str(bits): count for bits, count in sorted(found.items())} for kind, found in counts.items()}


def different(hashes: Sequence[int]) -> dict[str, int]:
    """Number of pairs, and of pairs with at most 2, 4, 6 and 8 differing bits."""
    bits = [(one ^ other).bit_count() for one, other in combinations(hashes, 2)]
    return {"pairs": len(bits), **{f"at most {limit}": sum(b <= limit for b in bits) for limit in (2, 4, 6, 8)}}


if __name__ == "__main__":
    raise SystemExit(main())
