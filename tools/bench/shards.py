"""Speed of shards: the loader against a bare loop and against LAVIS's own dataset, the index, the build, the order.

    python tools/bench/shards.py --out benchmarks/shards.json

- loader: pictures a second out of the same JPEG files, square and 4 : 3, with a longer side of 1024 px, in this
  process and with two workers. `bare` decodes, resizes and normalises in a loop and does nothing else, with reduced
  decoding and the resizing kernel as ours has them; `lavis` is LAVIS's caption dataset with its evaluation processor
  under a plain DataLoader, since LAVIS's own loader needs CUDA. Rounds are interleaved; medians. Reduced decoding keeps
  both sides at one and a half times the input's 224 px, so it halves both shapes.
- overhead: what the loader does besides the bare loop, in microseconds of processor time a picture.
- index: ten million synthetic samples; opening in a fresh process, its memory by kind, and jumps in the order.
- build: the same records with one and with two processes; what decoding, hashing and writing take of the time, and
  which of them is the limit.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
IMAGE_SIZE = 224
REPEATS = 4


def main(argv: Sequence[str] | None = None) -> int:
    """Run all parts and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "shards.json")
    parser.add_argument("--pictures", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--build-pictures", type=int, default=2400)
    parser.add_argument("--open-index", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.open_index is not None:
        print(json.dumps(open_index(arguments.open_index)))
        return 0
    import torch

    from lavis_emovit.distributed.machine import machine_facts, package_versions

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        load_average = os.getloadavg()[0]
        shapes = {"1024x1024": Path(folder, "square"), "1024x768": Path(folder, "landscape")}
        for shape, place in shapes.items():
            draw_pictures(place / "pictures", arguments.pictures, int(shape.partition("x")[2]))
        result: dict[str, Any] = {
            "build": measure_build(shapes["1024x768"], arguments.pictures, arguments.build_pictures),
            "loader": {
                shape: measure_loader(place, arguments.pictures, arguments.rounds) for shape, place in shapes.items()
            },
            "index": measure_index(Path(folder, "index"), arguments.samples),
        }
    result["command"] = f"python tools/bench/shards.py {' '.join(sys.argv[1:] if argv is None else argv)}".strip()
    result["date"] = date.today().isoformat()
    result["commit"] = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    result["machine"] = {**machine_facts(), "load_average_at_start": load_average}
    result["versions"] = {**package_versions(), "pillow": Image.__version__}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: result[name] for name in ("build", "loader", "index")}, indent=1))
    return 0


