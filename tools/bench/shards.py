"""Measure shards: the loader against a bare loop and LAVIS's own dataset, the index, the build and the order.

    python tools/bench/shards.py --out benchmarks/shards.json

- loader: images per second from the same JPEG files, square and 4:3, with a longer side of 1024 px, in this process and
  with two workers. `bare` is a loop that decodes, resizes and normalises, with our reduced decoding and resizing
  kernel. `lavis` is LAVIS's caption dataset with its evaluation processor and a plain DataLoader, because LAVIS's own
  loader needs CUDA. The figures are medians over alternating rounds. Reduced decoding keeps both sides of an image at
  1.5 times the input size of 224 px or more, so it halves both shapes.
- overhead: processor time of the loader minus that of the bare loop, in microseconds per image.
- index: ten million synthetic samples; time to open it in a new process, its private and shared memory, and jumps in
  the order.
- build: the same records with one and with two processes; the shares of decoding, hashing and writing, and the largest
  of them.
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
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result

IMAGE_SIZE = 224
REPEATS = 4


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all parts and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "shards.json")
    parser.add_argument("--pictures", type=int, default=120, help="number of images of each shape")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=10_000_000, help="samples of the index")
    parser.add_argument("--build-pictures", type=int, default=2400, help="number of images of the build")
    parser.add_argument("--open-index", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.open_index is not None:
        print(json.dumps(open_index(arguments.open_index)))
        return 0
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        load_average = os.getloadavg()[0]
        shapes = {"1024x1024": Path(folder, "square"), "1024x768": Path(folder, "landscape")}
        for shape, path in shapes.items():
            draw_images(path / "images", arguments.pictures, int(shape.partition("x")[2]))
        result: dict[str, Any] = {
            "build": measure_build(shapes["1024x768"], arguments.pictures, arguments.build_pictures),
            "loader": {
                shape: measure_loader(path, arguments.pictures, arguments.rounds) for shape, path in shapes.items()
            },
            "index": measure_index(Path(folder, "index"), arguments.samples),
        }
    result["command"] = f"python tools/bench/shards.py {' '.join(sys.argv[1:] if argv is None else argv)}".strip()
    result |= environment_info(packages=["pillow"])
    result["machine"]["load_average_at_start"] = load_average
    write_result(arguments.out, result)
    print(json.dumps({name: result[name] for name in ("build", "loader", "index")}, indent=1))
    return 0


def draw_images(folder: Path, count: int, height: int) -> None:
    """Write JPEG files with a width of 1024 px: smooth shapes with noise, about the file size of photographs."""
    folder.mkdir(parents=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        smooth = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((1024, height), 3)
        noise = rng.normal(0, 6, (height, 1024, 1))
        pixels = np.clip(np.asarray(smooth, np.float32) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05d}.jpg", quality=92)


def records_of(folder: Path, num_files: int, count: int) -> list[Any]:
    """`count` records of the files. Hard links with other names repeat the files."""
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
    """Measure the build with one and with two processes, without the start of the process pool."""
    from lavis_emovit.shards.images import check_image
    from lavis_emovit.shards.writer import write_shards

    root = folder / "images"
    records = records_of(root, num_files, count)
    # Start the process pool.
    write_shards(records[:8], root, folder / "warm", samples_per_shard=4, processes=2)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    hashes = set()
    for trial in range(2):
        for processes in (1, 2):
            started = time.perf_counter()
            out = folder / f"build-{trial}-{processes}"
            index = write_shards(records, root, out, samples_per_shard=100, processes=processes)
            seconds[processes].append(time.perf_counter() - started)
            hashes.add(index.hash)
    if len(hashes) != 1:
        raise RuntimeError("the builds differ")
    images = [(root / record.image).read_bytes() for record in records[:num_files]]

    def seconds_of_all(action: Callable[[], object], clock: Callable[[], float]) -> float:
        started = clock()
        action()
        return (clock() - started) * count / num_files

    # The work of the build on each byte. The slowest kind of work is the limit.
    work_s = {
        "decoder": seconds_of_all(lambda: [check_image(data) for data in images], time.process_time),
        "hash": seconds_of_all(lambda: [hashlib.sha256(data).digest() for data in images], time.process_time),
        "disk": seconds_of_all(lambda: write_through(folder / "written", images), time.perf_counter),
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
    """Write pieces to a file and flush it to the disk."""
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    path.unlink()


def measure_loader(folder: Path, count: int, rounds: int) -> dict[str, Any]:
    """Images per second of the bare loop, our loader and LAVIS's dataset, in one process and with two workers."""
    from lavis.datasets.datasets.caption_datasets import CaptionDataset
    from lavis.processors.blip_processors import BlipCaptionProcessor, BlipImageEvalProcessor
    from torch.utils.data import DataLoader

    from lavis_emovit.datasets.shard_dataset import EmotionShardDataset
    from lavis_emovit.processors.emovit_image_eval import EmovitImageEvalProcessor
    from lavis_emovit.processors.emovit_text import EmovitTextProcessor
    from lavis_emovit.shards.writer import write_shards

    root = folder / "images"
    # Enough images that the start and end of the workers have little influence, as in a real epoch.
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

    def bare_in_one() -> None:
        bare(paths)

    def bare_in_two() -> None:
        context = multiprocessing.get_context("fork")
        halves = [context.Process(target=bare, args=(paths[part::2],)) for part in range(2)]
        for process in halves:
            process.start()
        for process in halves:
            process.join()

    def process_us(run: Callable[[], None]) -> float:
        started = time.process_time()
        run()
        return (time.process_time() - started) / count * 1e6

    for run in (bare_in_one, load(ours, 0)):
        run()
    overheads = [process_us(load(ours, 0)) - process_us(bare_in_one) for _ in range(rounds)]
    result: dict[str, Any] = {"num_pictures": count, "image_size": IMAGE_SIZE, "rounds": rounds}
    result["overhead_us_per_picture"] = statistics.median(overheads)
    for name, sides in {
        "one_process": {"bare": bare_in_one, "ours": load(ours, 0), "lavis": load(theirs, 0)},
        "two_workers": {"bare": bare_in_two, "ours": load(ours, 2), "lavis": load(theirs, 2)},
    }.items():
        times: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(rounds):
            for side, run in sides.items():
                gc.collect()
                started = time.perf_counter()
                run()
                times[side].append(time.perf_counter() - started)
        speed = {side: count / statistics.median(values) for side, values in times.items()}
        result[name] = {
            "pictures_per_s": speed,
            "ours_over_bare": median_ratio(times["bare"], times["ours"]),
            "ours_over_lavis": median_ratio(times["lavis"], times["ours"]),
        }
    return result


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Median of the ratios of all rounds."""
    return statistics.median(numerator / denominator for numerator, denominator in zip(numerators, denominators))


def bare(paths: Sequence[str]) -> None:
    """The bare loop: decode, resize and normalise."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    from lavis_emovit.images import CLIP_MEAN, CLIP_STD

    for path in paths:
        image = Image.open(path)
        image.draft("RGB", (IMAGE_SIZE * 3 // 2, IMAGE_SIZE * 3 // 2))
        pixels = F.resize(F.pil_to_tensor(image), [IMAGE_SIZE, IMAGE_SIZE], InterpolationMode.BICUBIC)
        F.normalize(pixels.float().div_(255), list(CLIP_MEAN), list(CLIP_STD), inplace=True)


def measure_index(folder: Path, total: int) -> dict[str, Any]:
    """Measure `open_index` in a new process, with a tenth of the samples and with all of them."""
    from lavis_emovit.shards.columns import COLUMN_TYPES
    from lavis_emovit.shards.index import ShardIndex, ShardInfo

    results = {}
    for count in (total // 10, total):
        num_shards = count // 1000
        shards = [ShardInfo(f"shard-{n:06d}.tar", 1000, 1000, 10**8, "0" * 64, {}) for n in range(num_shards)]
        columns = {name: np.resize(np.arange(100, dtype=kind), count) for name, kind in COLUMN_TYPES.items()}
        columns |= {"num_pairs": np.ones(count, np.uint32), "label": np.zeros(count, np.int32)}
        path = folder / str(count)
        ShardIndex(path, shards, columns, labels=["awe"], kinds=["categorical"], label_sets=[], build={}).save()
        del columns
        done = subprocess.run(
            [sys.executable, __file__, "--open-index", str(path)], capture_output=True, text=True, check=True
        )
        results[str(count)] = json.loads(done.stdout)
    return results


def open_index(path: Path) -> dict[str, Any]:
    """Seconds to open an index and to jump in its order, and the memory of the open index."""
    from lavis_emovit.shards.index import ShardIndex
    from lavis_emovit.shards.order import EpochOrder

    before = memory_bytes()
    started = time.perf_counter()
    index = ShardIndex.load(path)
    open_s = time.perf_counter() - started
    after = memory_bytes()
    jumps_s = []
    for position in (0, index.num_samples // 2, index.num_samples - 10):
        started = time.perf_counter()
        EpochOrder(index.hash, 0, 1, np.diff(index.sample_starts)).take(position, position + 10)
        jumps_s.append(time.perf_counter() - started)
    return {
        "open_s": open_s,
        "private_bytes_per_sample": (after["private"] - before["private"]) / index.num_samples,
        "shared_bytes_per_sample": (after["shared"] - before["shared"]) / index.num_samples,
        "jump_to_start_middle_end_s": jumps_s,
    }


def memory_bytes() -> dict[str, int]:
    """Private memory of this process, and memory of mapped files, which all processes share."""
    sizes = {"private": 0, "shared": 0}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split()[:2]
        if name == "Private_Dirty:":
            sizes["private"] += int(value) * 1024
        elif name in ("Shared_Clean:", "Private_Clean:"):
            sizes["shared"] += int(value) * 1024
    return sizes


if __name__ == "__main__":
    raise SystemExit(main())
