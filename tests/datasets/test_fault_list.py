"""The faults that data have in practice, each by name: refused, replaced, or read correctly.

- Broken images are refused when shards are built; odd but sound ones are accepted and become upright RGB.
- A broken image that got in nevertheless, and bytes that change later, are replaced during training: the order of all
  other samples and the number of steps stay, for any number of workers; each is counted once, by kind, and listed.
- The run stops when the budget of all samples, or of a class, is exceeded, and reports why.
- Shards that are missing, truncated, renamed, swapped or empty are refused at the start, by name, or reported as faults
  if they disappear during training; a killed worker is an error, not a hang.
- Uneven shards, fewer shards than workers and more ranks than samples lose nothing.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import struct
import time
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from lavis_emovit.datasets.batching import GlobalBatchSampler
from lavis_emovit.datasets.eval_dataset import EmotionEvalDataset
from lavis_emovit.datasets.faults import FaultSettings
from lavis_emovit.datasets.shard_dataset import EmotionShardDataset
from lavis_emovit.errors import DataError, UserError
from lavis_emovit.images import decode_image
from lavis_emovit.runners.loaders import train_steps
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.shards import shard_file
from lavis_emovit.shards.index import ShardIndex
from lavis_emovit.shards.reader import FAULT_KINDS, SampleFaultError
from lavis_emovit.shards.tar import scan_tar
from lavis_emovit.shards.verify import verify_shards
from lavis_emovit.shards.writer import write_shards
from lavis_emovit.train import launch

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

NUM_SAMPLES = 24
ALLOWED = FaultSettings(max_share=0.9, max_class_share=1.0)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def two_halves():
    """40 x 20, red on the left, blue on the right."""
    image = Image.new("RGB", (40, 20), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, 20, 20))
    return image


def bomb():
    """A PNG whose header claims 30,000 x 30,000 pixels."""
    data = bytearray(encoded(Image.new("1", (8, 8)), "PNG"))
    data[16:24] = struct.pack(">II", 30_000, 30_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def rotated():
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(two_halves(), "JPEG", quality=95, exif=exif)


def animation():
    return encoded(two_halves(), "GIF", save_all=True, append_images=[Image.new("RGB", (40, 20), (0, 255, 0))])


def flipped():
    data = bytearray(encoded(two_halves(), "PNG"))
    data[len(data) // 2] ^= 255
    return bytes(data)


BROKEN = {
    "zero bytes": b"",
    "HTML named .jpg": b"<!DOCTYPE html><html>gone</html>",
    "truncated JPEG": encoded(two_halves(), "JPEG")[:-40],
    "truncated PNG": encoded(two_halves(), "PNG")[:-60],
    "flipped byte in a PNG": flipped(),
    "decompression bomb": bomb(),
    "text": b"not an image",
    "floating point": encoded(Image.new("F", (4, 4), 0.5), "TIFF"),
}
# name -> (bytes, size as seen, pixel near the top left, pixel near the bottom right)
ODD = {
    "CMYK": (encoded(two_halves().convert("CMYK"), "JPEG", quality=100), (40, 20), (255, 0, 0), (0, 0, 255)),
    "16 bits": (encoded(Image.new("I;16", (8, 4), 0x8040), "PNG"), (8, 4), (128,) * 3, (128,) * 3),
    "16 bits in TIFF": (encoded(Image.new("I;16", (8, 4), 0x8040), "TIFF"), (8, 4), (128,) * 3, (128,) * 3),
    "palette": (encoded(two_halves().convert("P"), "PNG"), (40, 20), (255, 0, 0), (0, 0, 255)),
    "EXIF-rotated": (rotated(), (20, 40), (255, 0, 0), (0, 0, 255)),
    "1x1": (encoded(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG"), (1, 1), (9, 8, 7), (9, 8, 7)),
    "animated GIF": (animation(), (40, 20), (255, 0, 0), (0, 0, 255)),
    "grey": (encoded(Image.new("L", (5, 5), 77), "JPEG"), (5, 5), (77,) * 3, (77,) * 3),
    "transparent": (encoded(Image.new("RGBA", (5, 5), (0, 0, 0, 0)), "PNG"), (5, 5), (255,) * 3, (255,) * 3),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory, make_records):
    """(records, image root, shard folder) of sound samples."""
    root, out = tmp_path_factory.mktemp("images"), tmp_path_factory.mktemp("shards") / "train"
    records = make_records(root, NUM_SAMPLES)
    write_shards(records, root, out, samples_per_shard=8)
    return records, root, out


@pytest.fixture
def with_image(built, tmp_path):
    """Function (bytes) -> (records, root) with one image replaced."""

    def replace(data):
        root = shutil.copytree(built[1], tmp_path / "images")
        (root / built[0][5].image).write_bytes(data)
        return built[0], root

    return replace


def steps_of(dataset, num_workers=0, epoch=1, **changes):
    values = {"output_dir": "nowhere", "max_epoch": 2, "global_batch_size": 5, "init_lr": 1e-3, "device": "cpu"}
    settings = RunSettings(**values | {"num_workers": num_workers} | changes)
    return list(train_steps(dataset, settings, epoch=epoch, start_step=0))


def ids_of(steps):
    return [record_id for step in steps for batch in step for record_id in batch["record_id"]]


@pytest.mark.parametrize("name", BROKEN)
def test_broken_images(name, with_image, tmp_path, processors, monkeypatch, built):
    records, root = with_image(BROKEN[name])
    with pytest.raises(DataError, match=rf"1 of {NUM_SAMPLES} images cannot be used:\n  - {records[5].id}: "):
        write_shards(records, root, tmp_path / "strict", samples_per_shard=10)
    skipped = write_shards(records, root, tmp_path / "skipped", samples_per_shard=10, skip_bad=True)
    assert skipped.num_samples == NUM_SAMPLES - 1
    assert [item["id"] for item in skipped.build["skipped"]] == [records[5].id]
    if name == "floating point":
        return  # refused because its range is unknown, although it can be decoded
    # Bypass the check, as tars of other tools do.
    monkeypatch.setattr(shard_file, "check_image", lambda data: "jpg")
    index = write_shards(records, root, tmp_path / "let_in", samples_per_shard=10)
    sound = EmotionShardDataset(built[2], processors[0], processors[2], seed=5)
    dataset = EmotionShardDataset(index, processors[0], processors[2], seed=5, faults=ALLOWED)
    order = [number for _, number in dataset.epoch_order(42, 1, 5).keys(0, NUM_SAMPLES)]
    faulty = next(n for n in range(NUM_SAMPLES) if dataset.read(n).record.id == records[5].id)
    steps = steps_of(dataset)
    assert len(steps) == len(steps_of(sound)) == 5
    found = ids_of(steps)
    expected = [dataset.read(number).record.id for number in order]
    assert [one == other for one, other in zip(found, expected)] == [number != faulty for number in order]
    assert dataset.fault_log.counts == {"bad_image": 1}
    with pytest.raises(SampleFaultError, match="the image cannot be decoded"):
        EmotionShardDataset(index, processors[0], processors[2], seed=5)[faulty]


@pytest.mark.parametrize("name", ODD)
def test_odd_images_are_read_correctly(name, with_image, tmp_path, processors):
    data, size, top_left, bottom_right = ODD[name]
    records, root = with_image(data)
    index = write_shards(records, root, tmp_path / "out", samples_per_shard=10)
    assert verify_shards(index.folder).ok
    dataset = EmotionShardDataset(index, processors[0], processors[2], seed=5, faults=ALLOWED)
    number = next(n for n in range(NUM_SAMPLES) if dataset.read(n).record.id == records[5].id)
    assert dataset.read(number).image_bytes == data
    image = decode_image(data)
    assert (image.mode, image.size) == ("RGB", size)
    for place, expected in (((0, 0), top_left), ((size[0] - 1, size[1] - 1), bottom_right)):
        assert np.abs(np.subtract(image.getpixel(place), expected)).max() <= 6
    assert "fault" not in dataset[number]


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(bytes(data))


def first_shard(folder):
    return folder / "shard-000000.tar"


def swapped(folder):
    second = folder / "shard-000001.tar"
    data = first_shard(folder).read_bytes()
    first_shard(folder).write_bytes(second.read_bytes())
    second.write_bytes(data)


SHARD_FAULTS = {
    "truncated in a member": lambda f: os.truncate(first_shard(f), scan_tar(first_shard(f))[6].offset + 60),
    "truncated at a member boundary": lambda f: os.truncate(first_shard(f), scan_tar(first_shard(f))[6].offset - 512),
    "zero bytes": lambda f: first_shard(f).write_bytes(b""),
    "deleted": lambda f: first_shard(f).unlink(),
    "renamed": lambda f: first_shard(f).rename(f / "shard-000009.tar"),
    "swapped": swapped,
    "flipped byte": lambda f: flip(first_shard(f), scan_tar(first_shard(f))[4].offset + 30),
}


@pytest.mark.parametrize("name", SHARD_FAULTS)
def test_broken_shards(name, built, tmp_path, processors):
    folder = shutil.copytree(built[2], tmp_path / "copy")
    running = EmotionShardDataset(folder, processors[0], processors[2], seed=5, faults=ALLOWED)
    SHARD_FAULTS[name](folder)
    report = verify_shards(folder)
    assert not report.ok and any("shard-000000.tar" in problem for problem in report.problems)
    # During a run: the shard's samples are replaced, but are too many for any sensible budget.
    steps = steps_of(running)
    assert len(steps) == 5 and len(ids_of(steps)) == NUM_SAMPLES
    assert running.fault_log.counts and set(running.fault_log.counts) <= set(FAULT_KINDS)
    count = 1 if name == "flipped byte" else len(running.fault_log.faults)
    assert sum(running.fault_log.counts.values()) == count <= 16
    strict = EmotionShardDataset(built[2], processors[0], processors[2], seed=5, faults=FaultSettings())
    strict.reader.index.folder = folder
    with pytest.raises(DataError, match=r"too many samples cannot be used: 1 of 24 samples, allowed is 0.10%"):
        steps_of(strict)
    # At the start: sizes always, and with `verify_hashes` every byte.
    with pytest.raises(DataError, match=r"shard-00000\d.tar(:? is missing|:? has \d+ bytes|: changed after)"):
        steps_of(EmotionShardDataset(folder, processors[0], processors[2], seed=5, verify_hashes=True))


def damaged(built, tmp_path, numbers):
    """A copy of the shards in which the images of some samples are damaged."""
    folder = shutil.copytree(built[2], tmp_path / "damaged")
    index = ShardIndex.load(folder)
    for sample in numbers:
        flip(index.local_path(index.shard_of(sample)), int(index.columns["image_offset"][sample]) + 20)
    return folder


@pytest.mark.parametrize("num_workers", [0, 2])
def test_replacements_are_the_same_everywhere_and_listed(built, tmp_path, processors, num_workers):
    folder = damaged(built, tmp_path, [3, 17])

    def dataset():
        return EmotionShardDataset(folder, processors[0], processors[2], seed=5, faults=ALLOWED)

    expected = [dataset()[1, number] for _, number in dataset().epoch_order(42, 1, 5).keys(0, NUM_SAMPLES)]
    assert sum("fault" in item for item in expected) == 2
    running = dataset()
    steps = steps_of(running, num_workers, micro_batch_size=2, output_dir=str(tmp_path))
    assert ids_of(steps) == [item["record_id"] for item in expected]
    images = torch.cat([batch["image"] for step in steps for batch in step])
    assert torch.equal(images, torch.stack([item["image"] for item in expected]))
    assert not any("faults" in batch for step in steps for batch in step)
    steps_of(running, num_workers, epoch=2, output_dir=str(tmp_path))
    listed = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert sorted(fault["sample"] for fault in listed) == [3, 17]
    assert {fault["kind"] for fault in listed} == {"changed_bytes"}
    assert running.fault_log.counts == {"changed_bytes": 2}


def test_the_budget_counts_across_starts_and_processes(built, tmp_path, processors):
    folder = damaged(built, tmp_path, [3, 17, 20])

    def log(max_share=0.1):
        dataset = EmotionShardDataset(
            folder, *processors[1:], seed=5, faults=FaultSettings(max_share=max_share, max_class_share=1.0)
        )
        dataset.fault_log.path = tmp_path / "quarantine.jsonl"
        return dataset

    def fault(sample):
        return {
            "sample": sample,
            "place": f"p{sample}",
            "kind": "bad_image",
            "reason": "r",
            "label": None,
            "replaced_by": 1,
        }

    first, second = log(), log()
    first.fault_log.add(fault(3))
    with (tmp_path / "quarantine.jsonl").open("a") as file:
        file.write('{"sample": 9, "kind": "bad_im')  # a partial line after a crash
    second.fault_log.add(fault(17))
    second.fault_log.add(fault(3))
    assert sorted(second.fault_log.faults) == [3, 17]
    # A third fault is one too many, in any process, and also after a restart.
    for late in (first, log()):
        with pytest.raises(
            DataError, match=r"3 of 24 samples, .*\n(.*\n)*.*quarantine.jsonl and count when the run resumes"
        ):
            late.fault_log.add(fault(20))
        (tmp_path / "quarantine.jsonl").write_text(
            "".join((tmp_path / "quarantine.jsonl").read_text().splitlines(keepends=True)[:3])
        )
    lines = (tmp_path / "quarantine.jsonl").read_text().splitlines()
    assert [json.loads(line)["sample"] for line in (lines[0], lines[2])] == [3, 17]
    # Other shards have their own budget.
    other = EmotionShardDataset(built[2], *processors[1:], seed=5, faults=FaultSettings())
    other.fault_log.index_name = "other"
    other.fault_log.path = tmp_path / "quarantine.jsonl"
    assert not other.fault_log.faults


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ({"max_share": 0.08, "max_class_share": 1.0}, "2 of 24 samples, allowed is 8.00%"),
        ({"max_share": 1.0, "max_class_share": 0.3}, r"1 of 3 samples of '\w+', allowed is 30.00%"),
        ({"max_share": 0.0}, "1 of 24 samples, allowed is 0.00%"),
        ({"replace": False}, "its bytes changed after the index was written"),
    ],
)
def test_an_exceeded_budget_stops_the_run(built, tmp_path, processors, budget, expected):
    folder = damaged(built, tmp_path, [3, 17])
    dataset = EmotionShardDataset(folder, *processors[1:], seed=5, faults=FaultSettings(**budget))
    with pytest.raises(DataError, match=expected) as caught:
        steps_of(dataset)
    if "replace" not in budget:
        assert "x changed_bytes: the sample's bytes" in str(caught.value)
        assert "shard-00000" in str(caught.value) and "faults.max_share" in str(caught.value)
    enough = FaultSettings(max_share=0.1, max_class_share=0.5)
    assert len(steps_of(EmotionShardDataset(folder, *processors[1:], seed=5, faults=enough))) == 5


def test_evaluation_never_replaces(built, tmp_path, processors):
    dataset = EmotionEvalDataset(damaged(built, tmp_path, [3]), *processors[1:])
    with pytest.raises(SampleFaultError, match=r"shard-000000.tar, sample 3: its bytes changed"):
        dataset[3]


def test_a_set_without_readable_samples_is_reported(built, tmp_path, processors):
    folder = damaged(built, tmp_path, range(NUM_SAMPLES))
    dataset = EmotionShardDataset(folder, *processors[1:], seed=5, faults=ALLOWED)
    with pytest.raises(DataError, match="The 20 samples tried as replacements cannot be read either"):
        dataset[0]


class Deadly(EmotionShardDataset):
    deadly_number = 7
    delay_s = 0.5  # by then the run waits for it

    def __getitem__(self, key):
        if key[1] == self.deadly_number:
            time.sleep(self.delay_s)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(key)


def test_a_killed_worker_is_an_error_not_a_hang(built, processors):
    dataset = Deadly(built[2], *processors[1:], seed=5)
    with pytest.raises(UserError, match=r"process that reads images was killed.*Reduce num_workers"):
        steps_of(dataset, num_workers=2)


def test_a_worker_killed_in_the_middle_of_a_step_is_reported(built, processors, capsys):
    """torch then raises from a signal handler, outside of the loader."""
    dataset = Deadly(built[2], *processors[1:], seed=5)
    # In the second step: by then the first worker has finished the first one, and the run is in it.
    dataset.deadly_number = dataset.epoch_order(42, 1, 5).keys(7, 8)[0][1]
    dataset.delay_s = 1.5
    in_step = []

    def run(*_):
        settings = RunSettings(
            output_dir="nowhere", max_epoch=2, global_batch_size=5, init_lr=1e-3, device="cpu", num_workers=2
        )
        for _ in train_steps(dataset, settings, epoch=1, start_step=0):
            in_step.append(True)
            time.sleep(3)
            in_step.pop()

    assert launch(["--cfg-path", "x"], prog="test", description="", run=run) == 2
    assert in_step and "error: A process that reads images was killed" in capsys.readouterr().err


@pytest.mark.parametrize("sizes", [[1, 7, 100], [100, 1], [3], [0, 5, 0]], ids=str)
@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6])
def test_uneven_shards_and_empty_ranks_lose_nothing(sizes, world_size):
    from lavis_emovit.shards.order import EpochOrder

    total = sum(sizes)
    samplers = [
        GlobalBatchSampler(EpochOrder("h", 0, 0, sizes, 2), 10, rank, world_size, 3) for rank in range(world_size)
    ]
    batches = [list(sampler) for sampler in samplers]
    assert len({len(found) for found in batches}) == 1
    numbers = sorted(number for found in batches for batch in found for _, number in batch)
    assert numbers == list(range(total))


def test_fewer_shards_than_workers(built, tmp_path, processors):
    one = write_shards(built[0][:7], built[1], tmp_path / "one")
    dataset = EmotionShardDataset(one, *processors[1:], seed=5)
    assert len(one.shards) == 1
    assert ids_of(steps_of(dataset, num_workers=3)) == ids_of(steps_of(dataset))
    assert len(set(ids_of(steps_of(dataset)))) == 7