def draw_pictures(folder: Path, count: int, height: int) -> None:
    """JPEG files of 1024 pixels' width: soft shapes with grain, about as large as photographs."""
    folder.mkdir(parents=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        soft = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((1024, height), 3)
        grain = rng.normal(0, 6, (height, 1024, 1))
        pixels = np.clip(np.asarray(soft, np.float32) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05d}.jpg", quality=92)


def records_of(folder: Path, num_files: int, count: int) -> list[Any]:
    """`count` records over the files, which repeat under other names."""
    from lavis_emovit.records import EmotionRecord, Instruction

    records = []
    for number in range(count):
        name = f"{number % num_files:05d}.jpg"
        if number >= num_files:
            name = f"again/{number:06d}.jpg"
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            if not path.exists():
                path.hardlink_to(folder / f"{number % num_files:05d}.jpg")
        question = Instruction(kind="conversation", question="What?", answer="A picture.", provenance="bench")
        records.append(
            EmotionRecord(id=f"bench/{number:06d}", image=name, split="train", source="bench", instructions=[question])
        )
    return records


def measure_build(folder: Path, num_files: int, count: int) -> dict[str, Any]:
    """Seconds with one and with two processes, without the two seconds in which processes start, and with them."""
    from lavis_emovit.shards.images import check_image
    from lavis_emovit.shards.writer import write_shards

    root = folder / "pictures"
    records = records_of(root, num_files, count)
    write_shards(
        records[:8], root, folder / "warm", samples_per_shard=4, processes=2
    )  # processes are there from here on
    seconds: dict[int, list[float]] = {1: [], 2: []}
    hashes = set()
    for trial in range(2):
        for processes in (1, 2):
            begin = time.perf_counter()
            out = folder / f"build-{trial}-{processes}"
            index = write_shards(records, root, out, samples_per_shard=100, processes=processes)
            seconds[processes].append(time.perf_counter() - begin)
            hashes.add(index.hash)
    if len(hashes) != 1:
        raise RuntimeError("the builds differ")
    pictures = [(root / record.image).read_bytes() for record in records[:num_files]]

    def seconds_of_all(action: Callable[[], object], clock: Callable[[], float]) -> float:
        begin = clock()
        action()
        return (clock() - begin) * count / num_files

    # What the build does with each byte, each alone: what takes most is its limit.
    work_s = {
        "decoder": seconds_of_all(lambda: [check_image(data) for data in pictures], time.process_time),
        "hash": seconds_of_all(lambda: [hashlib.sha256(data).digest() for data in pictures], time.process_time),
        "disk": seconds_of_all(lambda: write_through(folder / "written", pictures), time.perf_counter),
    }
    one, two = min(seconds[1]), min(seconds[2])
    return {
        "num_pictures": count,
        "bytes": sum(shard.size_bytes for shard in index.shards),
        "one_process_s": one,
        "two_processes_s": two,
        "scaling": one / two / 2,
        "share_of_work": {name: value / one for name, value in work_s.items()},
        "limit": max(work_s, key=lambda name: work_s[name]),
    }


def write_through(path: Path, pieces: Sequence[bytes]) -> None:
    """Write pieces to a file and wait until the disk has them."""
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    path.unlink()


def measure_loader(folder: Path, count: int, rounds: int) -> dict[str, Any]:
    """Pictures a second of the three, alone and with two workers."""
    from lavis.datasets.datasets.caption_datasets import CaptionDataset
    from lavis.processors.blip_processors import BlipCaptionProcessor, BlipImageEvalProcessor
    from torch.utils.data import DataLoader

    from lavis_emovit.datasets.shard_dataset import EmotionShardDataset
    from lavis_emovit.processors.emovit_image_eval import EmovitImageEvalProcessor
    from lavis_emovit.processors.emovit_text import EmovitTextProcessor
    from lavis_emovit.shards.writer import write_shards

    root = folder / "pictures"
    # So many that starting and ending the workers weighs little, as it does in an epoch.
    num_files, count = count, count * REPEATS
    records = records_of(root, num_files, count)
    index = write_shards(records, root, folder / "loader")
    ours = EmotionShardDataset(index, EmovitImageEvalProcessor(), EmovitTextProcessor(), seed=0)
    (folder / "captions.json").write_text(
        json.dumps([{"image": record.image, "caption": "A picture.", "image_id": record.id} for record in records])
    )
    theirs = CaptionDataset(
        BlipImageEvalProcessor(image_size=IMAGE_SIZE),
        BlipCaptionProcessor(),
        str(root),
        [str(folder / "captions.json")],
    )
    paths = [str(root / record.image) for record in records]

    def load(dataset: Any, num_workers: int) -> Callable[[], None]:
        def run() -> None:
            for _ in DataLoader(dataset, batch_size=8, num_workers=num_workers, collate_fn=dataset.collater):
                pass

        return run

    def bare_alone() -> None:
        bare(paths)

    def bare_in_two() -> None:
        context = multiprocessing.get_context("fork")
        halves = [context.Process(target=bare, args=(paths[part::2],)) for part in range(2)]
        for process in halves:
            process.start()
        for process in halves:
            process.join()

    def process_us(run: Callable[[], None]) -> float:
        begin = time.process_time()
        run()
        return (time.process_time() - begin) / count * 1e6

    for run in (bare_alone, load(ours, 0)):
        run()
    overheads = [process_us(load(ours, 0)) - process_us(bare_alone) for _ in range(rounds)]
    result: dict[str, Any] = {"num_pictures": count, "image_size": IMAGE_SIZE, "rounds": rounds}
    result["overhead_us_per_picture"] = statistics.median(overheads)
    for name, contenders in {
        "one_process": {"bare": bare_alone, "ours": load(ours, 0), "lavis": load(theirs, 0)},
        "two_workers": {"bare": bare_in_two, "ours": load(ours, 2), "lavis": load(theirs, 2)},
    }.items():
        times: dict[str, list[float]] = {contender: [] for contender in contenders}
        for _ in range(rounds):
            for contender, run in contenders.items():
                gc.collect()
                begin = time.perf_counter()
                run()
                times[contender].append(time.perf_counter() - begin)
        speed = {contender: count / statistics.median(values) for contender, values in times.items()}
        result[name] = {
            "pictures_per_s": speed,
            "ours_over_bare": statistics.median(b / o for b, o in zip(times["bare"], times["ours"])),
            "ours_over_lavis": statistics.median(t / o for t, o in zip(times["lavis"], times["ours"])),
        }
    return result


def bare(paths: Sequence[str]) -> None:
    """Decode, resize and normalise, and nothing else."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    from lavis_emovit.images import CLIP_MEAN, CLIP_STD

    for path in paths:
        image = Image.open(path)
        image.draft("RGB", (IMAGE_SIZE * 3 // 2, IMAGE_SIZE * 3 // 2))
        pixels = F.resize(F.pil_to_tensor(image), [IMAGE_SIZE, IMAGE_SIZE], InterpolationMode.BICUBIC)
        F.normalize(pixels.float().div_(255), list(CLIP_MEAN), list(CLIP_STD), inplace=True)


def measure_index(folder: Path, total: int) -> dict[str, Any]:
    """Opening and jumping in a fresh process, for a tenth of the samples and for all of them."""
    from lavis_emovit.shards.columns import COLUMN_TYPES
    from lavis_emovit.shards.index import ShardIndex, ShardInfo

    results = {}
    for count in (total // 10, total):
        num_shards = count // 1000
        shards = [ShardInfo(f"shard-{n:06d}.tar", 1000, 1000, 10**8, "0" * 64, {}) for n in range(num_shards)]
        columns = {name: np.resize(np.arange(100, dtype=kind), count) for name, kind in COLUMN_TYPES.items()}
        columns |= {"num_pairs": np.ones(count, np.uint32), "label": np.zeros(count, np.int32)}
        place = folder / str(count)
        ShardIndex(place, shards, columns, labels=["awe"], kinds=["categorical"], label_sets=[], build={}).save()
        del columns
        done = subprocess.run(
            [sys.executable, __file__, "--open-index", str(place)], capture_output=True, text=True, check=True
        )
        results[str(count)] = json.loads(done.stdout)
    return results


def open_index(place: Path) -> dict[str, Any]:
    """Times and memory of this process."""
    from lavis_emovit.shards.index import ShardIndex
    from lavis_emovit.shards.order import EpochOrder

    before = memory_bytes()
    begin = time.perf_counter()
    index = ShardIndex.load(place)
    opened_s = time.perf_counter() - begin
    after = memory_bytes()
    jumps = []
    for position in (0, index.num_samples // 2, index.num_samples - 10):
        begin = time.perf_counter()
        EpochOrder(index.hash, 0, 1, np.diff(index.sample_starts)).take(position, position + 10)
        jumps.append(time.perf_counter() - begin)
    return {
        "open_s": opened_s,
        "private_bytes_per_sample": (after["private"] - before["private"]) / index.num_samples,
        "shared_bytes_per_sample": (after["shared"] - before["shared"]) / index.num_samples,
        "jump_to_start_middle_end_s": jumps,
    }


def memory_bytes() -> dict[str, int]:
    """Memory that only this process has, and that of mapped files, which all processes share."""
    found = {"private": 0, "shared": 0}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split()[:2]
        if name == "Private_Dirty:":
            found["private"] += int(value) * 1024
        elif name in ("Shared_Clean:", "Private_Clean:"):
            found["shared"] += int(value) * 1024
    return found


if __name__ == "__main__":
    raise SystemExit(main())
