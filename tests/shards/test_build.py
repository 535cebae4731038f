"""Building: in several processes, in parts, after a kill, with smaller images.

- The bytes are the same for every number of processes, and for any number of merged parts, moved or copied.
- A build killed with SIGKILL before or after any of its renames resumes when it is called again and ends with the same
  bytes and no leftovers; so does a merge. Finished shards are not built twice.
- Images, records or settings that changed in between are noticed: nothing old gets into the new set.
- Two builds never run in one folder at once; a killed process of a build is reported.
- Parts that are missing, duplicated, foreign or damaged are refused by name.
- Shrunk images keep format, mode, shape and rotation tag; the index records it; small and odd ones keep their bytes.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import shutil
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from lavis_emovit.errors import DataError
from lavis_emovit.shards import pool, shard_file, writer
from lavis_emovit.shards.images import check_image, shrink_image
from lavis_emovit.shards.index import ShardIndex
from lavis_emovit.shards.merge import merge_parts
from lavis_emovit.shards.reader import ShardReader
from lavis_emovit.shards.writer import write_shards


@pytest.fixture(scope="module")
def images(tmp_path_factory, make_records):
    """(records, root) of 23 images, two of them bad."""
    root = tmp_path_factory.mktemp("images")
    records = make_records(root, 23)
    (root / records[3].image).write_bytes(b"")
    (root / records[11].image).write_bytes(b"<html>")
    return records, root


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """Files of the set that is built in one go."""
    out = tmp_path_factory.mktemp("whole") / "out"
    build(images, out)
    return contents(out)


def build(images, out, **options):
    return write_shards(*images, out, **{"samples_per_shard": 9, "skip_bad": True, **options})


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def killed(action, at, before):
    """Run in a child process that is killed at its `at`-th rename; returns whether it was."""

    def run():
        real, calls = Path.replace, []

        def replace(self, target):
            calls.append(target)
            if len(calls) == at and before:
                os.kill(os.getpid(), signal.SIGKILL)
            real(self, target)
            if len(calls) == at:
                os.kill(os.getpid(), signal.SIGKILL)

        Path.replace = replace
        action()

    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode != 0


def test_several_processes_write_the_same_bytes(images, whole, tmp_path):
    seen = []
    build(images, tmp_path, processes=3, progress=lambda done, total: seen.append((done, total)))
    assert contents(tmp_path) == whole
    assert seen[-1] == (23, 23)


@pytest.mark.parametrize("before", [True, False])
def test_a_build_killed_at_any_rename_resumes(images, whole, tmp_path, before):
    at = 1
    while killed(partial(build, images, tmp_path / str(at)), at, before):
        out = tmp_path / str(at)
        is_complete = (out / "index.json").exists()
        if not is_complete:
            with pytest.raises(DataError, match="no shard index"):
                ShardIndex.load(out)
        build(images, out, overwrite=is_complete)
        assert contents(out) == whole, at
        at += 1
    # Three shards and their notes, the columns and the head.
    assert at - 1 == 8


def test_finished_shards_are_not_built_twice(images, whole, tmp_path, monkeypatch):
    assert killed(lambda: build(images, tmp_path), 3, True)
    real, built = shard_file._write, []

    def counted(job, on_sample):
        built.append(job.number)
        return real(job, on_sample)

    monkeypatch.setattr(shard_file, "_write", counted)
    build(images, tmp_path)
    assert built == [1, 2]
    assert contents(tmp_path) == whole


@pytest.mark.parametrize("what", ["image", "record", "seed", "resize", "shard", "note"])
def test_changes_after_the_kill_are_noticed(images, tmp_path, what):
    root, out = tmp_path / "images", tmp_path / "out"
    records, options = list(images[0]), {}
    shutil.copytree(images[1], root)
    assert killed(lambda: build((records, root), out), 7, True)
    assert len(list(out.glob("*.tar"))) == 3
    if what == "image":
        for record in records[::4]:
            shutil.copy(root / records[1].image, root / record.image)
    elif what == "record":
        records[2] = records[2].model_copy(update={"caption": "new"})
    elif what == "seed":
        options = {"seed": 1}
    elif what == "resize":
        options = {"resize_px": 12}
    elif what == "shard":
        (out / "shard-000001.tar").write_bytes((out / "shard-000001.tar").read_bytes().replace(b"anger", b"Anger"))
    else:
        for path in (out / ".build").glob("*.json"):
            path.write_text(path.read_text()[:-3])
    build((records, root), out, **options)
    build((records, root), tmp_path / "expected", **options)
    assert contents(out) == contents(tmp_path / "expected")


def test_two_builds_never_share_a_folder(images, tmp_path):
    (tmp_path / ".build").mkdir()
    with FileLock(tmp_path / ".build" / "lock"), pytest.raises(DataError, match="another build is running there"):
        build(images, tmp_path)


def _die(job, on_sample=None):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_of_a_build_is_reported(images, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "build_shard", _die)
    monkeypatch.setattr(pool, "start_method", lambda: multiprocessing.get_context("fork"))
    with pytest.raises(DataError, match="one of the processes was killed"):
        build(images, tmp_path, processes=2)
    monkeypatch.undo()
    build(images, tmp_path)
    assert contents(tmp_path) == whole


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("inside", [True, False])
def test_parts_merge_to_the_same_bytes(images, whole, tmp_path, count, inside):
    places = [tmp_path / "out" if inside else tmp_path / f"machine{number}" for number in range(count)]
    folders = []
    for number, place in enumerate(places, start=1):
        folders.append(build(images, place, part=(number, count)).folder)
    index = merge_parts(tmp_path / "out", () if inside else folders)
    assert contents(tmp_path / "out") == whole
    assert ShardReader(index).read(0)
    assert all(folder.exists() != inside for folder in folders)


def test_a_merge_killed_at_any_rename_resumes(images, whole, tmp_path):
    for number in (1, 2):
        build(images, tmp_path / "parts", part=(number, 2))
    at = 1
    while True:
        out = tmp_path / str(at)
        shutil.copytree(tmp_path / "parts", out)
        if not killed(partial(merge_parts, out), at, False):
            break
        merge_parts(out, overwrite=(out / "index.json").exists())
        assert contents(out) == whole, at
        at += 1
    assert at - 1 == 5


def test_parts_that_do_not_fit_together_are_refused(images, tmp_path):
    one, two = (build(images, tmp_path, part=(number, 2)).folder for number in (1, 2))
    other = build(images, tmp_path / "other", part=(2, 2), seed=1).folder
    whole = build(images, tmp_path / "whole").folder
    for parts, expected in (
        ([one], r"missing parts: 2/2"),
        ([one, one, two], "part 1/2, the same as"),
        ([one, other], "from another build than"),
        ([one, whole], "a complete set, not a part"),
        ([], "contains no parts"),
    ):
        with pytest.raises(DataError, match=expected):
            merge_parts(tmp_path / "empty", parts)
    with pytest.raises(DataError, match="already contains finished shards"):
        merge_parts(whole, [one, two])
    next(two.glob("*.tar")).write_bytes(b"x")
    with pytest.raises(DataError, match=r"shard-000001.tar: changed after its index was written"):
        merge_parts(tmp_path / "new", [one, two])
    for part in ((0, 2), (3, 2)):
        with pytest.raises(DataError, match="parts are numbered 1/n to n/n"):
            build(images, tmp_path / "bad", part=part)


def _bytes(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _photo(size, mode="RGB"):
    y, x = np.mgrid[0 : size[1], 0 : size[0]] / 50
    channels = [127.5 + 127.5 * np.sin(x + phase) * np.cos(y - phase) for phase in range(3)]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8)).convert(mode)


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "RGBA"), ("WEBP", "RGB")])
def test_shrunk_images_keep_format_mode_and_rotation(kind, mode):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = _bytes(_photo((400, 300), mode), kind, exif=exif)
    small = shrink_image(data, 60)
    check_image(small)
    with Image.open(io.BytesIO(small)) as image:
        assert (image.format, image.mode, image.size) == (kind, mode, (80, 60))
        assert image.getexif()[0x0112] == 6
        expected = _photo((400, 300), mode).resize((80, 60), Image.Resampling.LANCZOS)
        difference = np.abs(np.asarray(image, np.int16) - np.asarray(expected, np.int16))
        assert difference.mean() < 2
    assert len(small) < len(data)


@pytest.mark.parametrize(
    "data",
    [
        _bytes(_photo((60, 90)), "JPEG"),
        _bytes(_photo((400, 300)).convert("P"), "PNG"),
        _bytes(_photo((400, 300)).convert("CMYK"), "JPEG"),
        _bytes(Image.new("I;16", (400, 300), 40000), "PNG"),
        _bytes(_photo((400, 300)), "GIF", save_all=True, append_images=[_photo((400, 300)).rotate(90)]),
        _bytes(_photo((400, 300)), "BMP"),
    ],
    ids=["small", "palette", "cmyk", "16 bits", "animation", "bmp"],
)
def test_small_and_odd_images_keep_their_bytes(data):
    assert shrink_image(data, 60) == data


def test_the_index_records_the_size(tmp_path, make_records):
    records = make_records(tmp_path, 6, size_px=64)
    index = write_shards(records, tmp_path, tmp_path / "out", resize_px=32)
    assert index.build["resize"] == {"short_side_px": 32, "jpeg_quality": 95}
    sizes = {Image.open(io.BytesIO(ShardReader(index).read(n).image_bytes)).size for n in range(6)}
    assert sizes == {(32, 32)}
    kept = write_shards(records, tmp_path, tmp_path / "kept")
    assert kept.build["resize"] is None
    assert kept.hash != index.hash
    with pytest.raises(DataError, match="resize_px must be at least 8"):
        write_shards(records, tmp_path, tmp_path / "bad", resize_px=1)
